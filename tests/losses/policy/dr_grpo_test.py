from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax.losses.policy import dapo
from rljax.losses.policy import dr_grpo
from rljax.losses.policy import grpo
from rljax.types import PackedRows
from rljax.types import PolicyBatch


def make_rows(segment, mask, max_response_length):
  segment_BT, mask_BT = np.array(segment, np.int32), np.array(mask, bool)
  zeros_BT = np.zeros(segment_BT.shape, np.float32)
  return PackedRows(
      tokens_BT=np.zeros_like(segment_BT),
      position_BT=np.zeros_like(segment_BT),
      segment_BT=segment_BT, mask_BT=mask_BT, advantage_BT=zeros_BT,
      sampled_logp_BT=zeros_BT,
      num_responses=np.int32(len(np.unique(segment_BT[mask_BT]))),
      token_budget=100, max_response_length=max_response_length)


class DrGrpoTest(parameterized.TestCase):

  @parameterized.named_parameters(('eager', lambda f: f), ('jit', jax.jit))
  def test_weights_by_hand(self, transform):
    # Two responses in the loss, at most 10 tokens each: 1/20 everywhere.
    rows = make_rows([[1, 1, 1, 5, 5, 0]], [[0, 1, 1, 1, 0, 0]], 10)
    with jax.numpy_dtype_promotion('strict'):
      weight_BT = transform(dr_grpo.token_weights)(rows)
    np.testing.assert_allclose(
        weight_BT, [[0, 0.05, 0.05, 0.05, 0, 0]], rtol=1e-6)

  def test_equals_grpo_when_every_response_has_the_longest_length(self):
    rows = make_rows([[1, 1, 1, 2, 2, 2]], np.ones((1, 6)), 3)
    np.testing.assert_allclose(
        dr_grpo.token_weights(rows), grpo.token_weights(rows), rtol=1e-6)

  def test_is_dapo_times_the_mean_length_over_the_longest(self):
    # Lengths 1 and 3 of at most 4: 2 / 4 of DAPO's weights.
    rows = make_rows([[1, 2, 2, 2]], np.ones((1, 4)), 4)
    np.testing.assert_allclose(
        dr_grpo.token_weights(rows), 0.5 * dapo.token_weights(rows), rtol=1e-6)

  def test_longer_responses_leave_the_weight_of_a_token_alone(self):
    # Unlike DAPO's: the constant is of the run, not of the step.
    short = make_rows([[1, 2, 0, 0, 0, 0]], [[1, 1, 0, 0, 0, 0]], 4)
    long = make_rows([[1, 2, 2, 2, 2, 0]], [[1, 1, 1, 1, 1, 0]], 4)
    first = lambda module, rows: float(module.token_weights(rows)[0, 0])
    self.assertEqual(first(dr_grpo, short), first(dr_grpo, long))
    self.assertNotEqual(first(dapo, short), first(dapo, long))

  def test_no_penalty_unless_asked_for(self):
    batch = PolicyBatch(
        tokens_BT=None, position_BT=None, segment_BT=None,
        weight_BT=jnp.ones((1, 2)), share_BT=None,
        advantage_BT=jnp.zeros((1, 2)), old_logp_BT=jnp.zeros((1, 2)),
        ref_logp_BT=jnp.ones((1, 2)), load_BLE=None)
    logp_BT = jnp.zeros((1, 2))
    self.assertEqual(float(dr_grpo.loss(logp_BT, batch)[0]), 0.0)
    # k3 at ρ = e: e - 2 for each of two tokens.
    np.testing.assert_allclose(
        dr_grpo.loss(logp_BT, batch, kl_coef=1.0)[0], 2 * (np.e - 2), rtol=1e-5)


if __name__ == '__main__':
  absltest.main()
