import json
import tempfile

from absl.testing import absltest
import numpy as np

from experiments.policy import responses
from rljax.data import tokenizer as tokenizers
from rljax.training import metrics
from rljax.types import RewardResult
from tests.experiments import graded as graded_lib
from tests.packing import rollouts


class GradeTest(absltest.TestCase):

  def test_every_response_meets_the_record_of_its_prompt(self):
    samples = rollouts.make_rollout([[1, 2], [3, 4]], [2, 2], 8)
    text = ['a', 'é', 'def', 'ghij']  # the second: one character, two tokens
    tokenizer = tokenizers.load('byte')
    for r, content in enumerate(text):
      p, g = divmod(r, 2)
      ids = tokenizer.encode(content)
      samples.tokens_PGT[p, g, :len(ids)] = ids
    results = [RewardResult(True, 1.0, 'ok', '1', 0.0),
               RewardResult(False, 0.25, 'wrong', '2', 0.0),
               RewardResult(False, None, 'infra_error', None, 0.0),
               RewardResult(False, 0.0, 'timeout', None, 0.0)]
    scorer = graded_lib.Scripted(results)
    records = [graded_lib.record(0), graded_lib.record(1)]
    graded = responses.grade(samples, records, scorer, tokenizer)
    (seen, texts, lengths, stopped), = scorer.seen
    self.assertEqual([r['id'] for r in seen], ['r0', 'r0', 'r1', 'r1'])
    self.assertEqual(texts, tuple(text))
    self.assertEqual(lengths, (1, 2, 3, 4))
    self.assertEqual(stopped, (True,) * 4)
    np.testing.assert_array_equal(graded.reward_PG, [[1, 0.25], [0, 0]])
    # A timeout is the response's own; a broken verifier is not.
    np.testing.assert_array_equal(graded.valid_PG, [[True, True],
                                                    [False, True]])
    np.testing.assert_array_equal(graded.correct_PG, [[True, False],
                                                      [False, False]])
    self.assertEqual(responses.verdicts(graded), dict(
        ok=1, wrong=1, infra_error=1, timeout=1))

  def test_the_means_leave_out_what_nobody_could_grade(self):
    found = responses.summary(graded_lib.make(
        [[1, 0], [None, 0]], statuses=['ok', 'wrong', 'infra_error', 'wrong']))
    np.testing.assert_allclose(found['reward'], 1 / 3, rtol=1e-6)
    # One of three: a broken verifier does not make the policy look worse.
    np.testing.assert_allclose(found['accuracy'], 1 / 3)
    self.assertEqual(found['ungradable'], 1)
    self.assertEqual(found['verdict_wrong'], 2)
    none = responses.summary(graded_lib.make([[None, None]]))
    self.assertTrue(np.isnan(none['reward']))
    self.assertTrue(np.isnan(none['accuracy']))

  def test_the_verdicts_of_a_run_are_those_of_its_metrics(self):
    folder = self.enterContext(tempfile.TemporaryDirectory())
    lines = [{'step': 0, 'verdict_ok': 3.0, 'verdict_timeout': 1.0},
             {'step': 1, 'verdict_ok': 4.0, 'loss': 1.0,
              'hint_verdict_infra_error': 2.0}]
    with open(f'{folder}/{metrics.FILE_NAME}', 'w') as file:
      file.writelines(json.dumps(line) + '\n' for line in lines)
    self.assertEqual(responses.total_verdicts(folder), {
        'ok': 7, 'timeout': 1, 'infra_error, with a hint': 2})


class TakeAndJoinTest(absltest.TestCase):

  def test_taking_prompts_keeps_their_samples_together(self):
    graded = graded_lib.make([[1, 0], [0, 0], [0, 1]],
                             [[1, 2], [3, 4], [5, 6]])
    some = responses.take(graded, np.array([True, False, True]))
    self.assertEqual([r['id'] for r in some.records], ['r0', 'r2'])
    self.assertEqual(some.texts, ('text 0', 'text 1', 'text 4', 'text 5'))
    np.testing.assert_array_equal(some.rollout.length_PG, [[1, 2], [5, 6]])
    np.testing.assert_array_equal(some.correct_PG, [[True, False],
                                                    [False, True]])
    self.assertEqual([r.is_correct for r in some.results],
                     some.correct_PG.ravel().tolist())

  def test_joining_what_was_taken_apart_gives_it_back(self):
    graded = graded_lib.make([[1, 0], [0, None], [0, 1]],
                             [[1, 2], [3, 4], [5, 6]])
    first = np.array([True, True, False])
    again = responses.join([responses.take(graded, first),
                            responses.take(graded, ~first)])
    self.assertEqual(again.records, graded.records)
    self.assertEqual(again.texts, graded.texts)
    self.assertEqual(again.results, graded.results)
    for name in ('reward_PG', 'valid_PG', 'correct_PG'):
      np.testing.assert_array_equal(getattr(again, name), getattr(graded, name))
    np.testing.assert_array_equal(again.rollout.tokens_PGT,
                                  graded.rollout.tokens_PGT)


if __name__ == '__main__':
  absltest.main()
