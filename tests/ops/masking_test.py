from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from rljax.ops import masking


class MaskingTest(absltest.TestCase):

  def test_gradient_is_zero_outside_even_where_the_exponential_overflows(self):
    a_BT, b_BT = jnp.array([[1.0, 200.0]]), jnp.array([[0.5, 0.0]])
    inside_BT = jnp.array([[True, False]])

    def total(a_BT):
      return jnp.sum(jnp.exp(masking.masked_difference(a_BT, b_BT, inside_BT)))

    grad_BT = jax.grad(total)(a_BT)
    np.testing.assert_allclose(grad_BT, [[np.exp(0.5), 0.0]], rtol=1e-6)

  def test_masking_the_result_would_give_nan_gradients(self):
    inside_BT = jnp.array([[True, False]])

    def total(a_BT):
      return jnp.sum(jnp.where(inside_BT, jnp.exp(a_BT), 0.0))

    self.assertTrue(np.isnan(jax.grad(total)(jnp.array([[1.0, 200.0]]))[0, 1]))

  def test_weighted_sum_ignores_what_lies_outside(self):
    # 0.5 * 2 + 0.25 * 4 = 2; the entries without weight are never touched.
    weight_BT = jnp.array([[0.5, 0.0, 0.25, 0.0]])
    values_BT = jnp.array([[2.0, jnp.nan, 4.0, -jnp.inf]])
    np.testing.assert_allclose(masking.weighted_sum(weight_BT, values_BT), 2.0)
    grad_BT = jax.grad(masking.weighted_sum, argnums=1)(weight_BT, values_BT)
    np.testing.assert_array_equal(grad_BT, weight_BT)

  def test_uniform_weights_sum_to_one_or_are_all_zero(self):
    mask_BT = jnp.array([[True, False, True], [True, True, False]])
    np.testing.assert_array_equal(
        masking.uniform_weights(mask_BT), [[0.25, 0, 0.25], [0.25, 0.25, 0]])
    np.testing.assert_array_equal(
        masking.uniform_weights(jnp.zeros((2, 3), bool)), np.zeros((2, 3)))


if __name__ == '__main__':
  absltest.main()
