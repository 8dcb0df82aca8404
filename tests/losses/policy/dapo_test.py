from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax.losses.policy import dapo
from rljax.losses.policy import grpo
from tests.losses.policy import batches


class DapoTest(parameterized.TestCase):

  @parameterized.named_parameters(('eager', lambda f: f), ('jit', jax.jit))
  def test_hand_computed(self, transform):
    #   ratio   1.27   1.5    0.5    9.0
    #   A       1      1     -1      1
    #   gain    1.27   1.28  -0.8   (weight 0)   ε_low 0.2, ε_high 0.28
    # loss = -(1.27 + 1.28 - 0.8) / 3 = -0.58333; two of three are clipped.
    batch = batches.make_batch([[1 / 3, 1 / 3, 1 / 3, 0]], [[1, 1, -1, 1]])
    with jax.numpy_dtype_promotion('strict'):
      loss, metrics = transform(dapo.loss)(
          jnp.log(jnp.array([[1.27, 1.5, 0.5, 9.0]])), batch)
    np.testing.assert_allclose(loss, -0.583333, rtol=1e-5)
    np.testing.assert_allclose(metrics['clip_fraction'], 2 / 3, rtol=1e-5)

  def test_unlikely_tokens_may_rise_further_than_under_grpo(self):
    # Ratio 1.25, A = 1: inside DAPO's band, outside GRPO's.
    logp_BT = jnp.log(jnp.array([[1.25]]))
    batch = batches.make_batch([[1]], [[1]])
    grad = lambda loss, **kw: jax.grad(
        lambda x: loss(x, batch, **kw)[0])(logp_BT)
    np.testing.assert_allclose(grad(dapo.loss), [[-1.25]], rtol=1e-6)
    np.testing.assert_allclose(grad(grpo.loss, kl_coef=0.0), [[0.0]])

  def test_equals_grpo_with_one_bound_under_the_same_weights(self):
    # Ratios on both sides of both bands, each with A = 1 and A = -1.
    logp_BT = jnp.tile(jnp.log(jnp.linspace(0.5, 1.6, 6)), (2, 1))
    batch = batches.make_batch(
        np.full((2, 6), 1 / 12), np.stack([np.ones(6), -np.ones(6)]))
    np.testing.assert_allclose(
        dapo.loss(logp_BT, batch, clip_low=0.2, clip_high=0.2)[0],
        grpo.loss(logp_BT, batch, clip_eps=0.2, kl_coef=0.0)[0], rtol=1e-6)
    self.assertNotEqual(
        float(dapo.loss(logp_BT, batch)[0]),
        float(grpo.loss(logp_BT, batch, kl_coef=0.0)[0]))

  def test_every_token_of_the_step_weighs_the_same(self):
    rows = batches.make_rows([[1, 2, 2, 2, 2, 0], [3, 3, 3, 0, 0, 0]],
                     [[1, 1, 1, 0, 1, 0], [1, 1, 0, 0, 0, 0]])
    weight_BT = np.asarray(dapo.token_weights(rows))
    np.testing.assert_allclose(weight_BT[rows.mask_BT], 1 / 6, rtol=1e-6)
    np.testing.assert_array_equal(weight_BT[~rows.mask_BT], 0.0)


if __name__ == '__main__':
  absltest.main()
