import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
import numpy as np

from experiments import evaluate
from experiments import launch
from experiments import responses
from rljax import rewards
from rljax.types import RewardResult
from tests.end_to_end import smoke
from tests.experiments import graded as graded_lib


class AnswerClassesTest(absltest.TestCase):

  def test_what_the_verifier_accepts_is_one_class_whatever_its_form(self):
    answer = lambda correct, text: RewardResult(
        correct, float(correct), 'ok', text, 0.0)
    graded = graded_lib.make([[1, 1, 0, 0, 0]])
    graded = responses.Graded(**vars(graded) | {'results': (
        answer(True, '1/2'), answer(True, '0.5'), answer(False, '2'),
        answer(False, None), answer(False, '2'))})
    np.testing.assert_array_equal(evaluate.answer_classes(graded),
                                  [[0, 0, 1, -1, 1]])


class ChooseRecordsTest(absltest.TestCase):

  def test_the_first_of_each_domain_in_their_order(self):
    records = [graded_lib.record(i, domain) for i, domain in enumerate(
        ['b', 'a', 'b', 'b', 'a'])]
    self.assertEqual([r['id'] for r in evaluate.choose_records(records, 2)],
                     ['r1', 'r4', 'r0', 'r2'])


class ReuseTest(absltest.TestCase):
  """Results on disk are used again exactly when they answer the question."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(
        tempfile.TemporaryDirectory()))
    self.config = smoke.get_config('evaluation')
    self.measured = []

  def run_it(self, **steps):
    """Evaluates checkpoints, and returns which were in fact measured."""
    for step in steps.values():
      (self.folder / 'from' / str(step)).mkdir(parents=True, exist_ok=True)
    zero = dict(estimate=0.0, low=0.0, high=0.0, level=0.95)

    def measure(config, job, sampler, params, *rest):
      del config, job, sampler, rest
      self.measured.append(params)
      return evaluate.Measurement(
          num_problems=1, num_samples=4, accuracy=zero, entropy=zero,
          pass_at_k=[dict(k=1, estimate=0.0, low=0.0, high=0.0)], maj_at_k=[],
          by_domain={}, truncated=0.0, response_length=1.0, verdicts={},
          examples=[], scores=[0.0])

    def initial_state(config, job, optimizer, key, source):
      return mock.Mock(params=source[1]), None

    with (mock.patch.object(evaluate, 'measure', measure),
          mock.patch.object(launch, 'initial_state', initial_state),
          mock.patch.object(launch, 'open_records', lambda *arguments: []),
          mock.patch.object(rewards, 'create', mock.MagicMock())):
      results = evaluate.run(
          self.config, self.folder / 'out', {
              name: (str(self.folder / 'from'), step)
              for name, step in steps.items()})
    self.assertSequenceEqual(list(results), list(steps))
    done, self.measured = self.measured, []
    return done

  def test_the_same_question_is_answered_from_disk(self):
    self.assertEqual(self.run_it(a=1, b=2), [1, 2])
    report = (self.folder / 'out' / 'report.json').read_bytes()
    self.assertEqual(self.run_it(a=1, b=2), [])
    self.assertEqual((self.folder / 'out' / 'report.json').read_bytes(), report)

  def test_another_checkpoint_or_config_is_measured(self):
    self.run_it(a=1, b=2)
    self.assertEqual(self.run_it(a=1, b=3), [3])
    self.config.evaluation.num_samples = 2
    self.assertEqual(self.run_it(a=1, b=3), [1, 3])

  def test_the_newest_is_looked_up_every_time(self):
    self.run_it(a=1)
    self.assertEqual(self.run_it(a=-1), [])  # step 1 under another name for it
    (self.folder / 'from' / '5').mkdir()
    self.assertEqual(self.run_it(a=-1), [5])


if __name__ == '__main__':
  absltest.main()
