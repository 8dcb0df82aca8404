from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax.losses.preference import dpo
from rljax.ops import comparisons
from tests.losses.preference import golden
from tests.losses.reward import lists


class NllTest(parameterized.TestCase):

  @parameterized.parameters(1e4, -1e4, 0.0)
  def test_finite_at_any_gap(self, gap):
    for mass, margin in ((0.0, 0.0), (0.1, 0.0), (0.0, 2.0)):
      value, slope = jax.value_and_grad(
          lambda x: comparisons.nll(x, wrong_mass=mass, margin=margin))(
              jnp.float32(gap))
      self.assertTrue(np.isfinite(value))
      # Never steeper than a sure mistake.
      self.assertBetween(float(slope), -1.0, mass + 1e-6)

  def test_negative_control_log_of_a_sum_of_exponentials_overflows(self):
    self.assertTrue(np.isinf(jnp.log(1 + jnp.exp(jnp.float32(1e4)))))

  @parameterized.parameters(0.0, 0.1)
  def test_dpo_is_the_same_function_of_another_gap(self, mass):
    logp_BT, batch = golden.random()
    loss, metrics = dpo.loss(logp_BT[:1], jax.tree.map(
        lambda x: x[:1], batch).replace(
            weight_BP=np.array([[1.0, 0.0, 0.0]], np.float32)),
                             beta=0.5, label_smoothing=mass)
    np.testing.assert_allclose(
        loss, comparisons.nll(metrics['reward_margin'], wrong_mass=mass),
        rtol=1e-5)


class PairsTest(absltest.TestCase):

  def test_who_beats_whom(self):
    batch = lists.batch([[[1, 0, -1, 1]]])
    np.testing.assert_array_equal(
        np.argwhere(comparisons.is_better(batch)),
        [[0, 0, 1, 0], [0, 0, 1, 3]])  # those of equal rank do not

  def test_a_list_without_weight_has_no_pairs(self):
    batch = lists.batch([[[1, 0]]], weight_BP=[[0.0]])
    self.assertFalse(comparisons.is_better(batch).any())

  def test_means_over_pairs(self):
    better_BPCC = np.array([[[[False, True], [False, False]],
                             [[False, False], [False, False]]]])
    x_BPCC = jnp.asarray([[[[jnp.nan, 3.0], [5.0, 7.0]],
                           [[1.0, 1.0], [1.0, 1.0]]]])
    np.testing.assert_array_equal(
        comparisons.pair_means(x_BPCC, better_BPCC), [[3.0, 0.0]])


if __name__ == '__main__':
  absltest.main()
