from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax.losses.policy import dapo
from rljax.losses.policy import dr_grpo
from rljax.losses.policy import grpo
from tests.losses.policy import batches


class DrGrpoTest(parameterized.TestCase):

  @parameterized.named_parameters(('eager', lambda f: f), ('jit', jax.jit))
  def test_weights_by_hand(self, transform):
    # Two responses in the loss, at most 10 tokens each: 1/20 everywhere.
    rows = batches.make_rows(
        [[1, 1, 1, 5, 5, 0]], [[0, 1, 1, 1, 0, 0]], max_response_length=10)
    with jax.numpy_dtype_promotion('strict'):
      weight_BT = transform(dr_grpo.token_weights)(rows)
    np.testing.assert_allclose(
        weight_BT, [[0, 0.05, 0.05, 0.05, 0, 0]], rtol=1e-6)

  def test_equals_grpo_when_every_response_has_the_longest_length(self):
    rows = batches.make_rows(
        [[1, 1, 1, 2, 2, 2]], np.ones((1, 6)), max_response_length=3)
    np.testing.assert_allclose(
        dr_grpo.token_weights(rows), grpo.token_weights(rows), rtol=1e-6)

  def test_is_dapo_times_the_mean_length_over_the_longest(self):
    # Lengths 1 and 3 of at most 4: 2 / 4 of DAPO's weights.
    rows = batches.make_rows(
        [[1, 2, 2, 2]], np.ones((1, 4)), max_response_length=4)
    np.testing.assert_allclose(
        dr_grpo.token_weights(rows), 0.5 * dapo.token_weights(rows), rtol=1e-6)

  def test_longer_responses_leave_the_weight_of_a_token_alone(self):
    # Unlike DAPO's: the constant is of the run, not of the step.
    short = batches.make_rows(
        [[1, 2, 0, 0, 0, 0]], [[1, 1, 0, 0, 0, 0]], max_response_length=4)
    long = batches.make_rows(
        [[1, 2, 2, 2, 2, 0]], [[1, 1, 1, 1, 1, 0]], max_response_length=4)
    first = lambda module, rows: float(module.token_weights(rows)[0, 0])
    self.assertEqual(first(dr_grpo, short), first(dr_grpo, long))
    self.assertNotEqual(first(dapo, short), first(dapo, long))

  def test_no_penalty_unless_asked_for(self):
    batch = batches.make_batch(jnp.ones((1, 2)), 0.0, ref=1.0)
    logp_BT = jnp.zeros((1, 2))
    self.assertEqual(float(dr_grpo.loss(logp_BT, batch)[0]), 0.0)
    # k3 at ρ = e: e - 2 for each of two tokens.
    np.testing.assert_allclose(
        dr_grpo.loss(logp_BT, batch, kl_coef=1.0)[0], 2 * (np.e - 2), rtol=1e-5)


if __name__ == '__main__':
  absltest.main()
