"""Products of sorted rows with the matrix of their group.

  out_a = x_a W_e   for the counts_e rows of group e, groups in order

The rows behind the last group give zeros and reach no gradient, whatever they
hold. Three kernels compute the same; which is fast depends on the platform:

  block     loops over blocks of rows of one group: CPU. The number of blocks
            is that of the rows in use, not of the rows there are.
  ragged    `jax.lax.ragged_dot`: GPU. On a CPU it costs as if every group saw
            every row.
  megablox  the Pallas kernel of that name: TPU; interpreted elsewhere.

Reference: MegaBlocks (arXiv 2211.15841) §4.
"""
from __future__ import annotations

import chex
import jax
from jax.experimental.pallas.ops.tpu import megablox
import jax.numpy as jnp


def default_kernel() -> str:
  """The fastest kernel of the default platform."""
  return dict(cpu='block', tpu='megablox').get(jax.default_backend(), 'ragged')


def grouped_matmul(
    x_AD: jax.Array, w_EDF: jax.Array, counts_E: jax.Array,
    kernel: str | None = None,
) -> jax.Array:
  """out_AF, differentiable by rows and matrices.

  Args:
    x_AD: rows, those of group 0 first.
    w_EDF: one matrix per group.
    counts_E: int32 rows of each group; their sum may be less than the rows.
    kernel: None takes the fastest of the platform.
  """
  chex.assert_rank([x_AD, w_EDF, counts_E], [2, 3, 1])
  chex.assert_equal_shape_prefix([w_EDF, counts_E], 1)
  known = dict(block=_block, ragged=_ragged, megablox=_megablox)
  kernel = kernel or default_kernel()
  if kernel not in known:
    raise ValueError(f'Expected a kernel of {sorted(known)}, got {kernel!r}. '
                     'Choose one of them, or None.')
  if kernel == 'block':  # reads and writes the rows of groups only
    return _block(x_AD, w_EDF, counts_E)
  # The others may leave rows behind the last group unwritten, in the product
  # and in the gradient of x: the first mask cleans the latter, the second the
  # former.
  inside_A1 = (jnp.arange(x_AD.shape[0]) < jnp.sum(counts_E))[:, None]
  out_AF = known[kernel](jnp.where(inside_A1, x_AD, 0), w_EDF, counts_E)
  return jnp.where(inside_A1, out_AF, 0)


def _ragged(x_AD, w_EDF, counts_E):
  return jax.lax.ragged_dot(x_AD, w_EDF, counts_E)


def _megablox(x_AD, w_EDF, counts_E):
  rows, width = x_AD.shape
  tile = 512 if rows >= 512 else 128
  padded_AD = jnp.pad(x_AD, ((0, -rows % tile), (0, 0)))
  tiling = (tile, min(width, 1024), min(w_EDF.shape[-1], 1024))
  interpret = jax.default_backend() != 'tpu'
  out_AF = megablox.gmm(padded_AD, w_EDF, counts_E, x_AD.dtype, tiling, None,
                        None, False, interpret)
  return out_AF[:rows]


@jax.custom_vjp
def _block(x_AD, w_EDF, counts_E):
  return _block_product(x_AD, w_EDF, counts_E)


def _block_forward(x_AD, w_EDF, counts_E):
  return _block_product(x_AD, w_EDF, counts_E), (x_AD, w_EDF, counts_E)


def _block_backward(saved, g_AF):
  x_AD, w_EDF, counts_E = saved
  return (_block_product(g_AF, w_EDF.swapaxes(1, 2), counts_E),
          _block_outer(x_AD, g_AF, counts_E, w_EDF.dtype), None)


_block.defvjp(_block_forward, _block_backward)


def _block_size(rows: int, num_groups: int) -> int:
  """A power of two of at most a quarter of the mean group, in 16..256."""
  quarter = max(rows // (4 * num_groups), 16)
  return min(1 << (quarter.bit_length() - 1), 256, rows)


def _for_blocks(counts_E, e, rows: int, size: int, body, initial):
  """Runs `body(at, inside_A1, carry)` over the blocks of rows of group e.

  `at` is the first row of the block; `inside_A1` marks its rows that belong to
  the group and to no earlier block.
  """
  end = jnp.sum(jnp.where(jnp.arange(counts_E.size) <= e, counts_E, 0))
  start = end - counts_E[e]

  def block(i, carry):
    begin = start + i * size
    at = jnp.minimum(begin, rows - size)  # the last block of all moves back
    row_A = at + jnp.arange(size)
    inside_A = (row_A >= begin) & (row_A < end)
    return body(at, inside_A[:, None], carry)

  return jax.lax.fori_loop(0, -(-counts_E[e] // size), block, initial)


def _block_product(x_AD, w_EDF, counts_E):
  (rows, width), (num_groups, _, wide) = x_AD.shape, w_EDF.shape
  size = _block_size(rows, num_groups)

  def group(e, out_AF):
    w_DF = jax.lax.dynamic_index_in_dim(w_EDF, e, keepdims=False)

    def block(at, inside_A1, out_AF):
      block_AD = jax.lax.dynamic_slice(x_AD, (at, 0), (size, width))
      others_AF = jax.lax.dynamic_slice(out_AF, (at, 0), (size, wide))
      return jax.lax.dynamic_update_slice(
          out_AF, jnp.where(inside_A1, block_AD @ w_DF, others_AF), (at, 0))

    return _for_blocks(counts_E, e, rows, size, block, out_AF)

  return jax.lax.fori_loop(0, num_groups, group,
                           jnp.zeros((rows, wide), x_AD.dtype))


def _block_outer(x_AD, g_AF, counts_E, dtype):
  """Σ over the rows of each group of xᵀ g, summed in float32."""
  (rows, width), wide, num_groups = x_AD.shape, g_AF.shape[1], counts_E.size
  size = _block_size(rows, num_groups)

  def group(e, out_EDF):
    def block(at, inside_A1, sum_DF):
      block_AD = jax.lax.dynamic_slice(x_AD, (at, 0), (size, width))
      block_AF = jax.lax.dynamic_slice(g_AF, (at, 0), (size, wide))
      return sum_DF + jnp.einsum(
          'ad,af->df', jnp.where(inside_A1, block_AD, 0),
          jnp.where(inside_A1, block_AF, 0),
          preferred_element_type=jnp.float32)

    sum_DF = _for_blocks(counts_E, e, rows, size, block,
                         jnp.zeros((width, wide), jnp.float32))
    return jax.lax.dynamic_update_index_in_dim(
        out_EDF, sum_DF.astype(dtype), e, 0)

  return jax.lax.fori_loop(0, num_groups, group,
                           jnp.zeros((num_groups, width, wide), dtype))


@jax.custom_vjp
def permute(x_AD, order_A, place_A):
  """x[order], where `place_A` is the inverse of the permutation `order_A`.

  Both directions gather; the gradient of plain indexing scatters, which a CPU
  does one element at a time.
  """
  return x_AD[order_A]


permute.defvjp(lambda x_AD, order_A, place_A: (x_AD[order_A], place_A),
               lambda place_A, g_AD: (g_AD[place_A], None, None))


def sort_by_group(group_A: jax.Array, num_groups: int):
  """The stable permutation that sorts rows by group.

  Args:
    group_A: int32 in 0..num_groups; num_groups is none, and goes last.
    num_groups: groups.

  Returns:
    (order_A, its inverse, counts_E).
  """
  rows = group_A.size
  if rows * (num_groups + 1) < 2**31:  # one key sorts faster than key and index
    keys_A = jnp.sort(group_A * rows + jnp.arange(rows, dtype=jnp.int32))
    order_A, sorted_A = keys_A % rows, keys_A // rows
  else:
    order_A = jnp.argsort(group_A, stable=True).astype(jnp.int32)
    sorted_A = group_A[order_A]
  place_A = jnp.zeros_like(order_A).at[order_A].set(
      jnp.arange(rows, dtype=jnp.int32), unique_indices=True)
  ends = jnp.searchsorted(sorted_A, jnp.arange(num_groups + 1)).astype(
      jnp.int32)
  return order_A, place_A, jnp.diff(ends)
