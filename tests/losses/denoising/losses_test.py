"""Diffusion's squared error, and DPO on the difference of two of them."""
from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax.losses.denoising import dpo
from rljax.losses.denoising import mse
from tests.losses import images


class DpoTest(parameterized.TestCase):

  @parameterized.named_parameters(('eager', lambda f: f), ('jit', jax.jit))
  def test_hand_computed(self, transform):
    # d = 0.3 - 0.5 = -0.2, d_ref = 0.4 - 0.5 = -0.1, β = 20:
    # margin -10 (-0.2 + 0.1) = 1, loss log(1 + e⁻¹) = 0.313262
    batch = images.noisy(1, ref=[[0.4, 0.5]])
    value, metrics = transform(lambda e: dpo.loss(e, batch, beta=20.0))(
        jnp.array([[0.3, 0.5]]))
    np.testing.assert_allclose(value, 0.3132617, rtol=1e-5)
    np.testing.assert_allclose(metrics['reward_margin'], 1.0, rtol=1e-5)
    np.testing.assert_allclose(metrics['reward_accuracy'], 1.0)

  def test_log_2_at_the_reference(self):
    batch = images.noisy()
    value, metrics = dpo.loss(batch.ref_error_BG, batch)
    np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(metrics['reward_margin'], 0.0)

  @parameterized.parameters((-0.01, 1.0), (0.01, 0.0))
  def test_a_smaller_error_on_the_better_image_is_right(self, change, right):
    batch = images.noisy(weight=[1, 0, 0, 0])
    error_BG = batch.ref_error_BG.at[:, 0].add(change)
    value, metrics = dpo.loss(error_BG, batch)
    np.testing.assert_allclose(metrics['reward_accuracy'], right)
    self.assertEqual(bool(value < np.log(2)), right == 1.0)

  def test_a_slope_pulls_the_errors_apart(self):
    batch = images.noisy()
    slope_BG = jax.grad(lambda e: dpo.loss(e, batch, beta=1.0)[0])(
        batch.ref_error_BG)
    self.assertTrue(np.all(slope_BG[:, 0] > 0))
    np.testing.assert_allclose(slope_BG[:, 1], -slope_BG[:, 0])

  @parameterized.parameters((1, 'errors of two'), (3, 'got 3'))
  def test_what_is_no_pair_is_refused(self, group, message):
    batch = images.noisy(group=group)
    with self.assertRaisesRegex(ValueError, message):
      dpo.loss(batch.ref_error_BG, batch)

  def test_a_missing_reference_is_refused(self):
    batch = images.noisy()
    with self.assertRaisesRegex(ValueError, 'none'):
      dpo.loss(batch.ref_error_BG, batch.replace(ref_error_BG=None))


class MseTest(absltest.TestCase):

  def test_weights_and_groups(self):
    # (1 · (0.2 + 0.4) / 2 + 2 · (1 + 3) / 2) = 4.3
    batch = images.noisy(2, weight=[1, 2])
    value, _ = mse.loss(jnp.array([[0.2, 0.4], [1.0, 3.0]]), batch)
    np.testing.assert_allclose(value, 4.3, rtol=1e-6)


if __name__ == '__main__':
  absltest.main()
