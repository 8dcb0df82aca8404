"""Calibration of oracles that are calibrated, and of those that are not."""
from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from scipy import special

from rljax.evaluation import calibration


def margins(num_pairs=3_000, scale=1.0, seed=0):
  """Margins of the better response of a Bradley-Terry oracle, times a scale."""
  rng = np.random.default_rng(seed)
  difference = rng.normal(0, 2, num_pairs)
  first_is_better = rng.random(num_pairs) < special.expit(difference)
  return scale * np.where(first_is_better, difference, -difference)


class MeasureTest(parameterized.TestCase):

  def test_a_constant_predictor(self):
    # 0.9 every time, right 7 times of 10: |0.9 - 0.7|; Brier 0.7 · 0.01 +
    # 0.3 · 0.81; NLL -0.7 log 0.9 - 0.3 log 0.1.
    p, y = np.full(10, 0.9), np.arange(10) < 7
    self.assertAlmostEqual(calibration.ece(p, y), 0.2)
    self.assertAlmostEqual(calibration.brier(p, y).mean(), 0.25)
    np.testing.assert_allclose(
        calibration.nll(special.logit(p), y).mean(),
        -0.7 * np.log(0.9) - 0.3 * np.log(0.1))

  def test_two_bins_by_hand(self):
    # [0.2, 0.4] right 1 of 2: |0.3 - 0.5|; [0.6, 1.0] right 2 of 2: |0.8 - 1|.
    p, y = [0.2, 0.4, 0.6, 1.0], [1, 0, 1, 1]
    self.assertAlmostEqual(calibration.ece(p, y, num_bins=2), 0.2)
    low, high = calibration.reliability(p, y, num_bins=2)
    self.assertEqual((low.count, high.count), (2, 2))
    self.assertAlmostEqual(high.predicted, 0.8)

  def test_the_likelihood_of_huge_scores_is_finite(self):
    found = calibration.nll([1e4, -1e4], [False, True])
    np.testing.assert_allclose(found, [1e4, 1e4])

  def test_an_oracle_is_at_its_floor(self):
    found = calibration.summarize(margins(), seed=0)
    self.assertLess(found.ece, 2 * found.floor)
    self.assertLess(found.floor, 0.04)

  def test_overconfidence_is_above_its_floor(self):
    found = calibration.summarize(margins(scale=4.0), seed=0)
    self.assertGreater(found.ece, 4 * found.floor)

  def test_without_a_drawn_order_a_calibrated_model_looks_bad(self):
    # The wrong variant: the better response always first, y always 1.
    margin = margins()
    wrong = calibration.ece(special.expit(margin), np.ones(len(margin)))
    self.assertGreater(wrong, 0.2)
    self.assertLess(calibration.summarize(margin, seed=0).ece, 0.04)

  def test_smoothed_labels_are_underconfident_on_clean_data(self):
    # Confidence ends at 1 - ε = 0.9, and every pair is right: ECE = 0.1.
    found = calibration.summarize(np.full(3_000, special.logit(0.9)), seed=0)
    self.assertAlmostEqual(found.ece, 0.1, delta=1e-2)

  def test_what_cannot_be_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'with 1 that are not'):
      calibration.summarize([1.0, np.nan], seed=0)
    with self.assertRaisesRegex(ValueError, r'in \[0, 1\]'):
      calibration.ece([1.2], [1])
    with self.assertRaisesRegex(ValueError, 'above 0, got 0'):
      calibration.summarize([1.0, 2.0], seed=0, temperature=0)


class TemperatureTest(parameterized.TestCase):

  @parameterized.parameters(0.25, 1.0, 3.0)
  def test_the_scale_of_the_scores_is_found(self, scale):
    difference, better = calibration.in_drawn_order(margins(20_000, scale), 0)
    np.testing.assert_allclose(
        calibration.fit_temperature(difference, better), scale, rtol=0.05)

  def test_it_changes_calibration_and_not_accuracy(self):
    before, after = calibration.before_and_after(margins(scale=4.0), seed=0)
    self.assertEqual(before.accuracy, after.accuracy)
    self.assertLess(after.ece, 0.3 * before.ece)
    self.assertLess(after.nll.estimate, before.nll.estimate)
    self.assertAlmostEqual(after.temperature, 4.0, delta=0.6)

  def test_the_two_halves_are_apart(self):
    # The held-out half is all wrong; a fit that saw it would be far higher.
    fitted = calibration.split(1_000, seed=0)
    margin = np.where(fitted, margins(1_000), -5.0)
    _, after = calibration.before_and_after(margin, seed=0)
    self.assertAlmostEqual(after.temperature, 1.0, delta=0.35)
    self.assertEqual(after.accuracy, 0.0)

  def test_ties_alone_leave_nothing_to_fit_on(self):
    # Three of twenty pairs differ; by some seeds none of them is in the half
    # that the temperature is fitted on.
    margin = np.zeros(20)
    margin[[3, 7, 11]] = 1.0, -0.5, 2.0
    lacks = [not margin[calibration.split(20, seed)].any()
             for seed in range(50)]
    self.assertBetween(sum(lacks), 1, 49)
    self.assertEqual([calibration.before_and_after(margin, seed=seed) is None
                      for seed in range(50)], lacks)
    self.assertIsNone(calibration.before_and_after(np.zeros(4), seed=0))

  def test_scores_that_are_all_equal_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'differ in some pair'):
      calibration.fit_temperature(np.zeros(4), np.ones(4, bool))

  def test_logit_of_a_certain_judge_is_finite(self):
    np.testing.assert_allclose(calibration.logit([0, 0.5, 1]),
                               [-13.815510, 0, 13.815510], rtol=1e-5)


if __name__ == '__main__':
  absltest.main()
