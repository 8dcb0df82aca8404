"""Coverage in simulation, textbook values, what each bootstrap resamples."""
import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from rljax.evaluation import intervals


def simulated_scores(rng, problems=200, samples=8):
  """Problem difficulties from Beta(0.6, 0.9), then samples: mean 0.4."""
  rate_P1 = rng.beta(0.6, 0.9, size=(problems, 1))
  return (rng.random((problems, samples)) < rate_P1).astype(float)


class CoverageTest(parameterized.TestCase):
  """Nominal 95 % of intervals hold the truth, within simulation error."""

  @parameterized.parameters('percentile', 'BCa')
  def test_bootstrap_over_problems(self, method):
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(400):
      score_P = simulated_scores(rng).mean(1)
      found = intervals.bootstrap(score_P, seed=seed, method=method,
                                  num_resamples=600)
      hits += found.low <= 0.4 <= found.high
    self.assertBetween(hits / 400, 0.92, 0.98)

  def test_paired_difference(self):
    rng = np.random.default_rng(1)
    hits = rejections = 0
    for seed in range(400):
      rate_P = rng.beta(0.6, 0.9, size=200)
      a_P = rng.binomial(8, rate_P) / 8
      b_P = rng.binomial(8, rate_P) / 8
      found = intervals.paired_difference(a_P, b_P, seed=seed,
                                          num_resamples=600)
      hits += found.interval.low <= 0 <= found.interval.high
      rejections += found.p_value < 0.05
    self.assertBetween(hits / 400, 0.92, 0.98)
    self.assertBetween(rejections / 400, 0.02, 0.08)

  @parameterized.parameters('wilson', 'beta')
  def test_one_sample_per_problem(self, name):
    rng = np.random.default_rng(2)
    counts = rng.binomial(200, 0.4, size=1000)
    interval = {c: getattr(intervals, name)(int(c), 200)
                for c in np.unique(counts)}
    hits = [interval[c].low <= 0.4 <= interval[c].high for c in counts]
    self.assertBetween(np.mean(hits), 0.92, 0.98)

  def test_resampling_pooled_samples_would_cover_too_little(self):
    # Negative control: the samples of a problem are alike, so bars that take
    # them as independent are too short.
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
      score_PG = simulated_scores(rng)
      half = 1.96 * score_PG.std() / np.sqrt(score_PG.size)
      hits += abs(score_PG.mean() - 0.4) <= half
    self.assertLess(hits / 400, 0.85)


class BootstrapTest(parameterized.TestCase):

  def test_estimate_is_the_mean_and_lies_inside(self):
    found = intervals.bootstrap([0, 0, 1, 1, 1], seed=0)
    self.assertAlmostEqual(found.estimate, 0.6)
    self.assertBetween(found.estimate, found.low, found.high)

  def test_width_is_that_of_the_standard_error(self):
    # Not the standard deviation over the number of replicates, and not the
    # spread of the scores: 2 · 1.96 · σ / √P.
    score_P = np.random.default_rng(0).normal(size=400)
    expected = 2 * 1.96 * score_P.std() / 20
    for method in ('percentile', 'BCa'):
      found = intervals.bootstrap(score_P, seed=0, method=method,
                                  num_resamples=5_000)
      np.testing.assert_allclose(found.high - found.low, expected, rtol=0.06)

  def test_higher_level_is_wider(self):
    score_P = np.random.default_rng(0).random(50)
    narrow = intervals.bootstrap(score_P, seed=0, level=0.8)
    wide = intervals.bootstrap(score_P, seed=0, level=0.99)
    self.assertLess(wide.low, narrow.low)
    self.assertGreater(wide.high, narrow.high)

  def test_equal_scores_give_an_empty_interval(self):
    found = intervals.bootstrap([0.0, 0.0, 0.0], seed=0)
    self.assertEqual((found.low, found.high), (0.0, 0.0))
    found = intervals.bootstrap([0.1 + 0.2, 0.3, 0.3], seed=0)  # but rounding
    np.testing.assert_allclose([found.low, found.high], 0.3)

  def test_bca_is_finite_when_one_score_differs(self):
    found = intervals.bootstrap([0.0] * 30 + [1.0], seed=0)
    self.assertTrue(np.isfinite(found.low) and np.isfinite(found.high))
    self.assertLess(found.low, found.high)

  def test_two_levels_are_wider_than_one(self):
    score_PG = simulated_scores(np.random.default_rng(0), problems=60)
    one = intervals.bootstrap(score_PG.mean(1), seed=0, method='percentile',
                              num_resamples=4_000)
    two = intervals.two_level_bootstrap(score_PG, seed=0, num_resamples=4_000)
    self.assertAlmostEqual(one.estimate, two.estimate)
    self.assertGreater(two.high - two.low, 1.01 * (one.high - one.low))

  def test_two_levels_equal_one_when_samples_agree(self):
    score_P = np.random.default_rng(0).random(60)
    score_PG = np.repeat(score_P[:, None], 4, axis=1)
    one = intervals.bootstrap(score_P, seed=0, method='percentile',
                              num_resamples=8_000)
    two = intervals.two_level_bootstrap(score_PG, seed=0, num_resamples=8_000)
    np.testing.assert_allclose([two.low, two.high], [one.low, one.high],
                               atol=4e-3)

  @parameterized.parameters(
      lambda x, seed: intervals.bootstrap(x[:, 0], seed=seed),
      lambda x, seed: intervals.two_level_bootstrap(x, seed=seed),
      lambda x, seed: intervals.paired_difference(x[:, 0], x[:, 1], seed=seed))
  def test_repeats_by_seed_and_leaves_the_global_generator_alone(self, find):
    score_PG = np.random.default_rng(0).random((40, 4))
    before = np.random.get_state()[1].copy()
    self.assertEqual(find(score_PG, 3), find(score_PG, 3))
    self.assertNotEqual(find(score_PG, 3), find(score_PG, 4))
    np.testing.assert_array_equal(before, np.random.get_state()[1])

  @parameterized.named_parameters(
      ('one_problem', [0.5], 'two problems'),
      ('pooled', [[0.5, 1], [0, 1]], 'rank 1'),
      ('nan', [0.5, np.nan], '1 that are not'))
  def test_refuses(self, scores, message):
    with self.assertRaisesRegex(ValueError, message):
      intervals.bootstrap(scores, seed=0)

  def test_refuses_an_unknown_method(self):
    with self.assertRaisesRegex(ValueError, "got 'basic'"):
      intervals.bootstrap([0, 1], seed=0, method='basic')


class ComparisonTest(parameterized.TestCase):

  def test_pairing_narrows_the_interval_of_correlated_models(self):
    rng = np.random.default_rng(0)
    rate_P = rng.beta(0.6, 0.9, size=200)
    a_P = rng.binomial(16, rate_P) / 16
    b_P = rng.binomial(16, np.minimum(1, rate_P + 0.02)) / 16
    paired = intervals.paired_difference(a_P, b_P, seed=0).interval
    a, b = (intervals.bootstrap(x, seed=0) for x in (a_P, b_P))
    unpaired = np.hypot(a.high - a.low, b.high - b.low)
    self.assertLess(paired.high - paired.low, 0.5 * unpaired)

  def test_sign_is_second_minus_first(self):
    a_P = np.random.default_rng(0).random(50) * 0.5
    found = intervals.paired_difference(a_P, a_P + 0.25, seed=0)
    self.assertAlmostEqual(found.interval.estimate, 0.25)
    self.assertGreater(found.interval.low, 0.2)

  def test_p_value_is_bounded_by_the_replicates(self):
    a_P = np.random.default_rng(0).random(50)
    found = intervals.paired_difference(a_P, a_P + 1, seed=0, num_resamples=99)
    self.assertAlmostEqual(found.p_value, 2 / 100)  # never zero
    self.assertEqual(intervals.paired_difference(a_P, a_P, seed=0).p_value, 1.0)

  def test_refuses_other_problems(self):
    with self.assertRaisesRegex(ValueError, 'got 3 and 2'):
      intervals.paired_difference([0, 1, 1], [0, 1], seed=0)

  def test_mcnemar_by_hand(self):
    # 3 solved by both, 1 by a only, 6 by b only, 2 by neither. Exact two-sided
    # binomial on 7 discordant: 2 · (C(7,0) + C(7,1)) / 2^7 = 16 / 128.
    a_P = np.array([1] * 3 + [1] + [0] * 6 + [0] * 2, bool)
    b_P = np.array([1] * 3 + [0] + [1] * 6 + [0] * 2, bool)
    found = intervals.mcnemar(a_P, b_P)
    self.assertEqual(dataclasses.astuple(found)[:4], (3, 1, 6, 2))
    self.assertAlmostEqual(found.p_value, 0.125)

  def test_mcnemar_of_equal_models(self):
    a_P = np.array([True, False])
    self.assertEqual(intervals.mcnemar(a_P, a_P).p_value, 1.0)

  def test_mcnemar_refuses_rates(self):
    with self.assertRaisesRegex(ValueError, 'boolean'):
      intervals.mcnemar(np.array([0.5, 1.0]), np.array([0.5, 1.0]))


class GroupedTest(parameterized.TestCase):

  def test_weights_by_hand(self):
    # Means 1/2 and 1 of groups of 4 and 2: alike 0.75, 3 to 1 makes 0.625.
    score_P, group_P = [1, 0, 1, 0, 1, 1], list('aaaabb')
    macro = intervals.grouped_bootstrap(score_P, group_P, seed=0)
    self.assertAlmostEqual(macro.estimate, 0.75)
    self.assertBetween(macro.estimate, macro.low, macro.high)
    weighted = intervals.grouped_bootstrap(
        score_P, group_P, seed=0, weights=dict(a=3, b=1, unused=5))
    self.assertAlmostEqual(weighted.estimate, 0.625)

  def test_width_is_that_of_the_strata(self):
    # Var = Σ w² σ_g² / n_g, whatever the groups' own means are.
    rng = np.random.default_rng(0)
    a_P, b_P = rng.normal(0, 1, 400), rng.normal(9, 2, 100)
    found = intervals.grouped_bootstrap(
        np.concatenate([a_P, b_P]), ['a'] * 400 + ['b'] * 100, seed=0,
        num_resamples=5_000)
    error = np.sqrt(a_P.var() / 400 + b_P.var() / 100) / 2
    np.testing.assert_allclose(found.high - found.low, 2 * 1.96 * error,
                               rtol=0.06)

  def test_one_group_is_the_plain_difference(self):
    a_P, b_P = np.random.default_rng(0).random((2, 50))
    self.assertEqual(
        intervals.grouped_difference(a_P, b_P, ['g'] * 50, seed=0),
        intervals.paired_difference(a_P, b_P, seed=0))

  def test_refuses_a_group_without_a_weight(self):
    with self.assertRaisesRegex(ValueError, "weight for each.*'a', 'b'"):
      intervals.grouped_bootstrap([0, 1], ['a', 'b'], seed=0,
                                  weights=dict(a=1.0))
    with self.assertRaisesRegex(ValueError, 'got 3 and 2'):
      intervals.grouped_difference([0, 1, 1], [0, 1], list('aab'), seed=0)


class ProportionTest(parameterized.TestCase):

  def test_wilson_by_hand(self):
    # z = 1.96, 0 of 10: low 0, high z² / (n + z²) = 3.8415 / 13.8415.
    found = intervals.wilson(0, 10)
    np.testing.assert_allclose([found.low, found.high], [0, 0.27753],
                               atol=1e-5)

  def test_beta_by_hand(self):
    # Beta(1, 11): the quantile q solves 1 - (1 - x)^11 = q.
    found = intervals.beta(0, 10)
    np.testing.assert_allclose(
        [found.low, found.high],
        [1 - 0.975 ** (1 / 11), 1 - 0.025 ** (1 / 11)], rtol=1e-6)

  def test_all_correct_still_leaves_doubt(self):
    for find in (intervals.wilson, intervals.beta):
      self.assertLess(find(30, 30).low, 0.92)

  @parameterized.parameters((3, 2), (-1, 2), (0, 0))
  def test_refuses(self, correct, problems):
    for find in (intervals.wilson, intervals.beta):
      with self.assertRaisesRegex(ValueError, f'got {correct} of {problems}'):
        find(correct, problems)


if __name__ == '__main__':
  absltest.main()
