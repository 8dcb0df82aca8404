"""Diffusion's squared error, and DPO on the difference of two of them."""
import importlib

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax import losses
from rljax.losses.denoising import dpo
from rljax.losses.denoising import mse
from rljax.types import DenoisingBatch


def make_batch(rows=4, group=2, weight=None, ref=None, seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  return DenoisingBatch(
      image_BGYWU=draw(rows, group, 2, 2, 1), class_B=jnp.zeros(rows, int),
      noise_BYWU=draw(rows, 2, 2, 1), time_B=jnp.full(rows, 0.5),
      weight_B=jnp.full(rows, 1 / rows) if weight is None else jnp.asarray(
          weight, jnp.float32),
      ref_error_BG=jnp.abs(draw(rows, group)) if ref is None else jnp.asarray(
          ref, jnp.float32))


class DpoTest(parameterized.TestCase):

  @parameterized.named_parameters(('eager', lambda f: f), ('jit', jax.jit))
  def test_hand_computed(self, transform):
    # d = 0.3 - 0.5 = -0.2, d_ref = 0.4 - 0.5 = -0.1, β = 20:
    # margin -10 (-0.2 + 0.1) = 1, loss log(1 + e⁻¹) = 0.313262
    batch = make_batch(1, ref=[[0.4, 0.5]])
    value, metrics = transform(lambda e: dpo.loss(e, batch, beta=20.0))(
        jnp.array([[0.3, 0.5]]))
    np.testing.assert_allclose(value, 0.3132617, rtol=1e-5)
    np.testing.assert_allclose(metrics['reward_margin'], 1.0, rtol=1e-5)
    np.testing.assert_allclose(metrics['reward_accuracy'], 1.0)

  def test_log_2_at_the_reference(self):
    batch = make_batch()
    value, metrics = dpo.loss(batch.ref_error_BG, batch)
    np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(metrics['reward_margin'], 0.0)

  @parameterized.parameters((-0.01, 1.0), (0.01, 0.0))
  def test_a_smaller_error_on_the_better_image_is_right(self, change, right):
    batch = make_batch(weight=[1, 0, 0, 0])
    error_BG = batch.ref_error_BG.at[:, 0].add(change)
    value, metrics = dpo.loss(error_BG, batch)
    np.testing.assert_allclose(metrics['reward_accuracy'], right)
    self.assertEqual(bool(value < np.log(2)), right == 1.0)

  def test_a_slope_pulls_the_errors_apart(self):
    batch = make_batch()
    slope_BG = jax.grad(lambda e: dpo.loss(e, batch, beta=1.0)[0])(
        batch.ref_error_BG)
    self.assertTrue(np.all(slope_BG[:, 0] > 0))
    np.testing.assert_allclose(slope_BG[:, 1], -slope_BG[:, 0])

  @parameterized.parameters((1, 'errors of two'), (3, 'got 3'))
  def test_what_is_no_pair_is_refused(self, group, message):
    batch = make_batch(group=group)
    with self.assertRaisesRegex(ValueError, message):
      dpo.loss(batch.ref_error_BG, batch)

  def test_a_missing_reference_is_refused(self):
    batch = make_batch()
    with self.assertRaisesRegex(ValueError, 'none'):
      dpo.loss(batch.ref_error_BG, batch.replace(ref_error_BG=None))


class MseTest(absltest.TestCase):

  def test_weights_and_groups(self):
    # (1 · (0.2 + 0.4) / 2 + 2 · (1 + 3) / 2) = 4.3
    batch = make_batch(2, weight=[1, 2])
    value, _ = mse.loss(jnp.array([[0.2, 0.4], [1.0, 3.0]]), batch)
    np.testing.assert_allclose(value, 4.3, rtol=1e-6)


class ContractTest(parameterized.TestCase):
  """Of every file of the family."""

  @parameterized.parameters(*losses.names('denoising'))
  def test_sum_over_rows_blind_to_padding_and_compilable(self, name):
    loss = losses.get('denoising', name).loss
    batch = make_batch(6, weight=[1, 0, 2, 1, 0.5, 0])
    error_BG = batch.ref_error_BG * 1.01
    whole = loss(error_BG, batch)
    parts = [loss(*jax.tree.map(lambda x: x[i::2], (error_BG, batch)))
             for i in (0, 1)]
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5)
    jax.tree.map(lambda a, b, c: close(a + b, c), *parts, whole)
    with jax.numpy_dtype_promotion('strict'):
      jax.tree.map(close, jax.jit(loss)(error_BG, batch), whole)
    dead_B1 = batch.weight_B[:, None] == 0
    grad_fn = jax.value_and_grad(lambda e: loss(e, batch)[0])
    value, slope_BG = grad_fn(jnp.where(dead_B1, 1e30, error_BG))
    close(value, whole[0])
    np.testing.assert_array_equal(slope_BG[dead_B1[:, 0]], 0)
    with self.assertRaises(AssertionError):
      loss(error_BG.astype(jnp.bfloat16), batch)
    self.assertIn('Reference:', importlib.import_module(
        f'rljax.losses.denoising.{name}').__doc__)


if __name__ == '__main__':
  absltest.main()
