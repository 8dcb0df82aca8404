from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax.losses.policy import dapo
from rljax.losses.policy import grpo
from tests.losses.policy import batches


class GrpoTest(parameterized.TestCase):

  @parameterized.named_parameters(('eager', lambda f: f), ('jit', jax.jit))
  def test_weights_by_hand(self, transform):
    # Three responses in the loss. Response 7 has 2 loss tokens (its prompt and
    # the hole do not count), response 2 has 1, response 50 has 3.
    rows = batches.make_rows(
        [[7, 7, 7, 7, 2, 2], [50, 50, 50, 50, 0, 0]],
        [[0, 1, 0, 1, 0, 1], [0, 1, 1, 1, 0, 0]])
    with jax.numpy_dtype_promotion('strict'):
      weight_BT = transform(grpo.token_weights)(rows)
    np.testing.assert_allclose(
        weight_BT, [[0, 1 / 6, 0, 1 / 6, 0, 1 / 3],
                    [0, 1 / 9, 1 / 9, 1 / 9, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(weight_BT.sum(), 1.0, rtol=1e-6)

  def test_gradient_of_a_token_is_inverse_to_its_response_length(self):
    # The contrast to C3PO: -A / (R ℓ), here R = 2, ℓ = 1 and 4.
    rows = batches.make_rows([[1, 2, 2, 2, 2]], [[1, 1, 1, 1, 1]])
    batch = batches.make_batch(grpo.token_weights(rows), 3.0)
    grad_BT = jax.grad(lambda x: grpo.loss(x, batch, kl_coef=0.0)[0])(
        jnp.zeros((1, 5)))
    np.testing.assert_allclose(
        grad_BT, [[-3 / 2, -3 / 8, -3 / 8, -3 / 8, -3 / 8]], rtol=1e-6)

  def test_equals_dapo_weights_when_all_lengths_agree_and_only_then(self):
    equal = batches.make_rows([[1, 1, 2, 2], [3, 3, 0, 0]],
                      [[1, 1, 1, 1], [1, 1, 0, 0]])
    np.testing.assert_allclose(
        grpo.token_weights(equal), dapo.token_weights(equal), rtol=1e-6)
    unequal = batches.make_rows([[1, 2, 2, 2]], [[1, 1, 1, 1]])
    self.assertGreater(
        float(jnp.abs(grpo.token_weights(unequal)
                      - dapo.token_weights(unequal)).max()), 0.1)

  def test_weights_do_not_depend_on_the_neighbours_in_the_row(self):
    together = batches.make_rows([[4, 4, 9, 9, 9, 0]], [[1, 1, 1, 1, 1, 0]])
    apart = batches.make_rows([[4, 4, 0, 0, 0, 0], [9, 9, 9, 0, 0, 0]],
                      [[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]])
    one_BT = np.asarray(grpo.token_weights(together))
    two_BT = np.asarray(grpo.token_weights(apart))
    np.testing.assert_allclose(one_BT[0, :2], two_BT[0, :2])
    np.testing.assert_allclose(one_BT[0, 2:5], two_BT[1, :3])

  def test_band_is_symmetric(self):
    # A = 1 at ratio 2 gives 1 + ε; A = -1 at ratio 1/4 gives -(1 - ε).
    ones_BT = jnp.ones((1, 1))
    at = lambda ratio, advantage: grpo.loss(
        jnp.log(ratio * ones_BT), batches.make_batch(ones_BT, advantage),
        clip_eps=0.3, kl_coef=0.0)[0]
    np.testing.assert_allclose(at(2.0, 1.0), -1.3, rtol=1e-6)
    np.testing.assert_allclose(at(0.25, -1.0), 0.7, rtol=1e-6)


if __name__ == '__main__':
  absltest.main()
