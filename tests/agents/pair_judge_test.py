"""Scores of pairs and rankings by a judge, against a judge that is known."""
import itertools

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from rljax.agents import pair_judge
from rljax.agents.pair_judge import Pair

RULES = ('probability', 'logit')


class Oracle:
  """Bradley-Terry on known qualities, with a favour for what is shown first."""

  def __init__(self, favour=0.0, shift=0.0):
    self.favour, self.shift, self.asked = favour, shift, 0

  def __call__(self, pairs):
    self.asked += len(pairs)
    return np.array([[float(p.first) + self.favour + self.shift,
                      float(p.second) + self.shift] for p in pairs])


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def ranked(judge, responses, ranking):
  """score_N of one list."""
  score_N, = pair_judge.rank(judge, [''], [list(map(str, responses))], ranking)
  return score_N


class ScoresTest(parameterized.TestCase):

  def test_softmax_over_the_labels_and_not_over_the_orders(self):
    # Of responses 1 and 2, in both orders: [[3, 1], [2, 2.5]].
    table = {'one': [3.0, 1.0], 'two': [2.5, 2.0]}  # A is shown first
    judge = lambda pairs: np.array([table[pair.first] for pair in pairs])
    np.testing.assert_allclose(
        pair_judge.scores(judge, [Pair('', 'one', 'two')]),
        [[0.6292, 0.3708]], atol=5e-5)
    # The official demo takes the other axis, and finds the other winner.
    exp = np.exp([[3.0, 1.0], [2.0, 2.5]])
    np.testing.assert_allclose((exp / exp.sum(axis=0)).mean(axis=1),
                               [0.4567, 0.5433], atol=5e-5)

  @parameterized.parameters(*RULES)
  def test_to_the_bit(self, average):
    rng = np.random.default_rng(0)
    table = rng.normal(scale=3, size=(40, 40, 2))
    judge = lambda pairs: np.array(
        [table[int(p.first), int(p.second)] for p in pairs])
    pairs = [Pair('', str(i), str(j)) for i, j in rng.integers(0, 40, (200, 2))]
    one = pair_judge.scores(judge, pairs, average=average)
    other = pair_judge.scores(judge, [pair.swapped for pair in pairs],
                              average=average)
    np.testing.assert_array_equal(one, other[:, ::-1])
    np.testing.assert_allclose(one.sum(axis=1), 1.0, rtol=0, atol=1e-15)
    same = pair_judge.scores(judge, [Pair('', str(i), str(i))
                                     for i in range(40)], average=average)
    np.testing.assert_array_equal(same, np.full((40, 2), 0.5))

  @parameterized.parameters(*RULES)
  def test_a_judge_of_places_alone_says_nothing(self, average):
    judge = lambda pairs: np.array([[1.7, -0.4]] * len(pairs))
    np.testing.assert_array_equal(
        pair_judge.scores(judge, [Pair('', 'a', 'b')], average=average),
        [[0.5, 0.5]])

  @parameterized.product(average=RULES, favour=(-5.0, 0.0, 2.0, 8.0))
  def test_a_favour_for_a_place_never_changes_the_winner(self, average, favour):
    pairs = [Pair('', f'{a}', f'{b}') for a, b in np.random.default_rng(0)
             .normal(size=(100, 2))]
    fair = pair_judge.scores(Oracle(), pairs, average=average)
    biased = pair_judge.scores(Oracle(favour), pairs, average=average)
    np.testing.assert_array_equal(fair[:, 0] > fair[:, 1],
                                  biased[:, 0] > biased[:, 1])
    # Negative control: one order alone is fooled.
    gap_N = [float(p.first) + favour - float(p.second) for p in pairs]
    if favour:
      self.assertTrue(np.any((np.array(gap_N) > 0) != (fair[:, 0] > 0.5)))

  def test_what_the_two_averages_make_of_a_favour(self):
    # True gap 0.5, favour 2.
    pair = [Pair('', '0.5', '0')]
    by_logit, by_probability = (pair_judge.scores(
        Oracle(2.0), pair, average=rule)[0, 0] for rule in ('logit',
                                                            'probability'))
    self.assertAlmostEqual(by_logit, 0.6225, places=4)
    self.assertAlmostEqual(by_probability, 0.5533, places=4)

  def test_a_constant_on_both_labels_means_nothing(self):
    pairs = [Pair('', '1.0', '0.25')]
    np.testing.assert_allclose(pair_judge.scores(Oracle(shift=100.0), pairs),
                               pair_judge.scores(Oracle(), pairs), rtol=1e-12)

  def test_what_cannot_be(self):
    with self.assertRaisesRegex(ValueError, "got 'mean'"):
      pair_judge.scores(Oracle(), [Pair('', '1', '2')], average='mean')
    with self.assertRaisesRegex(ValueError, r'shape \(2, 3\)'):
      pair_judge.scores(lambda pairs: np.zeros((len(pairs), 3)),
                        [Pair('', '1', '2')])
    self.assertEqual(pair_judge.scores(Oracle(), []).shape, (0, 2))


class RankingTest(parameterized.TestCase):

  @parameterized.parameters(1, 2, 3, 4, 5)
  def test_knockout_finds_the_best_of_every_order(self, count):
    for order in itertools.permutations(range(count)):
      judge = Oracle(favour=1.5)
      score_N = ranked(judge, order, 'knockout')
      np.testing.assert_array_equal(score_N, np.array(order) == count - 1)
      self.assertEqual(judge.asked, 2 * (count - 1))  # two orders each

  def test_a_tie_keeps_the_incumbent(self):
    np.testing.assert_array_equal(
        ranked(Oracle(), [1, 2, 2], 'knockout'), [0, 1, 0])

  @parameterized.parameters(0, 2)
  def test_an_anchor_orders_all_others(self, anchor):
    qualities = np.roll([0.3, -1.0, 0.7, 2.0, 0.1], -anchor)
    judge = Oracle(favour=-2.0)
    score_N = ranked(judge, qualities, 'anchor')
    np.testing.assert_array_equal(np.argsort(score_N), np.argsort(qualities))
    self.assertEqual(score_N[0], 0.0)
    self.assertEqual(judge.asked, 8)

  def test_an_anchor_by_hand(self):
    # σ(1) - σ(-1), and σ(-2) - σ(2).
    np.testing.assert_allclose(ranked(Oracle(), [2, 3, 0], 'anchor'),
                               [0, 0.462117, -0.761594], atol=1e-6)

  def test_round_robin_by_hand(self):
    # σ(1) = 0.7311, σ(2) = 0.8808, by pairs (0, 1), (0, 2), (1, 2).
    score_N = ranked(Oracle(), [2, 1, 0], 'round_robin')
    np.testing.assert_allclose(score_N, [
        (0.731059 + 0.880797) / 2, (0.268941 + 0.731059) / 2,
        (0.119203 + 0.268941) / 2], atol=1e-6)
    self.assertAlmostEqual(score_N.mean(), 0.5)

  def test_the_reference_itself_earns_a_half(self):
    reward_N = pair_judge.against_reference(
        Oracle(3.0), ['p', 'p', 'q'], ['1', '1', '0'], ['1', '2', '-1'])
    self.assertEqual(reward_N[0], 0.5)
    self.assertGreater(reward_N[1], 0.5)
    self.assertLess(reward_N[2], 0.5)

  def test_what_cannot_be_shown_has_no_reward_and_no_rank(self):
    def judge(pairs):
      return np.array([[np.nan, np.nan] if 'long' in (p.first, p.second)
                       else [1.0, 0.0] for p in pairs])
    reward_N = pair_judge.against_reference(
        judge, ['', ''], ['a', 'a'], ['b', 'long'])
    np.testing.assert_array_equal(np.isnan(reward_N), [False, True])
    for ranking in pair_judge.RANKINGS:
      np.testing.assert_array_equal(
          ranked(judge, ['a', 'long', 'b'], ranking), [np.nan] * 3)

  @parameterized.product(ranking=pair_judge.RANKINGS, favour=(0.0, 3.0))
  def test_the_best_of_each_list_side_by_side(self, ranking, favour):
    rng = np.random.default_rng(0)
    lists = [[f'{q}' for q in rng.normal(size=size)] for size in (2, 5, 3, 5)]
    judge, calls = Oracle(favour), []

    def counted(pairs):
      calls.append(len(pairs))
      return judge(pairs)

    found = pair_judge.rank(counted, [''] * 4, lists, ranking)
    for one, score_N in zip(lists, found, strict=True):
      self.assertEqual(np.argmax(score_N), np.argmax(np.array(one, float)))
      self.assertLen(score_N, len(one))
    with self.subTest('as many calls as are said, in as few goes as one list'):
      self.assertEqual(judge.asked, sum(
          pair_judge.num_calls(ranking, len(one)) for one in lists))
      self.assertEqual(sum(some > 0 for some in calls),
                       4 if ranking == 'knockout' else 1)
    with self.subTest('as a list by itself'):
      np.testing.assert_array_equal(found[1], ranked(judge, lists[1], ranking))

  @parameterized.parameters(*pair_judge.RANKINGS)
  def test_one_order_alone_is_fooled_by_a_place(self, ranking):
    # Negative control: a judge that is shown the same order twice likes what
    # is shown first, and that is hardly ever the best.
    lists = [[f'{q}' for q in np.random.default_rng(seed).permutation(4)]
             for seed in range(20)]
    best = [int(np.argmax(np.array(one, float))) for one in lists]
    biased = Oracle(favour=9.0)

    def once(pairs):
      logit_N2 = biased(pairs[:len(pairs) // 2])
      return np.concatenate([logit_N2, logit_N2[:, ::-1]])

    right = lambda judge: np.mean([
        np.argmax(score_N) == i for score_N, i in zip(
            pair_judge.rank(judge, [''] * 20, lists, ranking), best,
            strict=True)])
    self.assertEqual(right(biased), 1.0)  # both orders
    self.assertLess(right(once), 0.6)

  def test_a_list_that_lacks_a_comparison_has_no_scores(self):
    def judge(pairs):
      return np.array([[np.nan] * 2 if 'x' in (p.first, p.second)
                       else [float(p.first), float(p.second)] for p in pairs])
    for ranking in pair_judge.RANKINGS:
      lacks, whole = pair_judge.rank(
          judge, ['', ''], [['1', 'x', '2'], ['1', '3', '2']], ranking)
      np.testing.assert_array_equal(lacks, [np.nan] * 3)
      self.assertEqual(np.argmax(whole), 1)

  def test_too_few(self):
    with self.assertRaisesRegex(ValueError, "got 'swiss'"):
      pair_judge.rank(Oracle(), [''], [['1', '2']], 'swiss')
    self.assertEqual(pair_judge.rank(Oracle(), [], [], 'anchor'), [])
    for ranking, responses in (('knockout', []), ('anchor', []),
                               ('round_robin', ['a'])):
      with self.assertRaisesRegex(ValueError, 'Sample more'):
        ranked(Oracle(), responses, ranking)


if __name__ == '__main__':
  absltest.main()
