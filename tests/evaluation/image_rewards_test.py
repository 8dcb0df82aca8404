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


class PaidTest(parameterized.TestCase):

  def test_share_of_the_gap(self):
    # Outputs 0, 2 (mean 1, deviation 1), targets 5: gap 4, edits 1 and 3.
    found = image_rewards.paid([1, 5], [0, 2], [5, 5], seed=0)
    self.assertAlmostEqual(found.estimate, 2 / 4)
    # Twice the scores, or other zero: the same share.
    again = image_rewards.paid([12, 20], [10, 14], [20, 20], seed=0)
    self.assertAlmostEqual(again.estimate, found.estimate)
    self.assertAlmostEqual(again.low, found.low)

  def test_without_a_gap_the_unit_is_the_deviation(self):
    # Targets below outputs: gap -1, deviation 2.
    found = image_rewards.paid([2, 6], [0, 4], [1], seed=0)
    self.assertAlmostEqual(found.estimate, 2 / 2)

  def test_a_reward_that_ignores_all_pays_nothing(self):
    found = image_rewards.paid([.5] * 4, [.5] * 4, [.5] * 3, seed=0)
    self.assertEqual((found.estimate, found.low, found.high), (0, 0, 0))

  def test_the_same_images_are_compared(self):
    # Outputs differ by far more than the edit does. Paired, it is seen; were
    # the edited ones others, the interval would hold 0.
    rng = np.random.default_rng(0)
    plain_R, targets_R = rng.normal(0, 1, 200), rng.normal(2, 1, 200)
    found = image_rewards.paid(plain_R + 0.1, plain_R, targets_R, seed=1)
    self.assertGreater(found.low, 0.04)
    self.assertLess(found.high, 0.06)
    other = image_rewards.paid(rng.normal(0.1, 1, 200), plain_R, targets_R,
                               seed=1)
    self.assertLess(other.low, 0)

  def test_interval_covers_the_truth(self):
    # Gap 2, edit 1 on average: 1/2, in 95 of 100 draws.
    rng, inside = np.random.default_rng(2), 0
    for seed in range(100):
      plain_R = rng.normal(0, 1, 60)
      found = image_rewards.paid(plain_R + rng.normal(1, 1, 60), plain_R,
                                 rng.normal(2, 1, 60), seed=seed,
                                 num_resamples=400)
      inside += found.low <= 0.5 <= found.high
    self.assertBetween(inside, 88, 100)

  @parameterized.parameters(
      ([1.0], [1.0, 2.0], [1.0]), ([np.nan], [1.0], [1.0]), ([], [], [1.0]),
      ([1.0], [1.0], []))
  def test_scores_that_do_not_match_are_refused(self, edited, plain, targets):
    with self.assertRaisesRegex(ValueError, 'Score again'):
      image_rewards.paid(edited, plain, targets, seed=0)


if __name__ == '__main__':
  absltest.main()
