"""Low-rank adapters: what is trained beside parameters that stay as they are.

  W' = W + s A B,  s = α / r, or α / √r if rank-stabilised

A is random and B is 0, so that W' is W at the start. A layer adds the product
to its kernel where it uses it, one layer at a time, in float32: the numbers are
those of the merged model, and no second copy of it is made.

`Adapted` takes the place of a parameter tree everywhere. Its base is on the
devices once: never differentiated, given moments, donated or saved. Without the
adapters it is the reference.

Kernels are adapted by their logical names. Gate and up, which are stored as
one, have an adapter each, as in other libraries, and so has every expert.

Reference: LoRA (arXiv 2106.09685) §4.1; α / √r: arXiv 2312.03732.
"""
from __future__ import annotations

import math
from typing import Any

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp

# Of a kernel: the axes summed over (n heads, h channels of one, d model width,
# f feed-forward width), those produced, and those that A and B share: gate or
# up. What stands before (layers, experts) is a batch of kernels.
_AXES = {
    'query': ('d', 'nh', ''),
    'key': ('d', 'nh', ''),
    'value': ('d', 'nh', ''),
    'out': ('nh', 'd', ''),
    'gate_up': ('d', 'f', 'c'),
    'down': ('f', 'd', ''),
}
_KERNEL = {'query': 'dnh', 'key': 'dnh', 'value': 'dnh', 'out': 'nhd',
           'gate_up': 'dcf', 'down': 'fd'}
TARGETS = tuple(_KERNEL)
COLLECTION = 'lora'


@struct.dataclass
class Adapted:
  """A model's parameters in two parts: those that stay, those in training."""
  base: Any
  # Under 'lora', A and B as `a` and `b` at the place of their kernel; beside
  # it, under their own names, parts that are trained in full.
  trained: dict[str, Any]
  scale: float = struct.field(pytree_node=False)  # s


def create(params, key: jax.Array, *, rank: int, alpha: float = 16.0,
           targets=TARGETS, rank_stabilized: bool = False,
           whole=()) -> Adapted:
  """Parameters with adapters that change nothing yet.

  Args:
    params: of a model: arrays, or boxes with their logical axes, as from
      `transformer.abstract_params`; the adapters are made alike.
    key: for A.
    rank: r.
    alpha: α.
    targets: kernels to adapt, out of `TARGETS`.
    rank_stabilized: s is α / √r.
    whole: parts of the tree, by name, that are trained in full: a new head.

  Raises:
    ValueError: no rank, or a target or part that the model does not have.
  """
  if rank < 1 or alpha <= 0:
    raise ValueError(f'Expected rank >= 1 and alpha > 0, got {rank} and '
                     f'{alpha}. Correct config.lora.')
  leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=_is_box)
  names = [tuple(part.key for part in path) for path, _ in leaves]
  there = sorted({name[-1] for name in names if name[-1] in _KERNEL})
  missing = sorted(set(targets) - set(there)) + sorted(
      set(whole) - set(params))
  if missing or not targets:
    raise ValueError(
        f'Expected config.lora.targets out of the kernels of this model, '
        f'{there}, got {sorted(targets)}, of which {missing} are not there. '
        'Name kernels that are.')
  adapters: dict[str, Any] = {}
  for index, (name, (_, leaf)) in enumerate(zip(names, leaves, strict=True)):
    if name[-1] in targets and name[0] not in whole:
      place = adapters
      for part in name[:-1]:
        place = place.setdefault(part, {})
      place[name[-1]] = _pair(name[-1], leaf, rank,
                              jax.random.fold_in(key, index))
  scale = alpha / (math.sqrt(rank) if rank_stabilized else rank)
  base = {name: part for name, part in params.items() if name not in whole}
  return Adapted(base, {COLLECTION: adapters} | {
      name: params[name] for name in whole}, scale)


def split(params) -> tuple[Any, Adapted | None]:
  """(what is trained, the rest); of an ordinary tree, all of it is trained."""
  if not isinstance(params, Adapted):
    return params, None
  return params.trained, params.replace(trained=None)


def joined(trained, rest: Adapted | None):
  """Inverse of `split`."""
  return trained if rest is None else rest.replace(trained=trained)


def variables(params) -> dict[str, Any]:
  """What `model.apply` takes, of either kind of parameters."""
  if not isinstance(params, Adapted):
    return {'params': params}
  base = jax.lax.stop_gradient(params.base)
  return {'params': base | _whole(params), COLLECTION: _scaled(params)}


def merge(params):
  """One tree for samplers and export; an ordinary tree is that already."""
  if not isinstance(params, Adapted):
    return params

  def walk(base, adapters):
    return {name: part if name not in adapters
            else added(name, part, adapters[name]) if name in _KERNEL
            else walk(part, adapters[name]) for name, part in base.items()}

  return walk(params.base, _scaled(params)) | _whole(params)


def without(params):
  """The model before its adapters were trained, of the same structure.

  Nothing of the base is copied, and what was compiled for the policy serves its
  reference. Parts trained in full are as they are: no reference reads them.

  Raises:
    ValueError: an ordinary tree, which remembers nothing.
  """
  if not isinstance(params, Adapted):
    raise ValueError('Expected parameters with adapters, got a tree without. '
                     'Keep a copy of it from before training.')
  zeros = jax.tree.map(jnp.zeros_like, params.trained[COLLECTION])
  return params.replace(trained=jax.tree.map(
      jnp.copy, params.trained | {COLLECTION: zeros}))


def added(name: str, kernel: jax.Array, pair: dict[str, jax.Array]):
  """kernel + A B, in float32, in the kernel's type; s is in B."""
  _, out, shared = _AXES[name]
  a, b = pair['a'], pair['b']
  a_axes = ''.join(x for x in _KERNEL[name] if x not in out) + 'r'
  b_axes = 'r' + shared + out
  change = jnp.einsum(f'...{a_axes},...{b_axes}->...{_KERNEL[name]}',
                      a.astype(jnp.float32), b.astype(jnp.float32))
  return (kernel.astype(jnp.float32) + change).astype(kernel.dtype)


def _scaled(params: Adapted):
  return jax.tree_util.tree_map_with_path(
      lambda path, x: params.scale * x if path[-1].key == 'b' else x,
      params.trained[COLLECTION])


def _whole(params: Adapted) -> dict[str, Any]:
  return {name: part for name, part in params.trained.items()
          if name != COLLECTION}


def _is_box(x) -> bool:
  return isinstance(x, nn.meta.AxisMetadata)


def _pair(name: str, leaf, rank: int, key) -> dict[str, Any]:
  """A and B for a kernel, float32, on its logical axes."""
  value = leaf.value if _is_box(leaf) else leaf
  into, out, shared = _AXES[name]
  kernel = _KERNEL[name]
  batch = value.ndim - len(kernel)
  sizes = dict(zip(kernel, value.shape[batch:], strict=True))
  # As wide as the peers' (kaiming_uniform of √5).
  bound = math.prod(sizes[x] for x in into) ** -0.5
  a_axes = [x for x in kernel if x not in out]
  a_shape = (*value.shape[:batch], *(sizes[x] for x in a_axes), rank)
  b_shape = (*value.shape[:batch], rank, *(sizes[x] for x in shared + out))
  pair = dict(a=jax.random.uniform(key, a_shape, jnp.float32, -bound, bound),
              b=jnp.zeros(b_shape, jnp.float32))
  if not _is_box(leaf):
    return pair
  axes = dict(zip(kernel, leaf.names[batch:], strict=True))
  names = dict(a=(*leaf.names[:batch], *(axes[x] for x in a_axes), None),
               b=(*leaf.names[:batch], None, *(axes[x] for x in shared + out)))
  return {part: leaf.replace(value=x, names=names[part])
          for part, x in pair.items()}
