"""What a compiled program costs on each device: memory, collectives, products.

Nothing is run. Loops are counted with the number of times they go round, where
XLA knows it; a loop that it does not know counts once.
"""
from __future__ import annotations

import collections
import math
import re
from typing import Any

import jax

KINDS = ('all-gather', 'all-reduce', 'all-to-all', 'collective-permute',
         'reduce-scatter', 'ragged-all-to-all')

_BYTES = {'pred': 1, 's4': 1, 'u4': 1, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2,
          'bf16': 2, 'f16': 2, 's32': 4, 'u32': 4, 'f32': 4, 's64': 8, 'u64': 8,
          'f64': 8, 'c64': 8, 'c128': 16}
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) .*\{$')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([\w\-]+)\(')
_CALLED = re.compile(
    r'(?:body|condition|calls|to_apply|true_computation|false_computation)='
    r'%?([\w.\-]+)')
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_ARRAY = re.compile(r'(\w+)\[([\d,]*)\]')


def memory(compiled) -> dict[str, int]:
  """Bytes on each device.

  Args:
    compiled: from `jax.jit(f).lower(...).compile()`.

  Returns:
    arguments; temporary, the most alive at a time between the operations; and
    output, less what takes the place of a donated argument.
  """
  found = compiled.memory_analysis()
  return dict(arguments=found.argument_size_in_bytes,
              temporary=found.temp_size_in_bytes,
              output=found.output_size_in_bytes - found.alias_size_in_bytes)


def collectives(text: str) -> dict[str, dict[str, float]]:
  """The exchanges between devices, by kind.

  Args:
    text: of the optimised program, `compiled.as_text()`.

  Returns:
    kind -> {count, bytes, largest}: bytes that one device gets as results, in
    all and of the largest one; an empty dict where nothing is exchanged.
  """
  bodies, entry = _computations(text)
  found = collections.defaultdict(
      lambda: dict(count=0.0, bytes=0.0, largest=0.0))

  def visit(name, times):
    for shape, kind, line in bodies.get(name, ()):
      plain = kind.removesuffix('-start')
      if plain in KINDS:
        size = _num_bytes(shape, is_start=kind != plain)
        row = found[plain]
        row['count'] += times
        row['bytes'] += times * size
        row['largest'] = max(row['largest'], size)
      trips = _TRIPS.search(line)
      branches = _BRANCHES.search(line)
      called = _CALLED.findall(line) + ([
          name.strip().lstrip('%') for name in branches.group(1).split(',')
      ] if branches else [])
      for other in called:
        visit(other, times * (int(trips.group(1)) if trips else 1))

  visit(entry, 1)
  return {kind: dict(row) for kind, row in sorted(found.items())}


def product_flops(function, *arguments) -> float:
  """Floating-point operations of the matrix products, over all devices.

  Two for each multiply-add. Of the branches of a condition the dearest counts,
  so this is the cost of a step none of whose rows are empty. Grouped products
  (`ragged_dot`) count each row once, whatever the backend makes of them.
  """
  return _flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def _computations(text: str):
  bodies: dict[str, list] = {}
  entry = current = None
  for line in text.splitlines():
    if header := _COMPUTATION.match(line):
      current = bodies.setdefault(header.group(2), [])
      entry = header.group(2) if header.group(1) else entry
    elif current is not None and (found := _INSTRUCTION.match(line)):
      current.append((found.group(1), found.group(2), line))
  if entry is None:
    raise ValueError('Expected the text of an optimised program, got one '
                     'without an ENTRY. Pass compiled.as_text().')
  return bodies, entry


def _num_bytes(shape: str, is_start: bool) -> int:
  sizes = [_BYTES[kind] * math.prod(map(int, filter(None, dims.split(','))))
           for kind, dims in _ARRAY.findall(shape) if kind in _BYTES]
  # An asynchronous start holds its operands and then its results.
  return sum(sizes[len(sizes) // 2:] if is_start else sizes)


def _flops(jaxpr) -> float:
  total = 0.0
  for equation in jaxpr.eqns:
    name = equation.primitive.name
    if name == 'dot_general':
      total += _dot_flops(equation)
    elif name in ('ragged_dot', 'ragged_dot_general'):
      lhs = equation.invars[0].aval.shape
      total += 2.0 * math.prod(lhs) * equation.invars[1].aval.shape[-1]
    inner = [_flops(part) for part in _inner(equation.params)]
    if name == 'cond':
      total += max(inner)
    elif name == 'scan':
      total += equation.params['length'] * sum(inner)
    elif name == 'shard_map':
      total += equation.params['mesh'].size * sum(inner)
    else:
      total += sum(inner)
  return total


def _inner(params: dict[str, Any]):
  """Programs within an equation's parameters."""
  for value in params.values():
    for part in value if isinstance(value, (tuple, list)) else (value,):
      part = getattr(part, 'jaxpr', part)  # a closed one
      if hasattr(part, 'eqns'):
        yield part


def _dot_flops(equation) -> float:
  (contracted, _), _ = equation.params['dimension_numbers']
  lhs = equation.invars[0].aval.shape
  depth = math.prod(lhs[axis] for axis in contracted)
  return 2.0 * math.prod(equation.outvars[0].aval.shape) * depth
