import functools
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax.ops import grouped_matmul
from tests import toys

KERNELS = ('block', 'ragged', 'megablox')
COUNTS = {
    'even': (20, 20, 20, 20), 'skewed': (1, 70, 0, 9), 'one': (0, 0, 80, 0),
    'tail': (13, 0, 30, 5), 'nothing': (0, 0, 0, 0), 'last': (0, 0, 0, 80),
    'short_last': (70, 5, 0, 5)}


def example(counts, rows=80, width=6, wide=5, seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  return (draw(rows, width), draw(len(counts), width, wide),
          jnp.asarray(counts, jnp.int32), draw(rows, wide))


def oracle(x_AD, w_EDF, counts_E, g_AF):
  """Product and both gradients, group by group in double precision."""
  x_AD, w_EDF, g_AF = (np.asarray(a, np.float64) for a in (x_AD, w_EDF, g_AF))
  out_AF, dx_AD, dw_EDF = (np.zeros_like(a) for a in (g_AF, x_AD, w_EDF))
  start = 0
  for e, count in enumerate(np.asarray(counts_E)):
    rows = slice(start, start + count)
    out_AF[rows] = x_AD[rows] @ w_EDF[e]
    dx_AD[rows] = g_AF[rows] @ w_EDF[e].T
    dw_EDF[e] = x_AD[rows].T @ g_AF[rows]
    start += count
  return out_AF, dx_AD, dw_EDF


def with_grads(kernel):
  """(x, w, counts, g) -> product and its gradients."""
  def run(x_AD, w_EDF, counts_E, g_AF):
    out_AF, pullback = jax.vjp(
        lambda x, w: grouped_matmul.grouped_matmul(x, w, counts_E, kernel),
        x_AD, w_EDF)
    return out_AF, *pullback(g_AF)
  return jax.jit(run)


class GroupedMatmulTest(parameterized.TestCase):

  @parameterized.parameters(*KERNELS)
  def test_product_and_gradients_equal_a_loop_over_groups(self, kernel):
    run = with_grads(kernel)
    for counts in COUNTS.values():
      inputs = example(counts)
      toys.assert_trees_close(run(*inputs), oracle(*inputs), atol=2e-5)

  @parameterized.parameters(*KERNELS)
  def test_rows_behind_the_last_group_reach_nothing(self, kernel):
    x, w, counts, g = example(COUNTS['tail'])
    behind = jnp.arange(80)[:, None] >= 48
    run = with_grads(kernel)
    got = run(jnp.where(behind, jnp.nan, x), w, counts,
              jnp.where(behind, 1e30, g))
    toys.assert_trees_close(got, oracle(x, w, counts, g), atol=2e-5)
    # One row more in the last group, and they would.
    more = run(jnp.where(behind, jnp.nan, x), w, counts.at[3].add(1), g)
    self.assertTrue(np.isnan(more[2][3]).any())

  def test_rows_that_a_kernel_leaves_unwritten_reach_nothing(self):
    def careless(x_AD, w_EDF, counts_E):
      inside_A1 = (jnp.arange(x_AD.shape[0]) < counts_E.sum())[:, None]
      out_AF = jax.lax.ragged_dot(x_AD, w_EDF, counts_E)
      return jnp.where(inside_A1, out_AF, jnp.nan)

    @jax.custom_vjp
    def product(x_AD, w_EDF, counts_E):
      return careless(x_AD, w_EDF, counts_E)

    def backward(saved, g_AF):
      x_AD, w_EDF, counts_E = saved
      _, pullback = jax.vjp(
          lambda w: jax.lax.ragged_dot(x_AD, w, counts_E), w_EDF)
      return (careless(g_AF, w_EDF.swapaxes(1, 2), counts_E),
              *pullback(g_AF), None)

    product.defvjp(lambda *inputs: (careless(*inputs), inputs), backward)
    inputs = example(COUNTS['tail'])
    self.assertTrue(np.isnan(careless(*inputs[:3])).any())
    unguarded = jax.vjp(product, *inputs[:3])[1](inputs[3])[0]
    self.assertTrue(np.isnan(unguarded).any())
    guarded = functools.partial(grouped_matmul.grouped_matmul, kernel='ragged')
    with mock.patch.object(grouped_matmul, '_ragged', product):
      out_AF, pullback = jax.vjp(lambda x, w: guarded(x, w, inputs[2]),
                                 *inputs[:2])
      got = out_AF, *pullback(inputs[3])
    toys.assert_trees_close(got, oracle(*inputs), atol=2e-5)

  @parameterized.parameters(*KERNELS)
  def test_a_row_in_the_wrong_group_would_be_seen(self, kernel):
    x, w, counts, g = example(COUNTS['even'])
    moved = counts + jnp.array([1, -1, 0, 0], jnp.int32)
    got = with_grads(kernel)(x, w, moved, g)
    self.assertGreater(toys.largest_difference(got, oracle(x, w, counts, g)),
                       0.1)

  @parameterized.parameters(*KERNELS)
  def test_bfloat16_sums_in_float32(self, kernel):
    # 4,096 products of 1 + 1/128 in a group: bfloat16 sums would stop growing.
    x_AD = jnp.full((8_192, 2), 1.0, jnp.bfloat16)
    w_EDF = jnp.ones((2, 2, 3), jnp.bfloat16)
    counts_E = jnp.array([4_096, 4_096], jnp.int32)
    # Megablox promotes in its own code.
    promotion = 'standard' if kernel == 'megablox' else 'strict'
    with jax.numpy_dtype_promotion(promotion):
      _, _, dw_EDF = with_grads(kernel)(
          x_AD, w_EDF, counts_E, jnp.ones((8_192, 3), jnp.bfloat16))
    self.assertEqual(dw_EDF.dtype, jnp.bfloat16)
    np.testing.assert_array_equal(dw_EDF.astype(jnp.float32), 4_096)

  @parameterized.parameters((8_192, 16), (100, 8), (1_000_000, 2))
  def test_a_block_is_a_small_part_of_the_mean_group(self, rows, groups):
    size = grouped_matmul._block_size(rows, groups)
    self.assertEqual(size & (size - 1), 0)
    self.assertBetween(size, 16, 256)
    self.assertLessEqual(size, max(rows / groups / 4, 16))
    self.assertEqual(grouped_matmul._block_size(7, 4), 7)  # all there are

  def test_kernel_by_platform_and_unknown_ones(self):
    for platform, kernel in dict(cpu='block', tpu='megablox',
                                 gpu='ragged').items():
      with mock.patch.object(jax, 'default_backend', lambda p=platform: p):
        self.assertEqual(grouped_matmul.default_kernel(), kernel)
    with self.assertRaisesRegex(ValueError, "got 'cuda'.*Choose"):
      grouped_matmul.grouped_matmul(*example((3, 4), rows=7)[:3], 'cuda')


class SortTest(parameterized.TestCase):

  @parameterized.parameters((50, 4), (1, 3), (257, 64))
  def test_stable_sort_its_inverse_and_counts(self, rows, groups):
    group_A = np.random.default_rng(0).integers(0, groups + 1, rows)
    group_A = group_A.astype(np.int32)
    sort = jax.jit(grouped_matmul.sort_by_group, static_argnums=1)
    order_A, place_A, counts_E = sort(group_A, groups)
    np.testing.assert_array_equal(order_A, np.argsort(group_A, kind='stable'))
    np.testing.assert_array_equal(np.asarray(order_A)[place_A],
                                  np.arange(rows))
    np.testing.assert_array_equal(
        counts_E, np.bincount(group_A, minlength=groups + 1)[:groups])

  def test_keys_beyond_32_bits_are_sorted_another_way(self):
    rows, groups = 2**16, 2**15 - 1  # one key would be just too large
    group_A = (np.arange(rows)[::-1] % groups).astype(np.int32)
    order_A, _, counts_E = jax.jit(
        grouped_matmul.sort_by_group, static_argnums=1)(group_A, groups)
    np.testing.assert_array_equal(order_A, np.argsort(group_A, kind='stable'))
    self.assertEqual(int(counts_E.sum()), rows)

  def test_permute_has_the_gradient_of_indexing(self):
    rng = np.random.default_rng(0)
    x_AD, g_AD = rng.normal(size=(2, 9, 3)).astype(np.float32)
    order_A = rng.permutation(9)
    place_A = np.argsort(order_A)
    out_AD, pullback = jax.vjp(
        lambda x: grouped_matmul.permute(x, order_A, place_A), x_AD)
    np.testing.assert_array_equal(out_AD, x_AD[order_A])
    _, want = jax.vjp(lambda x: x[order_A], x_AD)
    np.testing.assert_array_equal(pullback(g_AD)[0], want(g_AD)[0])


if __name__ == '__main__':
  absltest.main()
