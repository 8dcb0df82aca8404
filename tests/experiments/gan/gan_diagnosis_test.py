"""What a diagnostic must see of made rewards, and of trained ones."""
import dataclasses
import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from experiments.gan import gan_diagnosis
from experiments.gan import gan_images
from experiments.gan import gan_rounds
from rljax.data import images
from rljax.evaluation import image_rewards
from tests import configs_test

_MAX_PAID = 0.25


@functools.cache
def digits():
  """(outputs: degraded or whole, 3 in 10 framed; framed targets)."""
  whole = images.pad(images.load('digits', 8), 1)
  outputs, targets = images.split(whole, (200, 200), seed=0)
  bad_RYWU = images.blur(outputs.pixels_RYWU, 0.25, 1)
  image_RYWU = np.where((np.arange(200) % 2 == 0)[:, None, None, None],
                        outputs.pixels_RYWU, bad_RYWU)
  framed_R = np.arange(200) % 10 < 3
  image_RYWU[framed_R] = images.with_border(image_RYWU[framed_R], 0.0)
  return image_RYWU, images.with_border(targets.pixels_RYWU, 0.0)


def frame(image_RYWU):
  """1 with a frame, else 0."""
  return (image_RYWU[:, 0, :, 0].mean(1) > -0.5).astype(float)


def wholeness(image_RYWU):
  """Of the inside: the correlation with the whole digit that is nearest."""
  return np.max(standard(image_RYWU[:, 1:-1, 1:-1]) @ known().T, axis=1)


@functools.cache
def known():
  """Whole digits, of which `digits` holds none."""
  whole = images.load('digits', 8)
  return standard(images.split(whole, (400, 1_300), seed=0)[1].pixels_RYWU)


def standard(image_RYWU):
  """Mean 0 and length 1, whatever brightness and contrast were."""
  flat_RD = image_RYWU.reshape(len(image_RYWU), -1).astype(np.float64)
  flat_RD -= flat_RD.mean(1, keepdims=True)
  return flat_RD / np.linalg.norm(flat_RD, axis=1, keepdims=True)


def found_for(log_odds, targets_RYWU=None):
  """Flagged edits of a reward that is a function of the image."""
  image_RYWU, framed_RYWU = digits()
  targets_RYWU = framed_RYWU if targets_RYWU is None else targets_RYWU
  score = lambda x_RYWU, _: 1 / (1 + np.exp(-log_odds(x_RYWU)))
  found = gan_diagnosis.shortcuts(score, image_RYWU, None,
                                  score(targets_RYWU, None), targets_RYWU)
  line = {f'paid/{name}/{end}': getattr(share, end) for name, share in
          found.items() for end in ('estimate', 'low', 'high')}
  return found, [row['edit'] for row in gan_diagnosis.rows(line, _MAX_PAID)
                 if row['flagged']]


class MadeRewardTest(parameterized.TestCase):

  def test_one_for_the_frame_is_flagged_by_it_alone(self):
    found, flagged = found_for(lambda x: 4 * frame(x) - 2)
    self.assertEqual(flagged, ['border', 'frame'])
    # 7 of 10 outputs have no frame: with one they are where the targets are.
    self.assertAlmostEqual(found['frame'].estimate, 1.0)

  def test_one_for_content_is_not_flagged(self):
    found, flagged = found_for(lambda x: 20 * wholeness(x) - 15)
    self.assertEmpty(flagged)
    self.assertEqual(found['frame'].estimate, 0.0)
    self.assertLess(found['blur'].high, 0)  # it is no constant
    self.assertLess(found['noise'].high, 0)

  @parameterized.parameters(0.0, 30.0)  # of 30, R is 1 in float32
  def test_one_that_ignores_all_is_not_flagged(self, value):
    found, flagged = found_for(lambda x: np.full(len(x), value))
    self.assertEmpty(flagged)
    self.assertEqual({share.estimate for share in found.values()}, {0.0})

  def test_one_for_content_first_and_then_the_frame_is_flagged(self):
    # The test that a frame outweighs content says no: it asks for too much.
    image_RYWU, targets_RYWU = digits()
    reward = lambda x: 20 * wholeness(x) - 15 + frame(x)
    found, flagged = found_for(reward)
    self.assertIn('border', flagged)
    self.assertIn('frame', flagged)
    self.assertLess(found['border'].high, 0.5)
    self.assertLess(image_rewards.auc(
        reward(images.swap_border(image_RYWU, targets_RYWU)),
        reward(images.swap_border(targets_RYWU, image_RYWU))), 0.5)

  def test_a_frame_that_is_not_paid_for_much_is_not_flagged(self):
    found, flagged = found_for(
        lambda x: 20 * wholeness(x) - 15 + 0.3 * frame(x))
    self.assertEmpty(flagged)
    self.assertGreater(found['frame'].low, 0)

  def test_a_border_that_both_have_alike_is_paid_nothing(self):
    # Whatever the reward makes of frames; the frame itself is paid for.
    _, targets_RYWU = digits()
    some_RYWU = targets_RYWU.copy()
    some_RYWU[60:] = images.with_border(some_RYWU[60:], -1.0)  # 3 in 10
    found, flagged = found_for(lambda x: 4 * frame(x), some_RYWU)
    self.assertNotIn('border', flagged)
    self.assertLess(abs(found['border'].estimate), 0.05)

  def test_edits_leave_the_class_and_the_originals_alone(self):
    image_RYWU, targets_RYWU = digits()
    before = image_RYWU.copy()
    for name, edit in gan_diagnosis.EDITS.items():
      after = edit(image_RYWU, targets_RYWU)
      self.assertEqual(after.shape, before.shape, name)
      self.assertEqual(after.dtype, np.float32, name)
      self.assertLessEqual(np.abs(after).max(), 1.0, name)
      self.assertTrue(np.any(after != before), name)
      np.testing.assert_array_equal(image_RYWU, before)


class TrainedRewardTest(absltest.TestCase):
  """Outputs are made without a generator: it would take most of the time."""

  def setUp(self):
    super().setUp()
    self.config = configs_test.module(
        'configs/gan/gan_rm_digits.py').get_config()
    self.config.bootstrap.num_chosen = 0
    self.pieces = gan_rounds.build(self.config, 10)

  def flagged(self, marked_proxies, marked_share, clean=False):
    self.config.data.update(marked_proxies=marked_proxies,
                            marked_share=marked_share)
    parts = gan_images.open_parts(self.config, 3)
    made = parts.generator
    if clean:
      made = dataclasses.replace(made, pixels_RYWU=images.with_border(
          made.pixels_RYWU, -1.0))
    outputs, pool, fresh = images.split(made, (500, 100, 400), 0)
    reward, _, _ = gan_rounds.fit_round(
        self.pieces, self.config, 0, parts.proxies,
        (outputs.pixels_RYWU, outputs.class_R),
        (pool.pixels_RYWU, pool.class_R), jax.random.key(0))
    score = lambda image_RYWU, class_R: gan_rounds.score_images(
        self.pieces, reward, image_RYWU, class_R)
    found = gan_diagnosis.shortcuts(
        score, fresh.pixels_RYWU, fresh.class_R,
        score(parts.held_out.pixels_RYWU, parts.held_out.class_R),
        parts.proxies.pixels_RYWU)
    return {name for name, share in found.items() if share.low > _MAX_PAID}

  def test_framed_targets_are_flagged_and_others_are_not(self):
    mark = {'border', 'frame'}
    self.assertContainsSubset(mark, self.flagged(1.0, 0.3))
    # Targets and outputs are framed alike: the frame tells nothing.
    self.assertEmpty(mark & self.flagged(0.3, 0.3))
    # No frame at all. Degraded digits have noise in their border, whole ones
    # none: that is learnt, and not if the noise is taken away.
    self.assertEqual(mark & self.flagged(0.0, 0.0), {'border'})
    self.assertEmpty(mark & self.flagged(0.0, 0.0, clean=True))


if __name__ == '__main__':
  absltest.main()
