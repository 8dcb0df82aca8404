"""The estimators by hand and by enumeration; verdicts that are missing."""
import itertools

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from rljax.evaluation import cot_pass_at_k as cot
from rljax.evaluation import sample_metrics

# Four samples, two right answers, one of them with right reasoning.
CORRECT = np.array([[1, 1, 0, 0]], bool)
REASONING = np.array([[1, 0, 0, 0]], bool)


def random_problems(seed=0, shape=(12, 8), calls=3):
  rng = np.random.default_rng(seed)
  return rng.random(shape) < 0.6, rng.integers(-1, 2, (*shape, calls))


class EstimatorTest(parameterized.TestCase):

  @parameterized.parameters((1, 0.5, 0.25), (2, 5 / 6, 0.5))
  def test_the_case_of_the_paper_s_notation(self, k, plain, strict):
    np.testing.assert_allclose(sample_metrics.pass_at_k(4, 2, k), plain)
    np.testing.assert_allclose(
        cot.cot_pass_at_k(CORRECT, REASONING, k), [strict])
    np.testing.assert_allclose(
        cot.reasoning_given_answer(CORRECT, REASONING), [0.5])

  def test_it_is_the_mean_over_all_subsets(self):
    correct_PG, verdict_PGV = random_problems(shape=(5, 7))
    reasoning_PG = cot.aggregate(verdict_PGV, 'majority')
    both_PG = correct_PG & reasoning_PG
    for k in range(1, 8):
      want = np.mean([both_PG[:, list(chosen)].any(1) for chosen
                      in itertools.combinations(range(7), k)], axis=0)
      np.testing.assert_allclose(
          cot.cot_pass_at_k(correct_PG, reasoning_PG, k), want, atol=1e-12)

  def test_right_reasoning_behind_a_wrong_answer_counts_for_nothing(self):
    np.testing.assert_array_equal(
        cot.counts(CORRECT, ~CORRECT)[1], [0])

  def test_bounds_and_order(self):
    for seed in range(20):
      correct_PG, verdict_PGV = random_problems(seed)
      found = {rule: cot.summarize(correct_PG, verdict_PGV, ks=(1, 2, 4, 8),
                                   rule=rule, seed=0) for rule in cot.RULES}
      curve = lambda part: np.array([point['estimate'] for point in part])
      plain = curve(found['any'].pass_at_k)
      strict = {r: curve(s.cot_pass_at_k) for r, s in found.items()}
      self.assertTrue(np.all(np.diff(plain) >= 0))
      for values in strict.values():
        self.assertTrue(np.all(np.diff(values) >= 0))
        self.assertTrue(np.all((values >= 0) & (values <= plain + 1e-12)))
      self.assertTrue(np.all(strict['all'] <= strict['majority']))
      self.assertTrue(np.all(strict['majority'] <= strict['any']))


class VerdictTest(parameterized.TestCase):

  @parameterized.parameters(
      ((1, 0, 0), True, False, False), ((1, 1, 0), True, True, False),
      ((1, 1, 1), True, True, True), ((1, -1, -1), True, True, False),
      ((-1, -1, -1), False, False, False), ((1, 0, -1), True, False, False),
      ((0, 0, 0), False, False, False))
  def test_three_rules(self, verdicts, *want):
    for order in itertools.permutations(verdicts):
      self.assertEqual(
          [bool(cot.aggregate([[order]], rule)[0, 0])
           for rule in ('any', 'majority', 'all')], list(want))

  def test_a_tie_of_an_even_number_is_a_no(self):
    self.assertFalse(cot.aggregate([[(1, 0)]], 'majority')[0, 0])
    self.assertTrue(cot.at_least([[(1, 0)]], 1)[0, 0])
    self.assertFalse(cot.at_least([[(1, -1)]], 2)[0, 0])

  def test_a_missing_verdict_may_be_a_no(self):
    for verdicts, abstains, no in (((1, -1, -1), True, False),
                                   ((1, 1, -1), True, True)):
      self.assertEqual(bool(cot.aggregate([[verdicts]], 'majority')), abstains)
      self.assertEqual(
          bool(cot.aggregate([[verdicts]], 'majority', 'no')), no)
    with self.assertRaisesRegex(ValueError, "'abstains'.*got 'yes'"):
      cot.aggregate([[(1,)]], 'majority', 'yes')

  def test_samples_without_a_verdict_are_counted_and_do_not_pass(self):
    correct_PG = np.array([[1, 1], [0, 0], [1, 0]], bool)
    verdict_PGV = np.array([[[1], [-1]], [[1], [1]], [[-1], [-1]]])
    found = cot.summarize(correct_PG, verdict_PGV, ks=(1,), rule='any', seed=0)
    self.assertEqual(found.unjudged, 2)
    self.assertEqual(found.never_right, 1)  # the second problem
    self.assertAlmostEqual(found.reasoning_right, (0.5 + 0) / 2)
    self.assertAlmostEqual(found.answer_right, (1 + 0 + 0.5) / 3)

  @parameterized.parameters(
      (dict(rule='most'), 'most'), (dict(verdict_PGV=[[[2]]]), '1, 0 or -1'),
      (dict(verdict_PGV=[[1]]), r'shape \[1, 1\]'))
  def test_what_is_no_verdict_is_refused(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      cot.aggregate(**dict(verdict_PGV=[[[1]]], rule='any') | changes)


class JudgeErrorTest(parameterized.TestCase):

  @parameterized.parameters(
      ('any', 0.488, 0.996625), ('majority', 0.104, 0.93925),
      ('all', 0.008, 0.614125))
  def test_three_calls_at_known_rates(self, rule, fpr, tpr):
    np.testing.assert_allclose(
        cot.rates_of_rule(rule, 3, fpr=0.2, tpr=0.85), (fpr, tpr), atol=1e-12)

  def test_the_correction_recovers_the_number(self):
    rng = np.random.default_rng(0)
    right, truth = 40_000, 14_000
    reasoning = np.arange(right) < truth
    verdicts = rng.random((right, 3)) < np.where(
        reasoning, 0.85, 0.2)[:, None]
    for rule in cot.RULES:
      approved = cot.aggregate(verdicts[None].astype(int), rule).sum()
      fpr, tpr = cot.rates_of_rule(rule, 3, fpr=0.2, tpr=0.85)
      found = cot.rogan_gladen(right, approved, fpr=fpr, tpr=tpr)
      self.assertLess(abs(found - truth), 0.02 * right)
      self.assertGreater(abs(approved - truth), 300)  # without it: biased

  def test_the_correction_of_many_problems_with_few_samples(self):
    rng = np.random.default_rng(1)
    correct_PG = rng.random((3_000, 8)) < 0.5
    sound_PG = rng.random((3_000, 8)) < 0.35
    verdict_PGV = (rng.random((3_000, 8, 3)) < np.where(
        sound_PG, 0.85, 0.2)[..., None]).astype(int)
    found = cot.summarize(correct_PG, verdict_PGV, ks=(1,), rule='majority',
                          seed=0, call_rates=(0.2, 0.85))
    share = found.corrected['reasoning_right']
    self.assertBetween(0.35, share.low, share.high)
    at_1 = found.corrected['cot_pass_at_1']
    self.assertBetween(0.175, at_1.low, at_1.high)
    self.assertGreater(found.reasoning_right, share.high)  # without it
    # The control: clipped problem by problem it is off.
    right_P, both_P = cot.counts(
        correct_PG, cot.aggregate(verdict_PGV, 'majority'))
    fpr, tpr = cot.rates_of_rule('majority', 3, fpr=0.2, tpr=0.85)
    some_P = right_P > 0
    clipped = np.mean(cot.rogan_gladen(
        right_P[some_P], both_P[some_P], fpr=fpr, tpr=tpr) / right_P[some_P])
    self.assertFalse(share.low <= clipped <= share.high)

  def test_agreement_of_calls_by_hand(self):
    # Pairs that agree: 3 of 3, 1 of 3, 3 of 3: 7/9. A yes is 5 of 9: by chance
    # (25 + 16) / 81. (63 - 41) / (81 - 41) = 0.55. The fourth is left out.
    verdict_PGV = [[(1, 1, 1), (1, 1, 0)], [(0, 0, 0), (1, 0, -1)]]
    self.assertAlmostEqual(cot.agreement(verdict_PGV), 0.55)
    self.assertIsNone(cot.agreement([[(1, 1)]]))
    self.assertIsNone(cot.agreement([[(1,), (0,)]]))
    coins = np.random.default_rng(0).integers(0, 2, (1, 20_000, 3))
    self.assertAlmostEqual(cot.agreement(coins), 0.0, delta=0.02)

  def test_it_stays_in_range_and_refuses_a_judge_of_chance(self):
    np.testing.assert_array_equal(
        cot.rogan_gladen([10, 10], [0, 10], fpr=0.2, tpr=0.85), [0, 10])
    with self.assertRaisesRegex(ValueError, 'fpr < tpr'):
      cot.rogan_gladen(10, 5, fpr=0.5, tpr=0.5)


if __name__ == '__main__':
  absltest.main()
