"""Grouped-query attention over packed rows or over an explicit KV cache.

  y = softmax(q kᵀ / √H + mask) v,  softmax in float32

Rows hold several segments; a token sees the earlier tokens of its own segment
only, and those of one other if it is told to: so two responses share a prompt
that is stored once. With a cache, `position` is also the cache index: a query
at position q sees the indices <= q of its own row, so rows may be at different
positions.

Reference: GQA (arXiv 2305.13245).
"""
from __future__ import annotations

import math

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp

from rljax.models import layers
from rljax.models import variants

CACHE_AXES = ('layers', 'act_batch', 'act_cache', 'act_kv_heads', None)

_MASKED = -1e30  # finite, so that a row without keys stays free of NaN
_BLOCKS, _LEAST_BLOCK = 4, 64  # of queries, in a row that is no longer a chunk


@struct.dataclass
class KVCache:
  """Keys and values of every layer; an argument and a result, never hidden."""
  k_LBSKH: jax.Array
  v_LBSKH: jax.Array


def init_cache(config: variants.ModelConfig, rows: int,
               length: int) -> KVCache:
  """An empty cache for `rows` sequences of at most `length` tokens."""
  shape = (config.num_layers, rows, length, config.num_kv_heads,
           config.head_dim)
  zeros = lambda: jnp.zeros(shape, config.dtype)  # two buffers, for donation
  return KVCache(zeros(), zeros())


class Attention(nn.Module):
  """Projections, their biases and norms, rotary positions, attention."""
  config: variants.ModelConfig

  @nn.compact
  def __call__(self, x_BTD, position_BT, segment_BT, cache: KVCache | None,
               layer: jax.Array, prefix_BT=None):
    config, std = self.config, self.config.init_std
    width, heads = config.model_dim, config.num_heads
    groups, size = config.num_kv_heads, config.head_dim
    wq_DNH = layers.param(self, 'query', (width, heads, size),
                          ('embed', 'heads', 'head_dim'), std)
    wk_DKH = layers.param(self, 'key', (width, groups, size),
                          ('embed', 'kv_heads', 'head_dim'), std)
    wv_DKH = layers.param(self, 'value', (width, groups, size),
                          ('embed', 'kv_heads', 'head_dim'), std)
    wo_NHD = layers.param(self, 'out', (heads, size, width),
                          ('heads', 'head_dim', 'embed'), std)

    q_BTNH = jnp.einsum('btd,dnh->btnh', x_BTD, wq_DNH)
    k_BTKH = jnp.einsum('btd,dkh->btkh', x_BTD, wk_DKH)
    v_BTKH = jnp.einsum('btd,dkh->btkh', x_BTD, wv_DKH)
    if config.qkv_bias:
      q_BTNH = q_BTNH + self._bias('query_bias', 'heads', heads)
      k_BTKH = k_BTKH + self._bias('key_bias', 'kv_heads', groups)
      v_BTKH = v_BTKH + self._bias('value_bias', 'kv_heads', groups)
    q_BTNH = self._normed('query_norm', q_BTNH)
    k_BTKH = self._normed('key_norm', k_BTKH)
    q_BTNH = layers.rotate(q_BTNH, position_BT, config) * size**-0.5
    k_BTKH = layers.rotate(k_BTKH, position_BT, config)
    q_BTNH = nn.with_logical_constraint(
        q_BTNH, ('act_batch', 'act_length', 'act_heads', None))
    k_BTKH, v_BTKH = (
        nn.with_logical_constraint(
            x, ('act_batch', 'act_length', 'act_kv_heads', None))
        for x in (k_BTKH, v_BTKH))

    if cache is None:
      y_BTNH = _self_attention(q_BTNH, k_BTKH, v_BTKH, segment_BT, prefix_BT,
                               config.query_chunk)
    elif prefix_BT is not None:
      raise ValueError('Expected no prefix_BT with a cache, got both. A cache '
                       'holds one sequence to a row: give it the whole.')
    else:
      cache, k_BSKH, v_BSKH = _write(cache, layer, k_BTKH, v_BTKH,
                                     position_BT, segment_BT)
      index_S = jnp.arange(k_BSKH.shape[1])
      mask_BTS = index_S[None, None] <= position_BT[..., None]
      y_BTNH = _attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS)
    return jnp.einsum('btnh,nhd->btd', y_BTNH, wo_NHD), cache

  def _bias(self, name: str, axis: str, heads: int):
    init = nn.with_logical_partitioning(nn.initializers.zeros,
                                        (axis, 'head_dim'))
    config = self.config
    bias_NH = self.param(name, init, (heads, config.head_dim),
                         jnp.dtype(config.param_dtype))
    return bias_NH[None, None].astype(config.dtype)

  def _normed(self, name: str, x_BTNH):
    """Each head by itself, or all heads of a token as one vector."""
    if self.config.qk_norm == 'none':
      return x_BTNH
    norm = layers.RMSNorm(self.config, name=name)
    if self.config.qk_norm == 'head':
      return norm(x_BTNH)
    return norm(x_BTNH.reshape(*x_BTNH.shape[:2], -1)).reshape(x_BTNH.shape)


def _write(cache, layer, k_BTKH, v_BTKH, position_BT, segment_BT):
  """Stores new keys and values; padding is sent out of bounds and dropped."""
  length = cache.k_LBSKH.shape[2]
  index_BT = jnp.where(segment_BT > 0, position_BT, length)
  at_BT2 = jnp.stack([jnp.full_like(index_BT, layer), index_BT], axis=-1)

  def put(store_LBSKH, new_BTKH):
    # `.at[layer, row, index]` would not say that rows go to rows, and each
    # device would be sent what the others write to theirs.
    store_LBSKH = jax.lax.scatter(
        store_LBSKH, at_BT2, new_BTKH, jax.lax.ScatterDimensionNumbers(
            update_window_dims=(2, 3), inserted_window_dims=(0, 2),
            scatter_dims_to_operand_dims=(0, 2), operand_batching_dims=(1,),
            scatter_indices_batching_dims=(0,)),
        mode=jax.lax.GatherScatterMode.FILL_OR_DROP)
    # Else XLA may split the cache further in a loop, and gather it behind that.
    return nn.with_logical_constraint(store_LBSKH, CACHE_AXES)

  cache = KVCache(put(cache.k_LBSKH, k_BTKH), put(cache.v_LBSKH, v_BTKH))
  return cache, cache.k_LBSKH[layer], cache.v_LBSKH[layer]


def _self_attention(q_BTNH, k_BTKH, v_BTKH, segment_BT, prefix_BT,
                    chunk: int):
  """Causal attention inside segments, of rows that may be split over devices.

  A device has the queries of its part of each row and gets the keys and values
  of the whole row, which are few: heads share them.

  Raises:
    ValueError: the mesh does not divide the rows' length.
  """
  rows, length, *head = q_BTNH.shape
  axes, parts = _length_axes()
  if length % parts:
    raise ValueError(
        f'Expected rows that the {parts} devices of the mesh axes {axes} '
        f'divide, got {length} tokens. Change config.packing.row_length or '
        'config.mesh.context.')
  if parts == 1:
    return _causal_attention(q_BTNH, k_BTKH, v_BTKH, segment_BT, segment_BT,
                             prefix_BT, chunk, 0)
  k_BSKH, v_BSKH = (
      nn.with_logical_constraint(x, ('act_batch', None, 'act_kv_heads', None))
      for x in (k_BTKH, v_BTKH))
  segment_BS = segment_BT
  # An axis of parts, one on each device: what follows is within a part.
  shape = rows, parts, length // parts
  q = nn.with_logical_constraint(
      q_BTNH.reshape(*shape, *head),
      ('act_batch', 'act_length', None, 'act_heads', None))

  def attend(q_BTNH, segment_BT, prefix_BT, first):
    return _causal_attention(q_BTNH, k_BSKH, v_BSKH, segment_BT,
                             segment_BS, prefix_BT, chunk, first)

  prefix = None if prefix_BT is None else prefix_BT.reshape(shape)
  y = jax.vmap(attend, in_axes=(1, 1, 1, 0), out_axes=1)(
      q, segment_BT.reshape(shape), prefix, jnp.arange(parts) * shape[-1])
  return nn.with_logical_constraint(
      y.reshape(q_BTNH.shape), ('act_batch', 'act_length', 'act_heads', None))


def _length_axes():
  """The mesh axes in use that split rows, and into how many parts."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or not nn.get_logical_axis_rules():
    return (), 1
  (axes,) = nn.logical_to_mesh_axes(('act_length',))
  axes = (axes,) if isinstance(axes, str) else tuple(axes or ())
  return axes, math.prod(mesh.shape[axis] for axis in axes)


def _causal_attention(q_BTNH, k_BSKH, v_BSKH, segment_BT, segment_BS,
                      prefix_BT, chunk: int, first):
  """Queries from position `first` on; long rows go chunk by chunk.

  A chunk's scores are recomputed in the backward pass, so memory grows with
  T · chunk and not with T². Rows within one chunk go in a few blocks, each with
  the keys up to its own end: what is masked for all of it is not computed.
  """
  length = q_BTNH.shape[1]
  index_S = jnp.arange(k_BSKH.shape[1])

  def part(q_BCNH, segment_BC, prefix_BC, start, seen=None):
    rows_C = first + start + jnp.arange(q_BCNH.shape[1])
    seen_BCS = segment_BC[..., None] == segment_BS[:, None, :seen]
    if prefix_BC is not None:
      seen_BCS |= (prefix_BC[..., None] == segment_BS[:, None, :seen]) & (
          prefix_BC > 0)[..., None]
    causal_CS = index_S[None, :seen] <= rows_C[:, None]
    return _attend(q_BCNH, k_BSKH[:, :seen], v_BSKH[:, :seen],
                   seen_BCS & causal_CS[None])

  if chunk == 0 or length <= chunk:
    size = length // _BLOCKS
    if not isinstance(first, int) or length % _BLOCKS or size < _LEAST_BLOCK:
      return part(q_BTNH, segment_BT, prefix_BT, 0)
    block = lambda end: jax.tree.map(
        lambda x: x[:, end - size:end], (q_BTNH, segment_BT, prefix_BT))
    return jnp.concatenate([
        part(*block(end), end - size, end)
        for end in range(size, length + 1, size)], axis=1)
  if length % chunk:
    raise ValueError(
        f'Rows, or parts of rows, of {length} tokens are not a multiple of '
        f'query_chunk={chunk}. Choose a row length that is, or set '
        'query_chunk=0.')
  starts = jnp.arange(0, length, chunk)
  take = lambda start: jax.tree.map(
      lambda x: jax.lax.dynamic_slice_in_dim(x, start, chunk, 1),
      (q_BTNH, segment_BT, prefix_BT))
  y = jax.lax.map(jax.checkpoint(lambda s: part(*take(s), s)), starts)
  return jnp.moveaxis(y, 0, 1).reshape(q_BTNH.shape)


def _attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS):
  """Softmax attention; queries of a group share one key/value head."""
  rows, length, heads, size = q_BTNH.shape
  groups = k_BSKH.shape[2]
  q = q_BTNH.reshape(rows, length, groups, heads // groups, size)
  scores = jnp.einsum('btkgh,bskh->bkgts', q, k_BSKH,
                      preferred_element_type=jnp.float32)
  scores = jnp.where(mask_BTS[:, None, None], scores, _MASKED)
  most = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
  e = jnp.exp(scores - most)
  # Divided by the sum afterwards, where there is less to divide.
  y = jnp.einsum('bkgts,bskh->bkgth', e.astype(v_BSKH.dtype), v_BSKH,
                 preferred_element_type=jnp.float32)
  y = (y / jnp.sum(e, axis=-1)[..., None]).astype(v_BSKH.dtype)
  return jnp.moveaxis(y, 3, 1).reshape(q_BTNH.shape)
