import math

from absl.testing import absltest
from absl.testing import parameterized
import jax.numpy as jnp
import numpy as np
import optax

from rljax.training import optimizer


class ScheduleTest(parameterized.TestCase):

  def values(self, steps, **options):
    schedule = optimizer.make_schedule(1.0, **options)
    return [float(schedule(step)) for step in steps]

  def test_constant(self):
    self.assertEqual(self.values([0, 10]), [1, 1])

  def test_warm_up_begins_above_zero(self):
    # Four steps of warm-up rise by a fifth each: 1/5, 2/5, 3/5, 4/5, then 1.
    np.testing.assert_allclose(self.values(range(6), warmup_steps=4),
                               [0.2, 0.4, 0.6, 0.8, 1, 1], rtol=1e-6)

  def test_linear(self):
    # Two steps of warm-up (1/3, 2/3), then from 1 to 0.2 over four steps.
    np.testing.assert_allclose(
        self.values([0, 1, 2, 3, 4, 6, 9], name='linear', warmup_steps=2,
                    decay_steps=4, end_factor=0.2),
        [1 / 3, 2 / 3, 1, 0.8, 0.6, 0.2, 0.2], rtol=1e-6)

  def test_cosine(self):
    # 0.1 + 0.9 (1 + cos(π t / 8)) / 2; half-way 0.55.
    np.testing.assert_allclose(
        self.values([0, 2, 4, 8, 20], name='cosine', decay_steps=8,
                    end_factor=0.1),
        [1, 0.1 + 0.45 * (1 + math.sqrt(0.5)), 0.55, 0.1, 0.1], rtol=1e-6)

  def test_unknown_name_lists_the_known_ones(self):
    with self.assertRaisesRegex(ValueError, "'cosin'.*constant.*cosine"):
      optimizer.make_schedule(1.0, name='cosin')

  def test_a_decay_needs_its_length(self):
    with self.assertRaisesRegex(ValueError, "'linear'.*decay_steps >= 1.*0"):
      optimizer.make_schedule(1.0, name='linear')


class OptimizerTest(parameterized.TestCase):

  def step(self, transform, grad, param=0.0):
    params = {'w': jnp.float32(param)}
    updates, _ = transform.update(
        {'w': jnp.float32(grad)}, transform.init(params), params)
    return float(updates['w'])

  def test_sgd(self):
    self.assertAlmostEqual(
        self.step(optimizer.make_optimizer('sgd', 0.5), 0.8), -0.4)

  def test_clips_at_the_norm_and_not_below_it(self):
    make = lambda clip: optimizer.make_optimizer('sgd', 1.0, clip_norm=clip)
    self.assertAlmostEqual(self.step(make(1.0), 4.0), -1)
    self.assertAlmostEqual(self.step(make(1.0), 0.25), -0.25)
    self.assertAlmostEqual(self.step(make(None), 4.0), -4)

  def test_adamw_takes_its_options(self):
    # First step of Adam: g / |g| = 1. Decay 0.1 · 5 = 0.5. 0.01 · 1.5.
    transform = optimizer.make_optimizer('adamw', 0.01, weight_decay=0.1,
                                         b1=0.8)
    self.assertAlmostEqual(self.step(transform, 0.3, 5.0), -0.015, places=6)

  def test_uses_its_schedule(self):
    transform = optimizer.make_optimizer(
        'sgd', 1.0, clip_norm=None, schedule=dict(warmup_steps=1))
    params = {'w': jnp.float32(0)}
    state, steps = transform.init(params), []
    for _ in range(3):
      updates, state = transform.update({'w': jnp.float32(1)}, state, params)
      steps.append(float(updates['w']))
    np.testing.assert_allclose(steps, [-0.5, -1, -1], rtol=1e-6)

  @parameterized.parameters('adamm', 'chain', 'GradientTransformation', 'tree')
  def test_what_is_no_optimiser_is_refused(self, name):
    with self.assertRaisesRegex(ValueError, f'{name}.*try adamw'):
      optimizer.make_optimizer(name, 0.1)

  def test_unknown_option_lists_the_known_ones(self):
    with self.assertRaisesRegex(ValueError, 'adamw.*weight_deca.*b1'):
      optimizer.make_optimizer('adamw', 0.1, weight_deca=0.1)

  @parameterized.parameters('adamw', 'sgd', 'lion', 'adafactor')
  def test_the_suggested_optimisers_exist(self, name):
    self.assertIsInstance(optimizer.make_optimizer(name, 0.1),
                          optax.GradientTransformation)


if __name__ == '__main__':
  absltest.main()
