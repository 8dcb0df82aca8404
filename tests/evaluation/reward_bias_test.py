"""Biases that are planted are found, and others are not reported."""
from absl.testing import absltest
import numpy as np

from rljax.evaluation import reward_bias

NAN = np.nan


class LengthTest(absltest.TestCase):

  def test_by_hand(self):
    # right - wrong lengths 5, -5, 5, -5, 0; preferred: right, wrong, right,
    # right. The longer one wins pairs 1, 2, 3: 3/4; it is right in 2 of 4.
    found = reward_bias.length_bias(
        [1, 0, 1, 1, 1], [10, 5, 10, 5, 7], [5, 10, 5, 10, 7], seed=0)
    self.assertEqual((found.num_pairs, found.same_length), (4, 1))
    self.assertAlmostEqual(found.longer_wins.estimate, 0.75)
    self.assertAlmostEqual(found.longer_is_right.estimate, 0.5)
    self.assertAlmostEqual(found.excess.interval.estimate, 0.25)
    self.assertEqual(found.right_is_longer.estimate, 1.0)
    self.assertEqual(found.right_is_shorter.estimate, 0.5)

  def test_a_judge_of_length_and_one_of_quality(self):
    rng = np.random.default_rng(0)
    right, wrong = rng.integers(10, 100, size=(2, 400))
    by_length = (right > wrong).astype(float)
    found = reward_bias.length_bias(by_length, right, wrong, seed=0)
    self.assertEqual(found.longer_wins.estimate, 1.0)
    self.assertGreater(found.excess.interval.low, 0.4)
    fair = reward_bias.length_bias(np.ones(400), right, wrong, seed=0)
    self.assertEqual(fair.excess.interval.estimate, 0.0)
    self.assertEqual(fair.excess.p_value, 1.0)

  def test_data_whose_right_answers_are_longer_is_no_bias(self):
    # The longer one wins nine of ten, and should.
    right = np.where(np.arange(100) < 90, 9, 1)
    found = reward_bias.length_bias(np.ones(100), right, np.full(100, 5),
                                    seed=0)
    self.assertAlmostEqual(found.longer_wins.estimate, 0.9)
    self.assertEqual(found.excess.interval.estimate, 0.0)

  def test_bins_hold_every_pair_once(self):
    rng = np.random.default_rng(0)
    right, wrong = rng.integers(0, 50, size=(2, 300))
    found = reward_bias.length_bias(np.ones(300), right, wrong, seed=0)
    self.assertEqual(sum(row['count'] for row in found.by_difference),
                     found.num_pairs)
    edges = [(row['low'], row['high']) for row in found.by_difference]
    self.assertEqual(edges, sorted(edges))

  def test_ties_count_half_and_silence_is_counted(self):
    found = reward_bias.length_bias([0.5, 0.5, NAN], [2, 2, 2], [1, 1, 1],
                                    seed=0)
    self.assertEqual((found.num_pairs, found.undecided), (2, 1))
    self.assertEqual(found.longer_wins.estimate, 0.5)
    self.assertIsNone(found.right_is_shorter)


class PositionTest(absltest.TestCase):

  def test_by_hand(self):
    # First in both; right in both; wrong in both; second in both; silent.
    found = reward_bias.position_bias(
        [[1, 0], [1, 1], [0, 0], [0, 1], [NAN, 1]], seed=0)
    self.assertEqual((found.num_pairs, found.undecided), (4, 1))
    self.assertAlmostEqual(found.first_wins.estimate, 0.5)
    self.assertAlmostEqual(found.consistent.estimate, 0.5)
    self.assertEqual((found.first_both, found.second_both), (0.25, 0.25))

  def test_always_the_first(self):
    found = reward_bias.position_bias([[1, 0]] * 9, seed=0)
    self.assertEqual(found.first_wins.estimate, 1.0)
    self.assertEqual(found.consistent.estimate, 0.0)

  def test_accuracy_is_not_bias(self):
    for verdict in (0.0, 1.0):  # always wrong, always right
      found = reward_bias.position_bias([[verdict, verdict]] * 9, seed=0)
      self.assertEqual(found.first_wins.estimate, 0.5)
      self.assertEqual(found.consistent.estimate, 1.0)

  def test_a_tie_agrees_with_a_tie_only(self):
    found = reward_bias.position_bias([[0.5, 0.5], [0.5, 1]], seed=0)
    self.assertEqual(found.consistent.estimate, 0.5)
    self.assertAlmostEqual(found.first_wins.estimate, (0.5 + 0.25) / 2)


class PolicyTest(absltest.TestCase):

  def test_an_overrated_policy(self):
    # a beats b in 1 of 4 pairs; the model prefers a every time.
    right, wrong = ['a', 'b', 'b', 'b', 'a'], ['b', 'a', 'a', 'a', 'a']
    rows = reward_bias.policy_bias([1, 0, 0, 0, 1], right, wrong, seed=0)
    a, b = rows
    self.assertEqual((a['policy'], a['pairs'], b['pairs']), ('a', 4, 4))
    self.assertEqual(a['wins'].estimate, 1.0)
    self.assertEqual(a['should_win'].estimate, 0.25)
    self.assertAlmostEqual(a['excess'].interval.estimate, 0.75)
    self.assertAlmostEqual(b['excess'].interval.estimate, -0.75)

  def test_a_right_model_overrates_nobody(self):
    rows = reward_bias.policy_bias(np.ones(6), list('aabbca'), list('bccaab'),
                                   seed=0)
    self.assertEqual([row['excess'].interval.estimate for row in rows],
                     [0.0, 0.0, 0.0])


if __name__ == '__main__':
  absltest.main()
