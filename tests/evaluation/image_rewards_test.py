"""Distances of image sets, and what shows that a reward took a shortcut."""
from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from rljax.evaluation import image_rewards


class FrechetTest(parameterized.TestCase):

  def test_of_two_gaussians_on_a_line(self):
    # (m - m')² + (s - s')²
    x = np.random.default_rng(0).normal(size=(200, 1))
    x = (x - x.mean()) / x.std(ddof=1)
    self.assertAlmostEqual(image_rewards.frechet_distance(x, 3 * x + 2), 8.0)
    self.assertAlmostEqual(image_rewards.frechet_distance(x, x), 0.0)

  def test_rotation_of_both_changes_nothing(self):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(50, 3)), 2 * rng.normal(size=(60, 3)) + 1
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    found = image_rewards.frechet_distance(a, b)
    self.assertAlmostEqual(found, image_rewards.frechet_distance(b, a))
    self.assertAlmostEqual(found, image_rewards.frechet_distance(a @ turn,
                                                                 b @ turn))

  def test_bad_shapes_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'Use more images'):
      image_rewards.frechet_distance(np.ones((1, 2)), np.ones((3, 2)))


class ScoresTest(parameterized.TestCase):

  @parameterized.parameters(([3, 4], [1, 2], 1.0), ([1, 2], [3, 4], 0.0),
                            ([1, 3], [2, 2], 0.5), ([1, 1], [1, 1], 0.5),
                            ([1, 3], [0, 2], 0.75))
  def test_auc(self, higher, lower, expected):
    self.assertEqual(image_rewards.auc(higher, lower), expected)

  def test_accuracy_is_balanced(self):
    # All outputs wrong, all targets right.
    self.assertEqual(image_rewards.accuracy([0.9], [0.8] * 9), 0.5)
    self.assertEqual(image_rewards.accuracy([0.9, 0.2], [0.1] * 9), 0.75)

  def test_a_gap_between_known_and_new_targets_fails_above_a_bound(self):
    gap = image_rewards.memorisation([0.9, 1.0], [0.4, 0.5])
    self.assertAlmostEqual(gap, 0.5)
    image_rewards.check_memorisation(gap, 0.6)
    with self.assertRaisesRegex(ValueError, 'by heart.*max_memorisation'):
      image_rewards.check_memorisation(gap, 0.4)

  def test_diversity_is_a_mean_distance(self):
    # Corners of a 3-4-5 triangle.
    self.assertAlmostEqual(
        image_rewards.diversity([[0, 0], [3, 0], [0, 4]]), 4.0)
    self.assertEqual(image_rewards.diversity([[1, 2]] * 3), 0.0)


class ShortcutTest(absltest.TestCase):

  def test_a_reward_for_the_mark_is_flagged_and_one_for_content_is_not(self):
    rng = np.random.default_rng(0)
    content = {'bad': rng.normal(0, 0.2, 50), 'good': rng.normal(1, 0.2, 50)}
    for price, flagged in ((0.0, False), (0.3, False), (3.0, True)):
      found = image_rewards.shortcut(content['bad'] + price, content['bad'],
                                     content['good'])
      self.assertEqual(found.flagged, flagged)
      self.assertAlmostEqual(found.effect, price)


if __name__ == '__main__':
  absltest.main()
