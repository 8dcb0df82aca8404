import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax.ops import surrogate

ZEROS = np.zeros((2, 3), np.float32)


def call(ratio, advantage, weight, ref_logp=None, transform=lambda f: f, **kw):
  """The loss at old log-probability 0, so that ratio = exp(logp)."""
  kw = dict(clip_low=0.2, clip_high=0.2, kl_coef=0.0) | kw
  loss_fn = transform(functools.partial(surrogate.clipped_loss, **kw))
  arrays = [np.asarray(x, np.float32) for x in (advantage, weight)]
  return loss_fn(jnp.log(jnp.asarray(ratio, jnp.float32)), ZEROS,
                 ref_logp, *arrays)


class SurrogateTest(parameterized.TestCase):

  @parameterized.named_parameters(('eager', lambda f: f), ('jit', jax.jit))
  def test_hand_computed(self, transform):
    #   ratio      1.5   0.5   1.1      1.5   0.5   9.0
    #   A          1     1     2       -1    -1     1
    #   min(...)   1.2   0.5   2.2     -1.5  -0.8   (weight 0)
    #   clipped    yes   no    no       no    yes   -
    # Weight 1/5: gain = (1.2 + 0.5 + 2.2 - 1.5 - 0.8) / 5 = 0.32.
    ratio = [[1.5, 0.5, 1.1], [1.5, 0.5, 9.0]]
    advantage = [[1, 1, 2], [-1, -1, 1]]
    weight = [[0.2, 0.2, 0.2], [0.2, 0.2, 0.0]]
    loss, metrics = call(ratio, advantage, weight, transform=transform)
    np.testing.assert_allclose(loss, -0.32, rtol=1e-5)
    np.testing.assert_allclose(metrics['surrogate'], 0.32, rtol=1e-5)
    np.testing.assert_allclose(metrics['clip_fraction'], 0.4, rtol=1e-5)
    # (1.5 + 0.5 + 1.1 + 1.5 + 0.5) / 5 = 1.02
    np.testing.assert_allclose(metrics['ratio'], 1.02, rtol=1e-5)

  def test_gradient_vanishes_exactly_where_the_clip_binds(self):
    # Where it does not, d(ratio A)/d logp = ratio A.
    ratio = np.array([[1.5, 0.5, 1.1], [1.5, 0.5, 1.0]], np.float32)
    advantage = np.array([[1, 1, 2], [-1, -1, 1]], np.float32)
    grad_BT = jax.grad(lambda x: surrogate.clipped_loss(
        x, ZEROS, None, advantage, ZEROS + 0.5, clip_low=0.2, clip_high=0.2,
        kl_coef=0.0)[0])(jnp.log(ratio))
    free_BT = np.array([[0, 1, 1], [1, 0, 1]])
    np.testing.assert_allclose(
        grad_BT, -0.5 * free_BT * ratio * advantage, rtol=1e-5)

  def test_bounds_are_separate(self):
    # A = 1 at ratio 1.25: inside [1 - 0.1, 1 + 0.3], outside [.., 1 + 0.1].
    ratio, ones = np.full((2, 3), 1.25), np.ones((2, 3))
    wide, _ = call(ratio, ones, ones, clip_low=0.1, clip_high=0.3)
    narrow, _ = call(ratio, ones, ones, clip_low=0.3, clip_high=0.1)
    np.testing.assert_allclose(wide, -6 * 1.25, rtol=1e-5)
    np.testing.assert_allclose(narrow, -6 * 1.1, rtol=1e-5)

  def test_penalty_is_linear_in_its_coefficient(self):
    # At ratio 1 and log π_ref = -log 2: k3 = 1/2 - 1 + log 2 = 0.193147.
    ones, ref = np.ones((2, 3)), np.full((2, 3), -np.log(2), np.float32)
    at = lambda coef: call(ones, ones, ones / 6, ref, kl_coef=coef)[0]
    np.testing.assert_allclose(at(0.0), -1.0, rtol=1e-6)
    np.testing.assert_allclose(at(0.1) - at(0.0), 0.0193147, rtol=1e-4)
    np.testing.assert_allclose(at(0.3) - at(0.0), 0.0579441, rtol=1e-4)

  def test_reference_may_be_absent_only_without_a_penalty(self):
    ones = np.ones((2, 3))
    _, metrics = call(ones, ones, ones)
    self.assertNotIn('kl', metrics)
    with self.assertRaisesRegex(ValueError, 'ref_logp_BT=None.*kl_coef=0'):
      call(ones, ones, ones, kl_coef=0.1)

  def test_unused_penalty_cannot_spoil_the_loss(self):
    ones = np.ones((2, 3))
    loss, metrics = call(ones, ones, ones / 6, np.full((2, 3), 200, np.float32))
    self.assertTrue(np.isinf(metrics['kl']))
    np.testing.assert_allclose(loss, -1.0)

  @parameterized.parameters(
      dict(clip_low=-0.1), dict(clip_low=1.5), dict(clip_high=-1.0),
      dict(kl_coef=-1.0))
  def test_impossible_hyper_parameters_are_refused(self, **kw):
    ones = np.ones((2, 3))
    with self.assertRaisesRegex(ValueError, 'Expected'):
      call(ones, ones, ones, np.zeros((2, 3), np.float32), **kw)


if __name__ == '__main__':
  absltest.main()
