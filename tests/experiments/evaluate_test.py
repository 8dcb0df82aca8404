import dataclasses
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from configs.evaluation import mini
from experiments import evaluate
from experiments.evaluation import measurement
from experiments.job import prompt_records
from experiments.job import starting_params
from rljax import rewards
from rljax.evaluation import report
from tests.end_to_end import smoke
from tests.experiments import graded as graded_lib


class ChooseRecordsTest(absltest.TestCase):

  def records(self, *tasks):
    """One for each (domain, family, difficulty)."""
    return [graded_lib.record(i, domain) | dict(
        family=family, difficulty=difficulty)
            for i, (domain, family, difficulty) in enumerate(tasks)]

  def chosen(self, records, per_domain):
    return [r['id'] for r in evaluate.choose_records(records, per_domain)]

  def test_the_first_of_each_domain_in_their_order(self):
    records = self.records(*[(d, 'f', 1) for d in 'babba'])
    self.assertEqual(self.chosen(records, 2), ['r1', 'r4', 'r0', 'r2'])

  def test_the_tasks_of_a_domain_take_turns(self):
    # Stored one task after the other: the first three would all be sums.
    records = self.records(*[('math', 'sums', 1)] * 3, ('math', 'sums', 2),
                           *[('math', 'gcd', 1)] * 2)
    self.assertEqual(self.chosen(records, 3), ['r0', 'r3', 'r4'])
    self.assertEqual(self.chosen(records, 5), ['r0', 'r3', 'r4', 'r1', 'r5'])
    self.assertLen(self.chosen(records, 99), 6)

  def test_a_single_problem_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'at least two problems.*got 1'):
      self.chosen(self.records(('math', 'sums', 1)), 5)


class CheckTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.config = mini.get_config('smoke')

  def test_the_config_as_it_is_passes(self):
    evaluate.check(self.config)

  def test_prompts_longer_than_the_slots_are_refused_before_the_start(self):
    self.config.data.max_prompt_length = 113
    with self.assertRaisesRegex(
        ValueError, 'max_prompt_length <= .* = 112, got 113. Lower'):
      evaluate.run(self.config, '/nowhere', {})

  @parameterized.parameters([(1, 8)], [(0, 1)], [()])
  def test_a_k_that_the_samples_cannot_give_is_refused(self, ks):
    self.config.evaluation.ks = ks
    with self.assertRaisesRegex(ValueError, 'between 1 and num_samples = 4'):
      evaluate.check(self.config)


class TablesTest(absltest.TestCase):

  def test_a_row_for_each_checkpoint_and_a_column_for_each_verdict(self):
    one = measurement.measure(
        graded_lib.make([[1, 0], [0, 1]], statuses=['ok', 'wrong'] * 2),
        ks=(1, 2), seed=0, num_examples=1)
    other = measurement.measure(
        graded_lib.make([[1, 0], [0, 1]], statuses=['ok', 'timeout'] * 2),
        ks=(1, 2), seed=0, num_examples=1)
    tables = evaluate.tables(report.plain(dict(
        before=dataclasses.asdict(one), after=dataclasses.asdict(other))))
    self.assertEqual(tables['verdicts'], [
        dict(checkpoint='before', ok=2, timeout=0, wrong=2),
        dict(checkpoint='after', ok=2, timeout=2, wrong=0)])
    row = tables['accuracy'][0]
    self.assertEqual(row['checkpoint'], 'before')
    self.assertEqual(row['accuracy']['estimate'], 0.5)
    self.assertEqual(row['math']['estimate'], 0.5)
    self.assertEqual(row['ungraded'], 0)
    self.assertEqual(tables['pass_at_k'][1]['k=2']['estimate'], 1)


  def test_a_judge_has_rows_for_its_rules_and_for_itself(self):
    found = measurement.measure(
        graded_lib.make([[1, 0], [1, 1]]), ks=(1, 2), seed=0, num_examples=0,
        verdict_PGV=np.array([[1, 0], [1, 0]])[..., None], everything=True,
        call_rates=(0.1, 0.9))
    tables = evaluate.tables(report.plain(dict(a=dataclasses.asdict(found))))
    row, = tables['cot_pass_at_k']
    # P(CC|CA) is 1 and 1/2: (3/4 - 0.1) / 0.8.
    self.assertAlmostEqual(
        row['reasoning_right, corrected']['estimate'], 0.8125)
    self.assertEqual(tables['judge'][0]['violations'], [])
    # One that is never right has no such number, and the same columns.
    never = measurement.measure(
        graded_lib.make([[0, 0], [0, 0]]), ks=(1, 2), seed=0, num_examples=0,
        verdict_PGV=np.zeros((2, 2, 1), int), everything=True,
        call_rates=(0.1, 0.9))
    tables = evaluate.tables(report.plain(dict(
        a=dataclasses.asdict(found), b=dataclasses.asdict(never))))
    first, second = tables['cot_pass_at_k']
    self.assertEqual(first.keys(), second.keys())
    self.assertIsNone(second['reasoning_right, corrected'])
    self.assertEqual(tables['judge'][0]['alpha'], 1.0)


class ReuseTest(absltest.TestCase):
  """Results on disk are used again exactly when they answer the question."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(
        tempfile.TemporaryDirectory()))
    self.config = smoke.get_config('evaluation')
    self.measured = []

  def write(self, step, content=''):
    """A checkpoint, as far as its name and the sums of its files say."""
    folder = self.folder / 'from' / str(step)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'checksums.json').write_text(content)

  def run_it(self, **steps):
    """Evaluates checkpoints, and returns which were in fact measured."""
    for step in steps.values():
      if step > 0 and not (self.folder / 'from' / str(step)).exists():
        self.write(step)

    def measure(config, job, sampler, params, *rest):
      del config, job, sampler, rest
      self.measured.append(params)
      return measurement.measure(graded_lib.make([[1, 0], [0, 0]]), ks=(1, 2),
                                 seed=0, num_examples=0)

    def initial_state(config, job, optimizer, key, source):
      return mock.Mock(params=source[1]), None

    with (mock.patch.object(evaluate, 'measure', measure),
          mock.patch.object(starting_params, 'initial_state', initial_state),
          mock.patch.object(prompt_records, 'open_records',
                            lambda *arguments: []),
          mock.patch.object(evaluate, 'choose_records', lambda *arguments: []),
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
    self.config.evaluation.update(num_samples=2, ks=(1, 2))
    self.assertEqual(self.run_it(a=1, b=3), [1, 3])

  def test_the_newest_is_looked_up_every_time(self):
    self.run_it(a=1)
    self.assertEqual(self.run_it(a=-1), [])  # step 1 under another name for it
    self.write(5)
    self.assertEqual(self.run_it(a=-1), [5])

  def test_a_checkpoint_trained_again_in_the_same_folder_is_measured(self):
    self.assertEqual(self.run_it(a=1, b=2), [1, 2])
    self.write(1, 'other sums')
    self.assertEqual(self.run_it(a=1, b=2), [1])

  def test_a_step_that_is_not_there_is_named_with_those_that_are(self):
    self.write(1)
    self.write(3)
    job = mock.Mock(fingerprint={})
    with self.assertRaisesRegex(ValueError, r'step 2 in .*found \[1, 3\]'):
      evaluate.request(self.config, job, str(self.folder / 'from'), 2)


if __name__ == '__main__':
  absltest.main()
