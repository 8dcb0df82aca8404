"""Sums over a vocabulary, block by block and shard by shard; see `logprobs`.

Tokens are [B, T] outside, where they may be split over devices, and a flat M
inside, a chunk of those asked for at a time.
"""
from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from rljax.ops import sampling

# Lower than any logit, yet finite: differences to it are never NaN.
_LOWEST = -1e30


@struct.dataclass
class Projection:
  """Hidden states and the weight that makes logits of them."""
  hidden_BTD: jax.Array  # in the dtype of the matrix product
  kernel_DV: jax.Array | None = None  # None: hidden_BTD are logits

  @property
  def vocab_size(self) -> int:
    source = self.hidden_BTD if self.kernel_DV is None else self.kernel_DV
    return source.shape[-1]

  @property
  def logits_BTV(self) -> jax.Array:
    """All of them, float32: for decoding, where a row has one position."""
    logits_BTV = self.hidden_BTD if self.kernel_DV is None else jnp.einsum(
        'btd,dv->btv', self.hidden_BTD,
        self.kernel_DV.astype(self.hidden_BTD.dtype),
        preferred_element_type=jnp.float32)
    return nn.with_logical_constraint(
        logits_BTV, ('act_batch', 'act_length', 'act_vocab'))


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is fixed when the program is traced."""
  block: tuple[int, int]  # tokens and ids of which logits exist at a time
  truncated: bool  # whether the support has to be looked for
  mesh: Any = None  # None: one device, and no axes
  batch_axes: tuple[str, ...] = ()
  length_axes: tuple[str, ...] = ()
  vocab_axes: tuple[str, ...] = ()
  embed_axes: tuple[str, ...] = ()

  @property
  def token_spec(self) -> PartitionSpec:
    return PartitionSpec(self.batch_axes or None, self.length_axes or None)

  @property
  def kernel_spec(self) -> PartitionSpec:
    return PartitionSpec(self.embed_axes or None, self.vocab_axes or None)

  def hidden_spec(self, kernel_DV) -> PartitionSpec:
    is_logits = kernel_DV is None
    return PartitionSpec(*self.token_spec,
                         self.vocab_axes or None if is_logits else None)


def make_plan(policy: Projection, block: tuple[int, int],
              truncated: bool) -> Plan:
  """Reads the mesh and the logical axis rules in use.

  Raises:
    ValueError: the mesh does not divide the vocabulary.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1 or not nn.get_logical_axis_rules():
    return Plan(block, truncated)
  batch, length, vocab, embed = (
      _axes(nn.logical_to_mesh_axes((name,))[0])
      for name in ('act_batch', 'act_length', 'vocab', 'embed'))
  ways = math.prod(mesh.shape[axis] for axis in vocab)
  if policy.vocab_size % ways:
    raise ValueError(
        f'Expected a vocabulary that the {ways} devices of the mesh axes '
        f'{vocab} divide, got {policy.vocab_size} tokens. Change config.mesh, '
        'or the row of vocab in config.sharding.')
  rows, positions = policy.hidden_BTD.shape[:2]
  return Plan(block, truncated, mesh, _dividing(mesh, batch, rows),
              _dividing(mesh, length, positions), vocab, embed)


def _dividing(mesh, axes, size: int) -> tuple[str, ...]:
  """Those of the axes over which so many can be split; others repeat them."""
  found, ways = [], 1
  for axis in axes:
    if size % (ways * mesh.shape[axis]) == 0:
      found.append(axis)
      ways *= mesh.shape[axis]
  return tuple(found)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sums(plan: Plan, policy: Projection, reference: Projection | None,
         target_BT: jax.Array, asked_BT: jax.Array,
         params: sampling.SamplingParams) -> dict:
  """By name: logp, entropy, and kl and ref_kl with a reference; each [B, T].

  All are 0 where `asked_BT` is False. Gradients reach the policy alone.
  """
  return _forward(plan, policy, reference, target_BT, asked_BT, params)[0]


def _forward(plan, policy, reference, target_BT, asked_BT, params):
  tokens = dict(target=target_BT, asked=asked_BT)
  found = _on_mesh(plan, _forward_local, policy, reference, tokens, params)
  results = {name: found[name] for name in ('logp', 'entropy', 'kl', 'ref_kl')
             if name in found}
  return results, (policy, reference, tokens, params, found)


def _backward(plan, residuals, given):
  policy, reference, tokens, params, found = residuals
  grads = _on_mesh(plan, _backward_local, policy, reference,
                   tokens | dict(found=found, given=given), params,
                   returns_projection=True)
  return grads, None, None, None, None


sums.defvjp(_forward, _backward)


def _forward_local(plan, policy, reference, tokens, params):
  """Results and what the gradient needs, of the tokens of one device."""
  policy, reference = _gathered(plan, policy), _gathered(plan, reference)

  def chunk(_, tokens):
    block = functools.partial(_block, plan, params)
    cut = _support(plan, policy.kernel_DV, tokens['policy'], params)

    def step(i, state):
      id_V, z_MV = block(policy.kernel_DV, tokens['policy'], i)
      is_target_MV = id_V[None] == tokens['target'][:, None]
      state = dict(state, policy=_moved(state['policy'], jnp.max(z_MV, -1)))
      down_MV = z_MV - state['policy']['most'][:, None]
      e_MV = jnp.exp(down_MV)
      more = dict(total=jnp.sum(e_MV, -1), first=_dot(e_MV, down_MV))
      if cut is not None:
        kept_MV = is_target_MV | sampling.inside(z_MV, id_V, cut)
        more['kept'] = jnp.sum(jnp.where(kept_MV, e_MV, 0.0), -1)
      if reference is not None:
        _, ref_MV = block(reference.kernel_DV, tokens['reference'], i)
        more['cross'] = _dot(e_MV, z_MV - ref_MV)
        moved = _moved(state['reference'], jnp.max(ref_MV, -1))
        e_ref_MV = jnp.exp(ref_MV - moved['most'][:, None])
        state['reference'] = _plus(moved, total=jnp.sum(e_ref_MV, -1),
                                   cross=_dot(e_ref_MV, ref_MV - z_MV))
      chosen_M = jnp.sum(jnp.where(is_target_MV, z_MV, 0.0), -1)
      return dict(state, policy=_plus(state['policy'], **more),
                  chosen=state['chosen'] + chosen_M)

    zero_M = jnp.zeros(tokens['target'].shape, jnp.float32)
    start = lambda *names: dict.fromkeys(names, zero_M) | {
        'most': zero_M + _LOWEST}
    names = ['kept'] * (cut is not None) + ['cross'] * (reference is not None)
    state = dict(chosen=zero_M, policy=start('total', 'first', *names))
    if reference is not None:
      state['reference'] = start('total', 'cross')
    count = _count(policy.vocab_size, plan.block[1])
    return None, _results(plan, jax.lax.fori_loop(0, count, step, state), cut)

  return _by_chunks(plan, chunk, None, _tokens(policy, reference, tokens))[1]


def _results(plan, state, cut):
  """From the sums of one shard to results and residuals."""
  if plan.vocab_axes:
    for name in {'policy', 'reference'} & state.keys():
      most_M = jax.lax.pmax(state[name]['most'], plan.vocab_axes)
      moved = jax.lax.psum(_moved(state[name], most_M), plan.vocab_axes)
      state = dict(state) | {name: dict(moved, most=most_M)}
    state['chosen'] = jax.lax.psum(state['chosen'], plan.vocab_axes)
  own = state['policy']
  log_total_M = jnp.log(own['total'])
  found = dict(log_z=own['most'] + log_total_M,
               entropy=log_total_M - own['first'] / own['total'])
  found['logp'] = state['chosen'] - found['log_z']
  if cut is not None:
    log_kept_M = own['most'] + jnp.log(own['kept'])
    found |= dict(log_kept=log_kept_M, logp=state['chosen'] - log_kept_M,
                  cut=cut)
  if 'reference' in state:
    other = state['reference']
    ref_log_z_M = other['most'] + jnp.log(other['total'])
    between_M = ref_log_z_M - found['log_z']
    found |= dict(ref_log_z=ref_log_z_M,
                  kl=own['cross'] / own['total'] + between_M,
                  ref_kl=other['cross'] / other['total'] - between_M)
  return found


def _backward_local(plan, policy, reference, tokens, params):
  """Gradients on one device, summed over those that share a part."""
  whole, reference = _gathered(plan, policy), _gathered(plan, reference)
  kernel_DV, dtype = whole.kernel_DV, policy.hidden_BTD.dtype

  def chunk(grad_DV, tokens):
    hidden_MD = tokens['policy']

    def step(i, grads):
      grad_MD, grad_DV = grads
      id_V, z_MV = _block(plan, params, kernel_DV, hidden_MD, i)
      ref_MV = None if reference is None else _block(
          plan, params, reference.kernel_DV, tokens['reference'], i)[1]
      dz_MV = sampling.scale(
          _grad_of_logits(id_V, z_MV, ref_MV, tokens), params.temperature)
      first, width = _start(plan, whole.vocab_size, i)
      if kernel_DV is None:
        return _add(grad_MD, dz_MV, first), None
      dz_MV = dz_MV.astype(dtype)
      part_DV = jax.lax.dynamic_slice_in_dim(kernel_DV, first, width, axis=1)
      grad_MD += jnp.einsum('mv,dv->md', dz_MV, part_DV.astype(dtype),
                            preferred_element_type=jnp.float32)
      return grad_MD, _add(grad_DV, jnp.einsum(
          'md,mv->dv', hidden_MD, dz_MV,
          preferred_element_type=jnp.float32), first)

    grad_MD, grad_DV = jax.lax.fori_loop(
        0, _count(whole.vocab_size, plan.block[1]), step,
        (jnp.zeros(hidden_MD.shape, jnp.float32), grad_DV))
    return grad_DV, grad_MD

  grad_DV = None if kernel_DV is None else jnp.zeros(
      kernel_DV.shape, jnp.float32)
  grad_DV, grad_BTD = _by_chunks(plan, chunk, grad_DV,
                                 _tokens(policy, reference, tokens))
  if kernel_DV is None:
    return Projection(grad_BTD.astype(dtype))
  if plan.vocab_axes:
    grad_BTD = jax.lax.psum(grad_BTD, plan.vocab_axes)
  return Projection(grad_BTD.astype(dtype),
                    _scattered(plan, grad_DV).astype(kernel_DV.dtype))


def _grad_of_logits(id_V, z_MV, ref_MV, tokens):
  """The module docstring's dz, for one block."""
  found = {name: x_M[:, None] for name, x_M in tokens['found'].items()
           if name != 'cut'}
  given = {name: x_M[:, None] for name, x_M in tokens['given'].items()}
  is_target_MV = id_V[None] == tokens['target'][:, None]
  logp_MV = z_MV - found['log_z']
  p_MV = jnp.exp(logp_MV)
  kept_p_MV = p_MV
  if 'cut' in tokens['found']:
    kept_MV = is_target_MV | sampling.inside(
        z_MV, id_V, tokens['found']['cut'])
    kept_p_MV = jnp.where(kept_MV, jnp.exp(z_MV - found['log_kept']), 0.0)
  slope_MV = -given['entropy'] * (logp_MV + found['entropy'])
  if ref_MV is not None:
    slope_MV += given['kl'] * (
        logp_MV - (ref_MV - found['ref_log_z']) - found['kl'])
  grad_MV = given['logp'] * (is_target_MV.astype(jnp.float32) - kept_p_MV)
  if ref_MV is not None:
    grad_MV += given['ref_kl'] * (p_MV - jnp.exp(ref_MV - found['ref_log_z']))
  # 0 · log 0 counts as 0.
  return grad_MV + jnp.where(p_MV > 0, p_MV * slope_MV, 0.0)


def _support(plan, kernel_DV, hidden_MD, params):
  """Where sampling cut the vocabulary, a few whole rows at a time."""
  if not plan.truncated:
    return None
  size, count = hidden_MD.shape[0], math.prod(plan.block)
  width = (hidden_MD if kernel_DV is None else kernel_DV).shape[-1]
  ways = jax.lax.axis_size(plan.vocab_axes) if plan.vocab_axes else 1
  whole = dataclasses.replace(plan, block=(size, width))

  def rows(hidden_D):
    id_V, z_MV = _block(whole, params, kernel_DV, hidden_D[None], 0)
    return jax.tree.map(lambda x_M: x_M[0], sampling.boundary(
        z_MV, params, id_V[0], plan.vocab_axes))

  return jax.lax.cond(
      sampling.is_truncated(params, width * ways),
      lambda: jax.lax.map(rows, hidden_MD, batch_size=max(1, count // width)),
      lambda: sampling.Boundary(jnp.full(size, -jnp.inf),
                                jnp.full(size, -jnp.inf),
                                jnp.full(size, width * ways)))


def _block(plan, params, kernel_DV, hidden_MD, i):
  """Ids and float32 logits of a block: -1 and -inf in columns seen before."""
  source = hidden_MD if kernel_DV is None else kernel_DV
  first, width = _start(plan, source.shape[-1], i)
  part = jax.lax.dynamic_slice_in_dim(source, first, width, axis=1)
  z_MV = part.astype(jnp.float32) if kernel_DV is None else jnp.einsum(
      'md,dv->mv', hidden_MD, part.astype(hidden_MD.dtype),
      preferred_element_type=jnp.float32)
  z_MV = sampling.scale(z_MV, params.temperature)
  column_V = first + jnp.arange(width, dtype=jnp.int32)
  id_V = column_V + (jax.lax.axis_index(plan.vocab_axes) * source.shape[-1]
                     if plan.vocab_axes else 0)
  if source.shape[-1] % width == 0:
    return id_V, z_MV
  is_new_V = column_V >= i * width
  return (jnp.where(is_new_V, id_V, -1),
          jnp.where(is_new_V[None], z_MV, -jnp.inf))


def _start(plan, size, i):
  """First column and width of block i; the last ends with the vocabulary."""
  width = min(plan.block[1], size)
  return jnp.minimum(i * width, size - width), width


def _count(size: int, most: int) -> int:
  return -(-size // most)


def _moved(sums, most_M):
  """Sums relative to a maximum, made relative to a larger one."""
  most_M = jnp.maximum(sums['most'], most_M)
  down_M = sums['most'] - most_M
  moved = {name: x_M * jnp.exp(down_M) for name, x_M in sums.items()}
  if 'first' in sums:
    moved['first'] += moved['total'] * down_M
  return moved | dict(most=most_M)


def _dot(weight_MV, x_MV):
  """Σ_v w_v x_v, where 0 · log 0 counts as 0."""
  return jnp.sum(jnp.where(weight_MV > 0, weight_MV * x_MV, 0.0), -1)


def _plus(sums, **more):
  return sums | {name: sums[name] + x_M for name, x_M in more.items()}


def _add(whole, part, first):
  """Adds to columns from `first` on, in place."""
  old = jax.lax.dynamic_slice_in_dim(whole, first, part.shape[1], axis=1)
  return jax.lax.dynamic_update_slice_in_dim(whole, old + part, first, axis=1)


def _tokens(policy, reference, tokens):
  """Everything of which each token has its own."""
  tokens = dict(tokens, policy=policy.hidden_BTD)
  return tokens if reference is None else dict(
      tokens, reference=reference.hidden_BTD)


def _by_chunks(plan, chunk, carry, tokens_BT):
  """Scans the tokens asked for, in chunks of one size; 0 for all others.

  Tokens and results are [B, T]. As the number of chunks is fixed, the last ones
  may be left without a token: they cost nothing.
  """
  asked_BT = tokens_BT['asked']
  count = _count(asked_BT.size, plan.block[0])
  size = _count(asked_BT.size, count)
  asked_M = asked_BT.ravel()
  tokens = jax.tree.map(
      lambda x: x.reshape(asked_BT.size, *x.shape[2:]), tokens_BT)
  # Nothing at all stands behind the last token.
  index_M = jnp.nonzero(asked_M, size=count * size,
                        fill_value=asked_BT.size)[0]

  def run(carry, index_M):
    return chunk(carry, jax.tree.map(
        lambda x: jnp.take(x, index_M, axis=0, mode='fill', fill_value=0),
        tokens))

  def skip(carry, index_M):
    shapes = jax.eval_shape(run, carry, index_M)[1]
    return carry, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

  def step(carry, part):
    index_M, is_live = part
    return jax.lax.cond(is_live, run, skip, carry, index_M)

  # Of a token among those asked for; others find nothing.
  place_M = jnp.where(asked_M, jnp.cumsum(asked_M) - 1, count * size)

  def join(x):
    x = jnp.take(x.reshape(count * size, *x.shape[2:]), place_M, axis=0,
                 mode='fill', fill_value=0)
    return x.reshape(*asked_BT.shape, *x.shape[1:])

  carry, found = jax.lax.scan(
      step, carry, (index_M.reshape(count, size),
                    jnp.arange(count) * size < jnp.sum(asked_M)))
  return carry, jax.tree.map(join, found)


def _on_mesh(plan, local, policy, reference, tokens, params,
             returns_projection=False):
  """Runs `local` on each device's tokens and ids; one device is the world."""
  run = functools.partial(local, plan)
  if plan.mesh is None:
    return run(policy, reference, tokens, params)
  specs = lambda head: head and Projection(
      plan.hidden_spec(head.kernel_DV),
      None if head.kernel_DV is None else plan.kernel_spec)
  return jax.shard_map(
      run, mesh=plan.mesh,
      in_specs=(specs(policy), specs(reference), plan.token_spec,
                PartitionSpec()),
      out_specs=specs(policy) if returns_projection else plan.token_spec,
      check_vma=False)(policy, reference, tokens, params)


def _gathered(plan, head):
  """With whole columns of the kernel: those of this device's ids."""
  if head is None or head.kernel_DV is None or not plan.embed_axes:
    return head
  return head.replace(kernel_DV=jax.lax.all_gather(
      head.kernel_DV, plan.embed_axes, axis=0, tiled=True))


def _scattered(plan, grad_DV):
  """Summed over all tokens; each device gets the rows that it holds."""
  split = plan.batch_axes + plan.length_axes
  if plan.embed_axes:
    alike = math.prod(plan.mesh.shape[axis] for axis in plan.embed_axes
                      if axis not in split)  # each has summed all tokens
    grad_DV = jax.lax.psum_scatter(
        grad_DV, plan.embed_axes, scatter_dimension=0, tiled=True) / alike
  others = tuple(axis for axis in split if axis not in plan.embed_axes)
  return jax.lax.psum(grad_DV, others) if others else grad_DV


def _axes(entry) -> tuple[str, ...]:
  return (entry,) if isinstance(entry, str) else tuple(entry or ())
