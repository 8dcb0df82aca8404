"""Best of n, SFT rows and DPO pairs from scores."""
from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from rljax.data import best_of_n

SCORE_PG = [[.2, .9, .4], [.5, .5, .5], [.8, .1, .7]]


class BestOfNTest(parameterized.TestCase):

  def test_best_of_each_prompt_and_the_first_of_equals(self):
    np.testing.assert_array_equal(best_of_n.best(SCORE_PG), [1, 0, 0])

  def test_quality_never_falls_with_n_for_an_oracle(self):
    quality_PG = np.random.default_rng(0).normal(size=(200, 16))
    means, noise = [], []
    for n in (1, 2, 4, 8, 16):
      part_PG = quality_PG[:, :n]
      take = lambda place_P: part_PG[np.arange(200), place_P].mean()
      means.append(take(best_of_n.best(part_PG)))
      blind_PG = np.random.default_rng(n).normal(size=part_PG.shape)
      noise.append(take(best_of_n.best(blind_PG)))
    self.assertTrue(np.all(np.diff(means) > 0))
    # Of n = 16 standard normals the best is expected at 1.766.
    self.assertAlmostEqual(means[-1], 1.766, delta=0.15)
    self.assertLess(np.abs(noise).max(), 0.3)  # a blind score gains nothing

  def test_sft_keeps_what_scores_high(self):
    best_P, keep_P = best_of_n.supervised(SCORE_PG, quantile=0.75)
    np.testing.assert_array_equal(best_P, [1, 0, 0])
    np.testing.assert_array_equal(keep_P, [True, False, True])
    np.testing.assert_array_equal(best_of_n.supervised(SCORE_PG)[1], True)

  def test_pairs_are_of_one_prompt_and_ordered(self):
    found = best_of_n.pairs(SCORE_PG, min_gap=0.7)
    np.testing.assert_array_equal(found.chosen_P, [1, 0, 0])
    np.testing.assert_array_equal(found.rejected_P[[0, 2]], [0, 1])
    np.testing.assert_array_equal(found.keep_P, [True, False, True])
    scores = np.array(SCORE_PG)
    for row in np.flatnonzero(found.keep_P):
      self.assertGreater(scores[row, found.chosen_P[row]],
                         scores[row, found.rejected_P[row]])
    np.testing.assert_array_equal(
        best_of_n.pairs(SCORE_PG, min_gap=0.75).keep_P, [False] * 3)
    np.testing.assert_array_equal(best_of_n.pairs(SCORE_PG).keep_P,
                                  [True, False, True])  # a tie is no pair

  def test_one_sample_makes_no_pair(self):
    self.assertFalse(best_of_n.pairs([[.2], [.9]]).keep_P.any())

  @parameterized.parameters(
      (lambda: best_of_n.best([[0.1, float('nan')]]), 'NaN'),
      (lambda: best_of_n.best([0.1]), 'prompts and their samples'),
      (lambda: best_of_n.supervised(SCORE_PG, 1.0), 'quantile'),
      (lambda: best_of_n.pairs(SCORE_PG, -1.0), 'min_gap'))
  def test_bad_input_is_refused(self, call, message):
    with self.assertRaisesRegex(ValueError, message):
      call()


if __name__ == '__main__':
  absltest.main()
