"""A denoiser is trained on what it is said to be, and samples what it knows."""
from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rljax import losses
from rljax.models import denoiser
from rljax.ops import diffusion
from rljax.training import denoising
from rljax.training import fit


def small():
  model = denoiser.Denoiser(denoiser.DenoiserConfig(2, 1, 2, width=32,
                                                    num_blocks=1))
  params = model.init(jax.random.key(0), jnp.zeros((1, 2, 2, 1)), jnp.zeros(1),
                      jnp.zeros(1, jnp.int32))['params']
  return model, params


def data(rows=8, group=2):
  rng = np.random.default_rng(0)
  return dict(
      image_RGYWU=jnp.asarray(rng.normal(size=(rows, group, 2, 2, 1)),
                              jnp.float32),
      class_R=jnp.zeros(rows, jnp.int32), weight_R=jnp.ones(rows))


class ScheduleTest(absltest.TestCase):

  def test_keeps_the_variance_and_ends_in_noise(self):
    alpha_T, sigma_T = diffusion.signal_and_noise(jnp.linspace(0, 1, 5))
    np.testing.assert_allclose(alpha_T**2 + sigma_T**2, 1, rtol=1e-6)
    np.testing.assert_allclose(alpha_T[jnp.array([0, 2, 4])],
                               [1, np.sqrt(0.5), 0], atol=1e-6)

  def test_error_is_a_mean_over_dimensions(self):
    error_B = diffusion.squared_errors(jnp.full((3, 2, 2, 1), 2.0),
                                       jnp.zeros((3, 2, 2, 1)))
    np.testing.assert_allclose(error_B, 4.0)


class SampleTest(parameterized.TestCase):

  @parameterized.parameters(0.0, 1.0)
  def test_the_exact_denoiser_of_a_gaussian_gives_that_gaussian(self, eta):
    # x ~ N(0.2, 0.1²): E[ε | x_t] = σ (x_t - α m) / (α² s² + σ²).
    mean, deviation = 0.2, 0.1

    def predict(x_BYWU, time_B):
      alpha_B, sigma_B = diffusion.signal_and_noise(time_B)
      wide = lambda x_B: x_B[:, None, None, None]
      return wide(sigma_B / (alpha_B**2 * deviation**2 + sigma_B**2)) * (
          x_BYWU - wide(alpha_B) * mean)

    x = diffusion.sample(predict, (500, 2, 2, 1), 50, eta, jax.random.key(0))
    self.assertAlmostEqual(float(x.mean()), mean, delta=0.02)
    self.assertAlmostEqual(float(x.std()), deviation, delta=0.02)

  def test_eta_0_adds_nothing_on_the_way(self):
    predict = lambda x_BYWU, time_B: 0.5 * x_BYWU
    start_key, _ = jax.random.split(jax.random.key(3))
    x = diffusion.sample(predict, (1, 2, 2, 1), 1, 0.0, jax.random.key(3))
    alpha, sigma = diffusion.signal_and_noise(jnp.float32(diffusion.LAST_TIME))
    start = jax.random.normal(start_key, (1, 2, 2, 1))
    np.testing.assert_allclose(
        x, jnp.clip((1 - 0.5 * sigma) * start / alpha, -1, 1), rtol=1e-5)

  @parameterized.parameters((-0.1, 2), (1.1, 2), (0.5, 0))
  def test_a_sampler_out_of_range_is_refused(self, eta, num_steps):
    with self.assertRaisesRegex(ValueError, 'Correct the sampler'):
      diffusion.sample(lambda x, t: x, (1, 2, 2, 1), num_steps, eta,
                       jax.random.key(0))


class ErrorsTest(absltest.TestCase):

  def test_both_images_of_a_pair_are_under_one_noise(self):
    # Alike images then have alike errors, which other noise would not give.
    model, params = small()
    errors = denoising.make_error_fn(model)
    batch = denoising.make_draw(6)(data(), jax.random.key(1))
    twin = batch.replace(image_BGYWU=batch.image_BGYWU[:, :1].repeat(2, 1))
    params = jax.tree.map(lambda x: x + 0.1, params)
    error_BG = errors(params, twin)
    np.testing.assert_array_equal(error_BG[:, 0], error_BG[:, 1])
    other = twin.replace(noise_BYWU=batch.noise_BYWU[::-1])
    self.assertGreater(np.abs(errors(params, other) - error_BG).min(), 1e-6)

  def test_noise_of_each_image_has_no_place(self):
    model, params = small()
    batch = denoising.make_draw(6)(data(), jax.random.key(1))
    errors = denoising.make_error_fn(model)
    with self.assertRaises(AssertionError):
      errors(params, batch.replace(
          noise_BYWU=jnp.stack([batch.noise_BYWU] * 2, axis=1)))
    with self.assertRaises(AssertionError):
      errors(params, batch.replace(time_B=jnp.zeros((6, 2))))

  def test_the_reference_sees_the_same_noise_and_gets_no_gradient(self):
    model, params = small()
    errors = denoising.make_error_fn(model)
    rows = data() | {'reference': params}
    batch = denoising.make_draw(6, errors)(rows, jax.random.key(1))
    np.testing.assert_allclose(batch.ref_error_BG, errors(params, batch),
                               rtol=1e-6)

  def test_rows_without_weight_are_never_drawn(self):
    rows = data()
    rows['weight_R'] = jnp.zeros(8).at[3].set(1.0)
    batch = denoising.make_draw(6)(rows, jax.random.key(1))
    np.testing.assert_array_equal(
        batch.image_BGYWU, jnp.stack([rows['image_RGYWU'][3]] * 6))


class TrainTest(absltest.TestCase):

  def test_learns_two_classes_and_resumes_alike(self):
    # Class 0 is all -0.7, class 1 all 0.7.
    model, params = small()
    errors = denoising.make_error_fn(model)
    objective, optimizer = losses.get('denoising', 'mse'), optax.adam(5e-3)
    class_R = jnp.array([0, 1], jnp.int32)
    rows = dict(image_RGYWU=jnp.full((2, 1, 2, 2, 1), 0.7) * jnp.array(
        [-1.0, 1.0])[:, None, None, None, None], class_R=class_R,
                weight_R=jnp.ones(2))
    loss_fn = lambda p, batch: objective.loss(errors(p, batch), batch)
    make = lambda steps: fit.make_fit_fn(loss_fn, optimizer,
                                         denoising.make_draw(64), steps)
    key = jax.random.key(1)
    whole, metrics = make(400)(fit.create(params, optimizer), rows, key)
    half = make(200)
    parts, _ = half(half(fit.create(params, optimizer), rows, key)[0], rows,
                    key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
                 parts.params, whole.params)
    self.assertLess(float(metrics['loss']), 0.3)
    sample = denoising.make_sample_fn(model, 20, 0.0)
    x = sample(whole.params, jnp.repeat(class_R, 50), jax.random.key(2))
    np.testing.assert_allclose(x.reshape(2, -1).mean(1), [-0.7, 0.7], atol=0.1)


if __name__ == '__main__':
  absltest.main()
