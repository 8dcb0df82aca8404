"""Every rule against tables worked out by hand, and wrong rules beside them."""
import itertools

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from rljax.data import reward_benchmarks as files
from rljax.evaluation import reward_benchmarks as rules

NAN = np.nan


def overall(tally, name='overall'):
  found = rules.summarize(tally, seed=0)[name]
  return None if found is None else found.estimate


def pairs(right, total):
  """Preferences of `total` pairs, the first `right` of them right."""
  return [1.0] * right + [0.0] * (total - right)


class CreditTest(absltest.TestCase):

  def test_ties_and_missing_verdicts_both_ways(self):
    found = [1.0, 0.51, 0.5, 0.49, 0.0, NAN]
    np.testing.assert_array_equal(rules.credit(found, undecided=0.0),
                                  [1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(rules.credit(found, undecided=0.5),
                                  [1, 1, 0.5, 0, 0, 0.5])

  def test_scores_compare_strictly(self):
    np.testing.assert_array_equal(rules.of_scores([2, 1, 0], [1, 1, 1]),
                                  [1, 0.5, 0])

  def test_what_is_no_preference_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'of_scores'):
      rules.credit([2.0], undecided=0.0)
    with self.assertRaisesRegex(ValueError, r'\[items, 2\], got shape \[2\]'):
      rules.swap_average([1.0, 0.0], ['a', 'a'])


class RewardBenchTest(parameterized.TestCase):

  def fixture(self):
    # 447 pairs of math-prm, 268 right; six sets of code of 164, 148 right
    # each. 268/447 = 0.59955, 148/164 = 0.90244.
    preference, subset = pairs(268, 447), ['math-prm'] * 447
    for name in ('cpp', 'go', 'java', 'js', 'python', 'rust'):
      preference += pairs(148, 164)
      subset += [f'hep-{name}'] * 164
    return preference, subset

  def test_math_weighs_as_much_as_code(self):
    # 984 and 6 · 164 = 984: (0.60 + 0.90) / 2 = 0.75.
    tally = rules.reward_bench(*self.fixture(), files.SECTIONS, undecided=0.0)
    self.assertAlmostEqual(overall(tally, 'Reasoning'), 0.75, delta=2e-3)
    self.assertAlmostEqual(overall(tally, 'Reasoning'),
                           (268 / 447 + 148 / 164) / 2)

  def test_pooling_the_items_is_another_number(self):
    # What GRAM's script does: (0.6 · 447 + 0.9 · 984) / 1431 = 0.806.
    preference, subset = self.fixture()
    pooled = rules.Tally(np.array(preference), np.array(subset), dict(all=None))
    self.assertAlmostEqual(overall(pooled, 'all'), 0.806, delta=2e-3)
    true_counts = {'Reasoning': files.SECTIONS['Reasoning'] | {'math-prm': 447}}
    wrong = rules.reward_bench(preference, subset, true_counts, undecided=0.0)
    self.assertAlmostEqual(overall(wrong, 'Reasoning'), 0.806, delta=2e-3)

  def test_the_headline_weighs_sections_alike(self):
    # Chat: (100 · 1 + 28 · 0) / 128. Safety: 1/2. Chat Hard: 1. Headline: mean.
    preference = [1, 1, 0, 0, 1, 0, 1, 1]
    subset = ['alpacaeval-easy'] * 2 + ['mt-bench-easy'] * 2 + (
        ['donotanswer'] * 2 + ['llmbar-natural'] * 2)
    tally = rules.reward_bench(preference, subset, files.SECTIONS,
                               undecided=0.0)
    self.assertAlmostEqual(overall(tally, 'Chat'), 100 / 128)
    self.assertAlmostEqual(overall(tally), (100 / 128 + 0.5 + 1) / 3)

  def test_published_counts(self):
    counts = {name: sum(some.values()) for name, some in files.SECTIONS.items()}
    self.assertEqual(counts, {'Chat': 358, 'Chat Hard': 456, 'Safety': 740,
                              'Reasoning': 1968})
    # With the true 447 of math-prm there are 2985 items in 23 subsets.
    self.assertEqual(sum(counts.values()) - 984 + 447, 2985)
    self.assertEqual(sum(map(len, files.SECTIONS.values())), 23)

  def test_a_tie_of_scores_is_wrong_and_half_the_other_way(self):
    arguments = ([0.5, 1.0], ['math-prm'] * 2, files.SECTIONS)
    self.assertEqual(overall(rules.reward_bench(*arguments, undecided=0.0)),
                     0.5)
    self.assertEqual(overall(rules.reward_bench(*arguments, undecided=0.5)),
                     0.75)

  def test_a_judge_is_shown_one_order_by_the_seed(self):
    # It always prefers the first: right if the right one stands first.
    preference_I2 = np.tile([1.0, 0.0], (400, 1))
    first = rules.one_order(preference_I2, seed=0)
    np.testing.assert_array_equal(first, rules.one_order(preference_I2, 0))
    self.assertFalse(np.array_equal(first, rules.one_order(preference_I2, 1)))
    self.assertBetween(first.mean(), 0.4, 0.6)
    self.assertEqual(overall(
        rules.swap_average(preference_I2, ['a'] * 400), 'micro'), 0.0)

  def test_an_unknown_subset_is_refused(self):
    with self.assertRaisesRegex(ValueError, r"got \['maths'\]"):
      rules.reward_bench([1.0], ['maths'], files.SECTIONS, undecided=0.0)


class RewardBench2Test(parameterized.TestCase):

  @parameterized.parameters(
      ([3, 1, 2, 0], 1.0, 1.0), ([1, 3, 2, 0], 0.0, 0.0),
      ([3, 3, 2, 0], 0.5, 0.0), ([3, 3, 3, 3], 0.25, 0.0),
      ([3, NAN, 2, 0], 0.25, 0.0), ([NAN, 1, 2, 0], 0.25, 0.0))
  def test_best_of_four(self, scores, shared, alone):
    for share, want in ((True, shared), (False, alone)):
      tally = rules.reward_bench_2(['7'], [scores], [1], ['Math'],
                                   shared=share)
      self.assertEqual(tally.credit_I.tolist(), [want])

  def test_ties_by_hand(self):
    # Prompt 1: right 3.0, 2.5, wrong 1.0: gap 1.5, spread 0.5; its reference
    # 2.0 over 1.2: gap 0.8. All four hold: 1 + 0.01 tanh(0.8/0.5 - 1).
    # Prompt 2: right 3.0, 1.5, wrong 1.0: gap 0.5, spread 1.5; reference gap
    # -1: 0.3 of the first term only, and 0.01 tanh(-1/1.5 - 1).
    names = ['tied:1', 'ref:1', 'ref:2', 'tied:2']
    scores = [[3.0, 2.5, 1.0], [2.0, 1.2], [1.0, 2.0, 0.0], [1.5, 3.0, 1.0]]
    found = rules.ties_scores(names, scores, [2, 1, 1, 2])
    np.testing.assert_allclose(found, [
        1 + 0.01 * np.tanh(0.6), 0.3 + 0.01 * np.tanh(-5 / 3)], rtol=1e-12)

  def test_a_spread_of_zero_is_no_nan(self):
    # Gap over spread: 1/0 is infinite, tanh 1; 0/0 counts 0.
    found = rules.ties_scores(
        ['tied:1', 'ref:1', 'tied:2', 'ref:2'],
        [[2, 2, 1], [2, 1], [1, 1, 1], [1, 1]], [2, 1, 2, 1])
    np.testing.assert_allclose(found, [1.01, 0.0])

  def test_a_missing_score_earns_nothing_of_a_tie(self):
    found = rules.ties_scores(
        ['tied:1', 'ref:1', 'tied:2', 'ref:2'],
        [[3, NAN, 1], [2, 1], [3, 3, 1], [2, NAN]], [2, 1, 2, 1])
    # The reference of the first is right; the second is right, above its
    # spread of 0, and lacks its reference.
    np.testing.assert_allclose(found, [0.3, 0.5])

  def test_strict_signs(self):
    # Gap 1 is not above spread 1, and a gap of 0 is not right.
    found = rules.ties_scores(['tied:1', 'ref:1'], [[3, 2, 1], [1, 1]], [2, 1])
    np.testing.assert_allclose(found, [0.3 + 0.01 * np.tanh(-1)])

  def test_subsets_weigh_alike_and_ties_count_as_one(self):
    # Math 1 of 2, Focus 1 of 1, Ties 1.01: their mean.
    tally = rules.reward_bench_2(
        ['1', '2', '3', 'tied:1', 'ref:1'],
        [[2, 1], [1, 2], [2, 1], [2, 2, 1], [2, 1]], [1, 1, 1, 2, 1],
        ['Math', 'Math', 'Focus', 'Ties', 'Ties'])
    self.assertAlmostEqual(overall(tally, 'macro'), (0.5 + 1 + 1.01) / 3)
    self.assertNotIn('micro', tally.averages)

  def test_a_lonely_prompt_is_refused(self):
    with self.assertRaisesRegex(ValueError, r"\['ref:1'\] alone"):
      rules.ties_scores(['tied:1'], [[2, 2, 1]], [2])
    with self.assertRaisesRegex(ValueError, r"\['tied:1'\] with one"):
      rules.ties_scores(['tied:1', 'ref:1'], [[2, 1], [2, 1]], [1, 1])


class JudgeBenchTest(parameterized.TestCase):
  # Verdicts on the two orders, each as seen from the right response.
  VERDICTS = dict(right=1.0, wrong=0.0, tie=0.5)
  GOLDEN = {('right', 'right'): 1, ('right', 'tie'): 1, ('tie', 'right'): 1,
            ('right', 'wrong'): 0, ('wrong', 'right'): 0, ('tie', 'tie'): 0,
            ('wrong', 'tie'): 0, ('tie', 'wrong'): 0, ('wrong', 'wrong'): 0}

  def test_truth_table(self):
    self.assertEqual(set(self.GOLDEN),
                     set(itertools.product(self.VERDICTS, repeat=2)))
    preference_I2 = [[self.VERDICTS[x] for x in both] for both in self.GOLDEN]
    tally = rules.judge_bench(preference_I2, ['a'] * 9)
    self.assertEqual(tally.credit_I.tolist(), list(self.GOLDEN.values()))
    strict = rules.judge_bench(preference_I2, ['a'] * 9, both=True)
    self.assertEqual(strict.credit_I.tolist(), [1] + [0] * 8)

  def test_a_missing_verdict_is_as_a_tie(self):
    for one, other in itertools.product((1.0, 0.0, NAN), repeat=2):
      as_tie = [[0.5 if np.isnan(x) else x for x in (one, other)]]
      np.testing.assert_array_equal(
          rules.judge_bench([[one, other]], ['a']).credit_I,
          rules.judge_bench(as_tie, ['a']).credit_I)

  def test_swap_averaging_is_another_rule(self):
    # 0.9 and 0.2: mean 0.55 is right for GRAM; the orders contradict each
    # other, which is not right for JudgeBench.
    preference_I2 = [[0.9, 0.2], [0.6, 0.6], [0.5, 0.5], [NAN, 1.0]]
    gram = rules.swap_average(preference_I2, ['a'] * 4)
    self.assertEqual(gram.credit_I.tolist(), [1, 1, 0, 0])
    bench = rules.judge_bench(preference_I2, ['a'] * 4)
    self.assertEqual(bench.credit_I.tolist(), [0, 1, 0, 1])

  def test_micro_and_macro(self):
    # 154/98/56/42 items; the first group all right: micro 154/350, macro 1/4.
    sizes = dict(knowledge=154, reasoning=98, math=56, coding=42)
    group = [name for name, size in sizes.items() for _ in range(size)]
    right = [[float(name == 'knowledge')] * 2 for name in group]
    tally = rules.judge_bench(right, group)
    self.assertAlmostEqual(overall(tally, 'micro'), 154 / 350)
    self.assertAlmostEqual(overall(tally, 'macro'), 0.25)
    # GRAM's script puts 350 items and 4 means into one list.
    mixed = np.mean([*tally.credit_I, 1, 0, 0, 0])
    self.assertNotAlmostEqual(overall(tally, 'micro'), mixed, places=3)


class RmBenchTest(parameterized.TestCase):

  def test_matrix_by_hand(self):
    # Rows are right styles 0 < 1 < 2, columns wrong ones. Right wins only in
    # its most decorated style: row 2. Easy: cells (1,0), (2,0), (2,1): 2/3.
    # Normal: (2,2): 1/3. Hard: none.
    matrix = np.zeros((1, 3, 3))
    matrix[0, 2] = 1
    tallies = rules.rm_bench(np.repeat(matrix, 2, axis=0), ['chat'] * 2)
    found = {name: overall(tally, 'macro') for name, tally in tallies.items()}
    np.testing.assert_allclose(
        [found[name] for name in ('easy', 'normal', 'hard', 'overall')],
        [2 / 3, 1 / 3, 0, 1 / 3])

  def test_a_transposed_matrix_exchanges_easy_and_hard(self):
    rng = np.random.default_rng(0)
    matrix = rng.integers(2, size=(30, 3, 3)).astype(float)
    domain = ['chat', 'code', 'math'] * 10
    one, other = (rules.rm_bench(m, domain)
                  for m in (matrix, matrix.swapaxes(1, 2)))
    np.testing.assert_array_equal(one['easy'].credit_I, other['hard'].credit_I)
    self.assertFalse(np.array_equal(one['easy'].credit_I,
                                    one['hard'].credit_I))

  def test_three_averages_coincide(self):
    # Mean of the domains, mean of the difficulties, mean of the domains' cells.
    for seed in range(20):
      rng = np.random.default_rng(seed)
      domain = rng.choice(['chat', 'code', 'math', 'safety'], size=40)
      preference = rng.choice([0.0, 0.5, 1.0], size=(40, 3, 3))
      tallies = rules.rm_bench(preference, domain)
      macro = {name: overall(tally, 'macro') for name, tally in tallies.items()}
      levels = np.mean([macro[name] for name in ('easy', 'normal', 'hard')])
      cells = np.mean([(preference[domain == name] > 0.5).mean()
                       for name in np.unique(domain)])
      np.testing.assert_allclose([macro['overall'], levels], cells)

  def test_ties_both_ways(self):
    preference = np.full((2, 3, 3), 0.5)
    self.assertEqual(overall(rules.rm_bench(
        preference, ['chat'] * 2)['overall'], 'macro'), 0.0)
    self.assertEqual(overall(rules.rm_bench(
        preference, ['chat'] * 2, undecided=0.5)['overall'], 'macro'), 0.5)


class VlRewardBenchTest(parameterized.TestCase):

  def test_unparsed_items_leave_or_count_as_wrong(self):
    # Ten items, one vote each: 4 without a verdict, 4 right, 2 wrong.
    votes = [[NAN]] * 4 + [[1.0]] * 4 + [[0.0]] * 2
    official = rules.vl_reward_bench(votes, ['general'] * 10, 1)
    strict = rules.vl_reward_bench(votes, ['general'] * 10, 1, strict=True)
    self.assertAlmostEqual(overall(official, 'micro'), 4 / 6)
    self.assertAlmostEqual(overall(strict, 'micro'), 4 / 10)

  @parameterized.parameters(
      ([1, 0, 1], 1.0, 1.0), ([0, 1, 0], 0.0, 0.0), ([1, 1, NAN], NAN, 1.0),
      ([1, 0, NAN], NAN, 0.0), ([NAN, NAN, 1], NAN, 0.0), ([1, 1, 0.5], NAN, 1))
  def test_majority_of_three(self, votes, official, strict):
    for kind, want in ((False, official), (True, strict)):
      found = rules.vl_reward_bench([votes], ['general'], 3, strict=kind)
      np.testing.assert_array_equal(found.credit_I, [want])

  def test_only_the_first_k_votes_count(self):
    votes = [[1, 0, 0, NAN, 1]]
    found = {k: rules.vl_reward_bench(votes, ['general'], k).credit_I[0]
             for k in (1, 3, 5)}
    self.assertEqual((found[1], found[3]), (1.0, 0.0))
    self.assertTrue(np.isnan(found[5]))

  def test_overall_is_the_mean_of_groups_weighted_by_size(self):
    sizes = dict(general=183, hallucination=749, reasoning=318)
    group = [name for name, size in sizes.items() for _ in range(size)]
    votes = np.random.default_rng(0).integers(2, size=(1250, 3)).astype(float)
    tally = rules.vl_reward_bench(votes, group, 3)
    weighted = sum(sizes[name] * overall(tally, name) for name in sizes) / 1250
    self.assertAlmostEqual(overall(tally, 'micro'), weighted)
    self.assertAlmostEqual(overall(tally, 'macro'), np.mean(
        [overall(tally, name) for name in sizes]))

  @parameterized.parameters(0, 2, 5)
  def test_k_is_odd_and_there(self, k):
    with self.assertRaisesRegex(ValueError, f'odd k.*k={k}'):
      rules.vl_reward_bench([[1.0, 1.0, 1.0]], ['general'], k)


class ComparisonTest(absltest.TestCase):

  def test_two_models_on_the_same_items(self):
    # Group a: 0 -> 1 for one of two; group b: nothing changes.
    one = rules.judge_bench([[0, 0], [1, 1], [1, 1], [0, 0]], list('aabb'))
    two = rules.judge_bench([[1, 1], [1, 1], [1, 1], [0, 0]], list('aabb'))
    found = rules.difference(one, two, seed=0)
    self.assertAlmostEqual(found['micro'].interval.estimate, 0.25)
    self.assertAlmostEqual(found['macro'].interval.estimate, 0.25)
    self.assertAlmostEqual(found['a'].interval.estimate, 0.5)
    self.assertEqual(found['b'].p_value, 1.0)

  def test_an_item_that_one_leaves_out_counts_for_neither(self):
    one = rules.vl_reward_bench([[1.0], [NAN], [0.0]], ['g'] * 3, 1)
    two = rules.vl_reward_bench([[1.0], [1.0], [1.0]], ['g'] * 3, 1)
    found = rules.difference(one, two, seed=0)['micro']
    self.assertAlmostEqual(found.interval.estimate, 0.5)

  def test_other_items_are_refused(self):
    one = rules.judge_bench([[1, 1], [1, 1]], list('ab'))
    two = rules.judge_bench([[1, 1], [1, 1]], list('ba'))
    with self.assertRaisesRegex(ValueError, 'same items'):
      rules.difference(one, two, seed=0)


if __name__ == '__main__':
  absltest.main()
