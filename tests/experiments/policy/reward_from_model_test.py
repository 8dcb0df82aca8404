"""Rewards of a model in the place of a verifier's; nothing is compiled."""
import contextlib
import dataclasses
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from configs.policy import c3po_tiny
from experiments import make_pairs
from experiments.policy import responses
from experiments.policy import reward_from_model
from experiments.reward import trained_reward
from rljax.agents import pair_judge
from rljax.data import tokenizer as tokenizers
from rljax.rewards import model_based
from tests.experiments import graded as graded_lib
from tests.packing import rollouts


class Draw:
  """Stands in for the sampler: notes how it is asked."""

  def __init__(self, texts):
    self.texts, self.asked = texts, []
    self.params, self.key = 'params', 'key'
    self.tokenizer = tokenizers.ByteTokenizer()
    self.sampling = dict(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
    self.clock = lambda stage: contextlib.nullcontext()

  def sampler(self, params, prompts, key, **options):
    self.asked.append((params, len(prompts), options))
    length_PG = np.array([[len(text)] for text in self.texts])
    rollout = rollouts.make_rollout(length_PG, [3] * len(self.texts), 8)
    tokens_PGT = np.zeros((len(self.texts), 1, 8), np.int32)
    for p, text in enumerate(self.texts):
      tokens_PGT[p, 0, :len(text)] = list(text.encode())
    return dataclasses.replace(rollout, tokens_PGT=tokens_PGT)


def of_length(pairs):
  """A judge that likes long responses; of 'text 3' it says nothing."""
  return np.array([[np.nan] * 2 if 'text 3' in (pair.first, pair.second)
                   else [len(pair.first), len(pair.second)] for pair in pairs])


class ScoresTest(absltest.TestCase):

  def test_the_score_is_the_reward_and_the_verdict_stays(self):
    graded = graded_lib.make([[1, 0], [None, 1]])
    asked = []

    def ask(prompts, texts, stopped):
      asked.append((list(prompts), list(texts), list(stopped)))
      return np.array([0.5, -1.0, 2.0, np.nan])

    found = reward_from_model.by_scores(graded, ask, None)
    np.testing.assert_array_equal(found.reward_PG, [[0.5, -1.0], [2.0, 0.0]])
    np.testing.assert_array_equal(found.valid_PG, [[True, True], [True, False]])
    np.testing.assert_array_equal(found.correct_PG, graded.correct_PG)
    prompts, texts, _ = asked[0]
    self.assertEqual(prompts, ['Say 0.', 'Say 0.', 'Say 1.', 'Say 1.'])
    self.assertEqual(texts, list(graded.texts))
    summary = responses.summary(found)
    self.assertEqual(summary['ungradable'], 1.0)
    self.assertAlmostEqual(summary['reward'], 0.5)

  def test_normalised_by_what_was_measured(self):
    found = reward_from_model.by_scores(
        graded_lib.make([[1, 0]]), lambda *_: np.array([5.0, 1.0]),
        model_based.Statistics(3.0, 2.0, 10, 'x', 1))
    np.testing.assert_array_equal(found.reward_PG, [[1.0, -1.0]])


class JudgeTest(parameterized.TestCase):

  def test_against_one_greedy_answer_for_each_prompt(self):
    graded = graded_lib.make([[1, 0], [0, 1]])
    draw = Draw(['text 0', 'short'])
    found = reward_from_model.by_judge(graded, draw, of_length, 'probability')
    # 'text 0' against itself; 'text 2' is one letter longer than 'short'.
    self.assertEqual(found.reward_PG[0, 0], 0.5)
    self.assertAlmostEqual(found.reward_PG[1, 0], 1 / (1 + np.exp(-1)),
                           places=6)
    np.testing.assert_array_equal(found.valid_PG, [[True, True], [True, False]])
    params, prompts, options = draw.asked[0]
    self.assertLen(draw.asked, 1)
    self.assertEqual((params, prompts), ('params', 2))
    self.assertEqual(options, dict(samples_per_prompt=1, temperature=0.0,
                                   top_k=0, top_p=1.0, min_p=0.0))


class RankingTest(parameterized.TestCase):
  TRUTH = [[3, 1, 4, 2], [0, 0, 0, 0], [1, 2, 2, 0]]

  def graded(self):
    graded = graded_lib.make([[1, 0, 1, 0]] * 3)
    return dataclasses.replace(graded, texts=tuple(
        f'{quality}' for row in self.TRUTH for quality in row))

  def judge(self, favour=0.0, silent=''):
    """Knows the truth, and favours what it is shown first."""
    self.calls = 0

    def ask(pairs):
      self.calls += len(pairs)
      return np.array([[np.nan] * 2 if silent and silent in (p.first, p.second)
                       else [float(p.first) + favour, float(p.second)]
                       for p in pairs])
    ask.shows = lambda text: text != silent
    return ask

  def config(self, ranking):
    config = c3po_tiny.get_config('smoke')
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    (folder / 'config.json').write_text('{"form": "judge"}')
    config.reward_model.update(run=str(folder), ranking=ranking)
    return config

  @parameterized.product(ranking=pair_judge.RANKINGS, favour=(0.0, 7.0))
  def test_best_and_worst_are_a_pair_whatever_the_place(self, ranking, favour):
    judge = self.judge(favour)
    found = reward_from_model.by_ranking(
        self.graded(), Draw([]), judge, ranking, 'probability')
    groups = [make_pairs.pick(found, p) for p in range(3)]
    pair = lambda group: (group['pair']['chosen'], group['pair']['rejected'])
    self.assertEqual([pair(groups[0]), pair(groups[2])],
                     [('4', '1'), ('2', '0')])
    self.assertStartsWith(groups[1]['outcome'], 'all_equal')
    np.testing.assert_array_equal(found.correct_PG, self.graded().correct_PG)
    with self.subTest('and the report says how often the judge was asked'):
      self.assertEqual(reward_from_model.most_judge_calls(
          self.config(ranking), 3, 4), self.calls)

  @parameterized.parameters(*pair_judge.RANKINGS)
  def test_one_order_would_take_the_first(self, ranking):
    # Negative control: without the other order, a favour for the first place
    # finds another pair.
    biased = self.judge(7.0)

    def once(pairs):
      logit_N2 = biased(pairs[:len(pairs) // 2])
      return np.concatenate([logit_N2, logit_N2[:, ::-1]])

    found = reward_from_model.by_ranking(
        self.graded(), Draw([]), once, ranking, 'probability')
    group = make_pairs.pick(found, 0)
    self.assertNotEqual((group['pair']['chosen'], group['pair']['rejected']),
                        ('4', '1'))

  @parameterized.parameters(*pair_judge.RANKINGS)
  def test_a_group_that_cannot_be_compared_has_no_rewards(self, ranking):
    found = reward_from_model.by_ranking(
        self.graded(), Draw([]), self.judge(silent='4'), ranking, 'probability')
    np.testing.assert_array_equal(found.valid_PG.all(axis=1),
                                  [False, True, True])
    self.assertFalse(found.valid_PG[0].any())

  @parameterized.parameters(*pair_judge.RANKINGS)
  def test_samples_that_are_never_shown_leave_the_others_their_rewards(
      self, ranking):
    judge = self.judge(silent='4')
    found = reward_from_model.by_ranking(
        self.graded(), Draw([]), judge, ranking, 'probability',
        shows=judge.shows)
    np.testing.assert_array_equal(
        found.valid_PG, [[True, True, False, True], [True] * 4, [True] * 4])
    pair = make_pairs.pick(found, 0)['pair']
    self.assertEqual((pair['chosen'], pair['rejected']), ('3', '1'))
    with self.subTest('one that is left, or none, has nothing to beat'):
      for alone in ('3', '5'):
        found = reward_from_model.by_ranking(
            self.graded(), Draw([]), judge, ranking, 'probability',
            shows=lambda text, alone=alone: text == alone)
        self.assertFalse(found.valid_PG.any())

  @parameterized.parameters(*pair_judge.RANKINGS)
  def test_the_config_chooses(self, ranking):
    config, job = self.config(ranking), mock.Mock()
    load = lambda form: mock.patch.object(
        trained_reward, 'load', lambda *_, **__: trained_reward.Loaded(
            form, self.judge(), pathlib.Path(), 1))
    with load('judge'):
      found = reward_from_model.create(config, job)(self.graded(), Draw([]))
    np.testing.assert_array_equal(
        found.reward_PG, reward_from_model.by_ranking(
            self.graded(), Draw([]), self.judge(), ranking,
            'probability').reward_PG)
    with load('scores'):
      with self.assertRaisesRegex(ValueError, f'compares nothing.*{ranking}'):
        reward_from_model.create(config, job)

  def test_calls_without_a_ranking(self):
    self.assertEqual(
        reward_from_model.most_judge_calls(self.config('reference'), 3, 4), 24)
    self.assertEqual(reward_from_model.most_judge_calls(
        c3po_tiny.get_config('smoke'), 3, 4), 0)  # the verifiers reward


class CheckTest(parameterized.TestCase):

  @parameterized.parameters(('heads', 'max'), ('average', 'median'),
                            ('ranking', 'swiss'))
  def test_unknown_words_are_refused(self, name, word):
    config = c3po_tiny.get_config('smoke')
    reward_from_model.check(config, 2)
    config.reward_model[name] = word
    with self.assertRaisesRegex(ValueError, word):
      reward_from_model.check(config, 2)

  @parameterized.parameters('min', 'lower')
  def test_statistics_are_of_the_mean_of_heads(self, heads):
    config = c3po_tiny.get_config('smoke')
    config.reward_model.update(normalize=True)
    reward_from_model.check(config, 2)
    config.reward_model.heads = heads
    with self.assertRaisesRegex(ValueError, f"heads='mean'.*got '{heads}'"):
      reward_from_model.check(config, 2)

  def test_one_sample_is_nothing_to_rank(self):
    config = c3po_tiny.get_config('smoke')
    config.reward_model.run = 'somewhere'
    reward_from_model.check(config, 1)  # against a greedy answer
    config.reward_model.ranking = 'round_robin'
    reward_from_model.check(config, 2)
    with self.assertRaisesRegex(ValueError, 'samples_per_prompt=1'):
      reward_from_model.check(config, 1)

  def test_without_a_run_the_verifiers_reward(self):
    self.assertIsNone(reward_from_model.create(
        c3po_tiny.get_config('smoke'), None))


if __name__ == '__main__':
  absltest.main()
