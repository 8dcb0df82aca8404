from absl.testing import absltest
from absl.testing import parameterized
from flax import linen as nn
import jax
import numpy as np

from rljax.models import reward
from rljax.models import transformer
from tests import toys


def scores(model, params, *rows):
  num_heads = params[reward.HEAD]['kernel'].shape[-1]
  return np.asarray(reward.RewardModel(model.config, num_heads).apply(
      {'params': params}, *rows)[0])


class RewardModelTest(parameterized.TestCase):

  @parameterized.product(variant=('tiny', 'tiny_dense'), num_heads=(1, 3))
  def test_starts_with_the_parameters_that_it_would_create(self, variant,
                                                           num_heads):
    model, params = toys.model_and_params(variant)
    made = nn.meta.unbox(transformer.abstract_params(
        reward.RewardModel(model.config, num_heads)))
    taken = reward.from_language_model(params, num_heads, jax.random.key(0))
    self.assertNotIn('head', taken)
    self.assertEqual(jax.tree.map(lambda x: (x.shape, x.dtype), made),
                     jax.tree.map(lambda x: (x.shape, x.dtype), taken))
    self.assertEqual(set(taken[reward.HEAD]), {'kernel'})  # no bias

  def test_scores_begin_about_zero_and_of_order_one(self):
    # RMSNorm makes x of size √D, and the head of variance 1 / (D + 1).
    model, params = toys.model_and_params(norm_head=False)
    rows = toys.rows([[8]] * 8, 8)
    params = params | {'final_norm': {'scale': np.ones(32, np.float32)}}
    taken = reward.from_language_model(params, 64, jax.random.key(0))
    kernel_DJ = np.asarray(taken[reward.HEAD]['kernel'])
    self.assertAlmostEqual(kernel_DJ.std(), 33 ** -0.5, delta=0.01)
    score_BTJ = scores(model, taken, *rows)
    self.assertLess(abs(score_BTJ.mean()), 0.15)
    self.assertBetween(score_BTJ.std(), 0.8, 1.2)

  def test_heads_of_an_ensemble_differ_and_are_products_with_one_trunk(self):
    model, params = toys.model_and_params(norm_head=False)
    rows = toys.rows([[5, 3], [8]], 8)
    taken = reward.from_language_model(params, 3, jax.random.key(0))
    hidden_BTD = model.apply({'params': params}, *rows).head.hidden_BTD
    score_BTJ = scores(model, taken, *rows)
    np.testing.assert_allclose(
        score_BTJ, np.asarray(hidden_BTD) @ np.asarray(
            taken[reward.HEAD]['kernel']), rtol=1e-4, atol=1e-5)
    self.assertGreater(np.abs(score_BTJ[..., 0] - score_BTJ[..., 1]).max(), 0.1)

  def test_a_score_depends_on_its_own_past_alone(self):
    model, params = toys.model_and_params()
    taken = reward.from_language_model(params, 1, jax.random.key(0))
    tokens_BT, position_BT, segment_BT = toys.rows([[5, 3]], 8)
    other_BT = tokens_BT.copy()
    other_BT[0, 3] = (other_BT[0, 3] + 1) % 200
    before, after = (scores(model, taken, x, position_BT, segment_BT)[0, :, 0]
                     for x in (tokens_BT, other_BT))
    np.testing.assert_array_equal(np.abs(before - after) > 1e-4,
                                  [0, 0, 0, 1, 1, 0, 0, 0])


if __name__ == '__main__':
  absltest.main()
