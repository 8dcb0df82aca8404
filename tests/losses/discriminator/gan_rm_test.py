"""Soft-label cross-entropy, and what a discriminator's logit comes to be."""
from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rljax.losses.discriminator import gan_rm
from rljax.models import reward_projection
from rljax.training import fit
from tests.losses import images


class LossTest(parameterized.TestCase):

  @parameterized.named_parameters(('eager', lambda f: f), ('jit', jax.jit))
  def test_hand_computed(self, transform):
    # σ(s) = 1/4, 1/2 and 3/4. With weights 1, 2 and 0:
    #   y = 1:    -log 1/4 = 1.386294
    #   y = 0.25: 2 · log 2 = 1.386294     (both terms are log 2)
    logit_B = jnp.log(jnp.array([1 / 3, 1.0, 3.0]))
    value, metrics = transform(gan_rm.loss)(
        logit_B, images.labelled([1, 0.25, 0], [1, 2, 0]))
    np.testing.assert_allclose(value, 2.772589, rtol=1e-6)
    # Not above 1/2 in both: wrong for the first, right for the second.
    np.testing.assert_allclose(metrics['accuracy'], 2.0)
    np.testing.assert_allclose(metrics['score'], 0.25 + 2 * 0.5)

  @parameterized.parameters(0.0, 0.1, 0.5, 0.8, 1.0)
  def test_slope_is_score_less_label_and_the_minimum_at_the_label(self, label):
    logit_B = jnp.linspace(-4, 4, 9)
    batch = images.labelled(np.full(9, label))
    slope_B = jax.grad(lambda s: gan_rm.loss(s, batch)[0])(logit_B)
    np.testing.assert_allclose(slope_B, jax.nn.sigmoid(logit_B) - label,
                               atol=1e-6)
    # The rule without labels, y -> 1, has another slope.
    if label < 1:
      self.assertGreater(
          np.abs(slope_B - (jax.nn.sigmoid(logit_B) - 1)).min(), 0.05)

  @parameterized.parameters(-100.0, 100.0)
  def test_finite_where_the_sigmoid_is_flat(self, logit):
    batch = images.labelled([0.0, 0.5, 1.0])
    value, slope_B = jax.value_and_grad(
        lambda s: gan_rm.loss(s, batch)[0])(jnp.full(3, logit))
    np.testing.assert_allclose(value, 150.0, rtol=1e-6)
    self.assertTrue(np.isfinite(slope_B).all())
    naive = lambda s: -jnp.log(jax.nn.sigmoid(-abs(s)))
    self.assertFalse(np.isfinite(naive(100.0)))  # what log σ is there for

  def test_positive_weight_is_of_the_target_s_term(self):
    logit_B, batch = jnp.zeros(2), images.labelled([1, 0])
    value, _ = gan_rm.loss(logit_B, batch, positive_weight=3.0)
    np.testing.assert_allclose(value, 4 * np.log(2), rtol=1e-6)


class OptimalDiscriminatorTest(parameterized.TestCase):

  @parameterized.parameters(1, 4)
  def test_logit_is_the_log_ratio_up_to_the_prior(self, ratio):
    # Targets N(1, 1), outputs N(-1, 1): log p_t / p_g = 2 x, plus the log of
    # the ratio of the two sides' weights.
    rng = np.random.default_rng(0)
    feature_BD = np.concatenate([
        rng.normal(1, 1, (4000, 1)), rng.normal(-1, 1, (4000, 1))])
    label = np.repeat([1, 0], 4000)
    weight = np.where(label, ratio, 1) / 8000
    head = reward_projection.RewardProjection((8,))
    params = head.init(jax.random.key(0), jnp.zeros((1, 1)))['params']
    optimizer = optax.adam(0.03)

    def loss_fn(params, batch):
      return gan_rm.loss(head.apply({'params': params}, batch.feature_BD),
                         batch)

    run = fit.make_fit_fn(loss_fn, optimizer, lambda data, key: data, 300)
    state, _ = run(
        fit.create(params, optimizer),
        images.labelled(label, weight, feature_BD), jax.random.key(0))
    x = np.linspace(-1.5, 1.5, 7)
    logit = head.apply({'params': state.params}, jnp.asarray(
        x[:, None], jnp.float32))
    np.testing.assert_allclose(logit, 2 * x + np.log(ratio), atol=0.3)
    self.assertTrue(np.all(np.diff(logit) > 0))  # the ranking is the same


if __name__ == '__main__':
  absltest.main()
