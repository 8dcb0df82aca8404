"""From rows of a published tensor to a block of one of our leaves, and back.

A block is what some rows of a tensor fill: an array with the rank of the leaf,
of one element along the axes that the tensor's name or a digit fixes, and the
place in the leaf where it begins. See `names` for the notation.
"""
from __future__ import annotations

import dataclasses
import math
import re

import numpy as np

from rljax.models import variants


@dataclasses.dataclass(frozen=True)
class Part:
  """Rows `first` to `first + rows` of a tensor, all of one leaf."""
  path: tuple[str, ...]
  source: tuple[str, ...]   # letters of each axis of the tensor
  target: tuple[str, ...]   # letters of each axis of the leaf
  fixed: dict[str, int]     # layer and expert
  sizes: dict[str, int]
  first: int
  rows: int

  @property
  def step(self) -> int:
    """Rows that cannot be separated: those of one head, for example."""
    return self._count(self.source[0][1:])

  def _count(self, letters) -> int:
    return math.prod(self.sizes[letter] for letter in letters)

  def _axes(self, rows: int) -> dict[str, int]:
    """Sizes of the tensor's letters, where it has so many rows."""
    letters = ''.join(self.source)
    return {x: self.sizes[x] for x in letters} | {
        self.source[0][0]: rows // self.step}

  def block(self, rows_: np.ndarray, begin: int):
    """(starts, block) for the rows from `begin`, counted from `first`."""
    axes = self._axes(len(rows_))
    order = [x for group in self.target for x in group if x in axes]
    x = rows_.reshape(list(axes.values())).transpose(
        [list(axes).index(letter) for letter in order])
    shape = [math.prod(axes.get(x, 1) for x in group) for group in self.target]
    return self.starts(begin), x.reshape(shape)

  def starts(self, begin: int) -> tuple[int, ...]:
    """Where the block that holds the rows from `begin` stands in the leaf."""
    led = self.source[0][0]
    place = lambda group: (
        self.fixed[group] if group in self.fixed
        else int(group) if group.isdecimal()
        else begin // self.step * self._count(group[1:]) if group[0] == led
        else 0)
    return tuple(map(place, self.target))

  def shape(self, rows: int) -> tuple[int, ...]:
    """Of the block that so many rows fill."""
    axes = self._axes(rows)
    return tuple(math.prod(axes.get(x, 1) for x in group)
                 for group in self.target)

  def unblock(self, block: np.ndarray, rows: int) -> np.ndarray:
    """The rows that fill a block."""
    axes = self._axes(rows)
    order = [x for group in self.target for x in group if x in axes]
    x = block.reshape([axes[letter] for letter in order]).transpose(
        [order.index(letter) for letter in axes])
    return x.reshape([rows, *(self._count(g) for g in self.source[1:])])


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A published tensor: its shape and the leaves its rows go to, in order."""
  shape: tuple[int, ...]
  parts: tuple[Part, ...]

  def chunks(self, max_elements: int):
    """(part, begin, rows) of pieces of at most so many elements, if it can."""
    width = math.prod(self.shape[1:])
    for part in self.parts:
      many = max(max_elements // (width * part.step), 1) * part.step
      for begin in range(0, part.rows, many):
        yield part, begin, min(many, part.rows - begin)


def tensors(table: dict[str, str | tuple[str, ...]],
            config: variants.ModelConfig) -> dict[str, Tensor]:
  """Every tensor of a model by its published name, in the table's order."""
  sizes = dict(
      v=config.vocab_size, d=config.model_dim, n=config.num_heads,
      k=config.num_kv_heads, h=config.head_dim, c=2, j=config.head_dim // 2,
      m=config.mlp_dim, x=config.num_experts, f=config.expert_dim,
      s=config.num_shared_experts * config.expert_dim)
  found = {}
  for template, leaves in table.items():
    leaves = (leaves,) if isinstance(leaves, str) else leaves
    if _left_out(leaves[0], config):
      continue
    layers = range(config.num_layers if '{l}' in template else 1)
    experts = range(config.num_experts if '{e}' in template else 1)
    for layer in layers:
      for expert in experts:
        found[template.format(l=layer, e=expert)] = tensor(
            leaves, sizes, dict(l=layer, e=expert))
  return found


def _left_out(leaf: str, config) -> bool:
  return (config.tied_head and leaf.startswith('head/')
          or not config.num_shared_experts and '/shared/' in leaf)


def tensor(leaves, sizes: dict[str, int], fixed: dict[str, int]) -> Tensor:
  """A tensor whose rows go to these leaves, where letters have these sizes."""
  parts, first = [], 0
  for leaf in leaves:
    path, layout = leaf.split(' ')
    source, target = (groups(side) for side in layout.split('->'))
    rows = math.prod(sizes[x] for x in source[0])
    parts.append(Part(tuple(path.split('/')), source, target, fixed, sizes,
                      first, rows))
    first += rows
  trailing = [math.prod(sizes[x] for x in group) for group in source[1:]]
  return Tensor((first, *trailing), tuple(parts))


def groups(side: str) -> tuple[str, ...]:
  """'(nh)d' -> ('nh', 'd')."""
  return tuple(x.strip('()') for x in re.findall(r'\(\w+\)|\w', side))
