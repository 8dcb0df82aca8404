"""Verdicts meet the responses that they are of."""
import dataclasses
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
from ml_collections import config_dict
import numpy as np

from configs import common
from experiments.evaluation import measurement
from experiments.policy import judging
from rljax.agents import language_model
from rljax.data import teacher
from rljax.evaluation import cot_pass_at_k
from tests.experiments import graded as graded_lib

_SUM = dict(
    graded_lib.record(0), id='sum', prompt='Calculate 8 + 10 + 8.', answer='26',
    family='basic_arithmetic', metadata='{"expression": "8 + 10 + 8"}')
_RIGHT = '8+10=18\n18+8=26. \\boxed{26}'
_GUESSED = '8+10=19\n19+8=26. \\boxed{26}'  # two wrong steps, the right answer


def graded(reward_PG, texts, records):
  return dataclasses.replace(graded_lib.make(reward_PG), texts=tuple(texts),
                             records=tuple(records))


def config(**judge):
  return config_dict.ConfigDict(dict(judge=common.judge() | judge))


class JudgingTest(parameterized.TestCase):

  def test_a_guessed_answer_is_no_right_reasoning(self):
    self.assertTrue(teacher.check(_SUM, _RIGHT).valid)
    found = judging.by_program(graded(
        [[1, 1], [1, 0]], [_RIGHT, _GUESSED, _RIGHT, '26'], [_SUM, _SUM]))
    np.testing.assert_array_equal(found[..., 0], [[1, 0], [1, 0]])

  def test_a_server_is_asked_for_right_answers_alone(self):
    asked = []

    def model(requests, *, on_reply=None):
      replies = []
      for i, request in enumerate(requests):
        asked.append(request.messages[-1]['content'])
        word = 'yes' if 'good' in asked[-1] else 'no'
        replies.append(language_model.Reply(
            (language_model.Response(f'\\boxed{{{word}}}', 'stop'),), 1, 1))
        on_reply(i, replies[-1])
      return replies
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    responses = graded([[1, 0], [None, 1]], ['good', 'good too', 'good', 'bad'],
                       [graded_lib.record(0), graded_lib.record(1)])
    found = judging.by_model(config(num_calls=2), responses, model,
                             folder / judging.CACHE)
    np.testing.assert_array_equal(
        found, [[[1, 1], [-1, -1]], [[-1, -1], [0, 0]]])
    self.assertLen(asked, 4)
    everything = judging.by_model(
        config(num_calls=2, everything=True), responses, model,
        folder / judging.CACHE)
    np.testing.assert_array_equal(
        everything, [[[1, 1], [1, 1]], [[-1, -1], [0, 0]]])
    self.assertLen(asked, 6)  # the others were kept

  def test_the_measurement_holds_every_rule(self):
    responses = graded_lib.make([[1, 1], [1, 0], [0, 0]])
    verdict_PGV = np.array([[[1, 1, 0], [1, 1, 1]], [[0, 0, 1], [1, 1, 1]],
                            [[1, 1, 1], [1, 1, 1]]])
    found = measurement.measure(responses, ks=(1, 2), seed=0, num_examples=0,
                                verdict_PGV=verdict_PGV)
    at_1 = {part.rule: part.cot_pass_at_k[0]['estimate']
            for part in found.reasoning}
    self.assertEqual(at_1, {'any': 0.5, 'majority': 1 / 3, 'all': 1 / 6})
    plain = measurement.measure(responses, ks=(1, 2), seed=0, num_examples=0)
    self.assertIsNone(plain.reasoning)
    once = measurement.measure(responses, ks=(1,), seed=0, num_examples=0,
                               verdict_PGV=verdict_PGV[..., :1])
    self.assertEqual([part.rule for part in once.reasoning], ['all'])
    self.assertNotIn(cot_pass_at_k.INVALID, verdict_PGV)

  def test_a_judge_of_everything_is_asked_for_the_logic_prior(self):
    # r0: sound ones right, unsound ones wrong; r1: the other way round.
    responses = graded_lib.make([[1, 1, 0, 0], [0, 0, 1, 1]])
    verdict_PGV = np.array([[1, 1, 0, 0]] * 2)[..., None]
    found = measurement.measure(
        responses, ks=(1,), seed=0, num_examples=0, verdict_PGV=verdict_PGV,
        **judging.reading(config(name='program')))
    self.assertEqual(
        (found.judge['p'], found.judge['alpha'], found.judge['beta']),
        (0.5, 0.5, 0.5))
    self.assertEqual(found.judge['violations'], ['r1'])
    right_only = measurement.measure(
        responses, ks=(1,), seed=0, num_examples=0, verdict_PGV=verdict_PGV,
        **judging.reading(config(name='server')))
    self.assertEqual(right_only.judge, {'agreement': None})

  def test_known_errors_of_a_judge_are_taken_out(self):
    responses = graded_lib.make([[1, 1, 1, 1], [1, 1, 0, 0]])
    verdict_PGV = np.array([[1, 1, 1, 0], [1, 0, 0, 0]])[..., None]
    share = lambda **judge: measurement.measure(
        responses, ks=(1,), seed=0, num_examples=0, verdict_PGV=verdict_PGV,
        **judging.reading(config(name='server', **judge))).reasoning[
            0].corrected
    self.assertIsNone(share())
    # Approved of the right ones: 3/4 and 1/2. ((5/8) - 1/4) / (1 - 1/4).
    np.testing.assert_allclose(
        share(fpr=0.25)['reasoning_right'].estimate, 0.5)

  @parameterized.parameters(
      (dict(missing='yes'), "got 'yes'"), (dict(fpr=0.9, tpr=0.5), 'fpr < tpr'),
      (dict(name='oracle'), "got 'oracle'"),
      (dict(name='server'), 'base_url and judge.model'))
  def test_a_judge_that_cannot_be_asked_is_refused(self, judge, message):
    with self.assertRaisesRegex(ValueError, message):
      judging.check(config(**judge))


if __name__ == '__main__':
  absltest.main()
