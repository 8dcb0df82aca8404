import json
import pathlib
import shutil
import tempfile
from unittest import mock

from absl.testing import absltest
import numpy as np

from configs.pipeline import ring_lite_mini
from experiments import evaluate
from experiments import ring_lite
from experiments import sft
from experiments import train_policy
from experiments.job import run_folder
from rljax.evaluation import report
from tests.experiments import graded as graded_lib


class AccountTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    domains = ['math', 'math', 'code', 'code']
    make = lambda *correct: graded_lib.result(correct, domains=domains)
    part = lambda sft, math, code: dict(
        results=dict(sft=sft, rl_math=math, rl_code=code), step_seconds=[],
        choice=dict(step=4, warning=None, candidates=[]))
    # Math is learnt in the first stage and half forgotten in the second.
    self.parts = [part(make(0, 0, 1, 1), make(4, 4, 1, 1), make(2, 2, 4, 4)),
                  part(make(0, 0, 3, 3), make(2, 2, 3, 3), make(1, 1, 3, 3))]
    self.found = ring_lite.account((7, 8), self.parts)

  def test_the_stages_say_what_was_gained_and_what_was_forgotten(self):
    rows = {row['stage']: row for row in self.found['changes']}
    self.assertSequenceEqual(list(rows), ['rl_math', 'rl_code', 'all stages'])
    got = [[rows[stage][name].estimate for name in ('accuracy', 'code', 'math')]
           for stage in rows]
    # Seeds averaged; math 0, 3/4, 3/8 and code 1/2, 1/2, 7/8.
    np.testing.assert_allclose(got, [
        [3 / 8, 0, 3 / 4], [0, 3 / 8, -3 / 8], [3 / 8, 3 / 8, 3 / 8]])
    stages = [[row[name].estimate for name in ('code', 'math')]
              for row in self.found['stages']]
    np.testing.assert_allclose(stages, [[1 / 2, 0], [1 / 2, 3 / 4],
                                        [7 / 8, 3 / 8]])

  def test_the_gain_is_over_all_seeds_and_of_each(self):
    np.testing.assert_allclose(self.found['gain'].interval.estimate, 3 / 8)
    self.assertGreater(self.found['gain'].interval.low, 0)
    # (2 + 2 + 3 + 3) / 16 and (1 + 1 + 0 + 0) / 16.
    np.testing.assert_allclose(
        [row['gain'].estimate for row in self.found['seeds']], [5 / 8, 1 / 8])
    self.assertEqual([row['seed'] for row in self.found['seeds']], [7, 8])

  def test_the_report_is_written_as_tables(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    report.write_report(folder, title='t', command='c', seed=0, seconds={},
                        compilations={}, sections=self.found)
    text = (folder / 'report.md').read_text()
    self.assertIn('| stage | accuracy | code | math |', text)
    self.assertIn('| rl_code | 0 [', text)


class CheckTest(absltest.TestCase):

  def test_the_last_step_is_compared_wherever_it_falls(self):
    stage = ring_lite_mini.get_config('smoke').sft
    stage.update(num_steps=7)
    stage.checkpoint.every = 3
    self.assertEqual(ring_lite.candidates(stage), [3, 6, 7])
    stage.num_steps = 6
    self.assertEqual(ring_lite.candidates(stage), [3, 6])

  def test_keeping_fewer_than_are_compared_is_refused_at_the_start(self):
    config = ring_lite_mini.get_config('smoke')
    config.sft.checkpoint.keep = 2  # of steps 2 and 4
    ring_lite.check(config)
    config.sft.checkpoint.keep = 1
    with self.assertRaisesRegex(ValueError, 'None or >= 2.*got 1. Raise it'):
      ring_lite.run(config, '/nowhere')


class PipelineTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.enterContext(
        tempfile.TemporaryDirectory()))
    self.config = ring_lite_mini.get_config('smoke')
    self.config.sft.update(num_steps=5)  # checkpoints at 2, 4 and 5
    self.calls = []
    self.entropies = {2: 0.9, 4: 0.45, 5: 0.1}
    self.finished = {}  # folder of a stage -> its config

  def run_seed(self, seed=0):
    """The pipeline with stages that only say what they were given."""
    def train(name):
      def run(config, workdir):
        self.calls.append((name, config.seed, config.get('name', ''),
                           config.init.checkpoint, config.init.step))
        for step in (2, 4, config.num_steps):
          folder = workdir / 'checkpoints' / str(step)
          folder.mkdir(parents=True, exist_ok=True)
          (folder / 'checksums.json').write_text('sums')
        self.finished[workdir] = config.to_dict()
      return run

    def finished(config, workdir):
      return self.finished.get(workdir) == config.to_dict()

    def measure(config, workdir, checkpoints):
      self.calls.append(('evaluate', config.seed, config.evaluation.split,
                         {k: step for k, (_, step) in checkpoints.items()}))
      return {name: graded_lib.result([2, 2], self.entropies.get(step, 0.4))
              for name, (_, step) in checkpoints.items()}

    with (mock.patch.object(sft, 'run', train('sft')),
          mock.patch.object(train_policy, 'run', train('rl')),
          mock.patch.object(evaluate, 'run', measure),
          mock.patch.object(run_folder, 'finished', finished),
          mock.patch.object(ring_lite, 'accounts', lambda *a, **k: {})):
      return ring_lite.run_seed(self.config, self.workdir, seed)

  def test_each_stage_starts_from_the_one_before(self):
    found = self.run_seed(seed=3)
    folder = lambda stage: str(self.workdir / stage / 'checkpoints')
    last = self.config.rl[0].num_steps
    self.assertEqual(self.calls, [
        ('sft', 3, '', '', -1),
        ('evaluate', 3, 'validation', {'sft_2': 2, 'sft_4': 4, 'sft_5': 5}),
        ('rl', 3, 'rl_math', folder('sft'), 4),  # 0.45 nats, within 0.3-0.5
        ('rl', 3, 'rl_code_science', folder('rl_math'), last),
        ('evaluate', 3, 'test', {'sft': 4, 'rl_math': last,
                                 'rl_code_science': last})])
    self.assertEqual(found['choice']['step'], 4)
    self.assertFalse(found['choice']['warning'])
    self.assertEqual(self.config.sft.seed, 0)  # the config was not changed

  def test_a_start_outside_the_band_is_said(self):
    self.entropies = {2: 0.9, 4: 0.8, 5: 0.7}
    found = self.run_seed()
    self.assertEqual(found['choice']['step'], 5)
    self.assertIn('0.3-0.5', found['choice']['warning'])

  def test_what_was_deleted_is_not_compared_and_this_is_said(self):
    self.run_seed()
    shutil.rmtree(self.workdir / 'sft' / 'checkpoints' / '2')
    found = self.run_seed()
    self.assertEqual(self.calls[-2][3], {'sft_4': 4, 'sft_5': 5})
    self.assertIn('SFT steps [2] are not compared', found['choice']['warning'])

  def test_finished_stages_are_not_entered_again(self):
    self.run_seed()
    self.calls.clear()
    del self.finished[self.workdir / 'rl_code_science']
    self.run_seed()
    self.assertEqual([call[0] for call in self.calls],
                     ['evaluate', 'rl', 'evaluate'])
    self.assertEqual(self.calls[1][2], 'rl_code_science')

  def test_a_stage_whose_start_was_trained_again_is_not_reused(self):
    self.run_seed()
    self.calls.clear()
    last = str(self.config.rl[0].num_steps)
    sums = self.workdir / 'rl_math' / 'checkpoints' / last / 'checksums.json'
    sums.write_text('other sums')
    with self.assertRaisesRegex(
        ValueError, 'rl_code_science to have begun from step 3 .*Delete'):
      self.run_seed()
    self.assertEqual([call[0] for call in self.calls], ['evaluate'])
    shutil.rmtree(self.workdir / 'rl_code_science')  # as the message says
    del self.finished[self.workdir / 'rl_code_science']
    self.run_seed()
    self.assertIn('rl_code_science', [call[2] for call in self.calls])

  def test_the_accounts_of_all_stages_are_put_together(self):
    for name, seconds in (('sft', 3.0), ('rl', 4.0)):
      (self.workdir / name).mkdir()
      (self.workdir / name / 'report.json').write_text(json.dumps(
          dict(seconds=dict(step=0.1), compilations=dict(update=1))))
      (self.workdir / name / 'wall_seconds.json').write_text(str(seconds))
    parts = ('rollout', 'reward', 'pack', 'update')
    lines = [dict(step=i, **{f'{part}_seconds': float(s) for part in parts},
                  **{f'{part}_tokens_per_second': 10.0 * s for part in parts})
             for i, s in enumerate((9, 1, 2))]  # the first one compiles
    (self.workdir / 'rl' / 'metrics.jsonl').write_text(
        ''.join(json.dumps(line) + '\n' for line in lines))
    found = ring_lite.accounts(self.workdir, ['sft', 'rl'], last='rl')
    self.assertEqual(found['seconds'], dict(sft=3, rl=4))
    self.assertEqual(found['compilations'], {'sft/update': 1, 'rl/update': 1})
    self.assertEqual(found['step_seconds'][0], dict(
        part='rollout', seconds=2.0, tokens_per_second=20.0))


class TimedTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(
        tempfile.TemporaryDirectory())) / 'stage'
    clock = iter([0.0, 5.0, 10.0, 12.0])
    self.enterContext(mock.patch.object(
        ring_lite.time, 'perf_counter', lambda: next(clock)))

  def seconds(self):
    return json.loads((self.folder / 'wall_seconds.json').read_text())

  def test_parts_of_a_stage_add_up_to_all_of_its_wall_time(self):
    with self.assertRaises(KeyboardInterrupt), ring_lite.timed(self.folder):
      raise KeyboardInterrupt
    self.assertEqual(self.seconds(), 5)
    with ring_lite.timed(self.folder):
      (self.folder / 'report.json').write_text('{}')
    self.assertEqual(self.seconds(), 7)

  def test_a_start_that_does_nothing_adds_nothing(self):
    with ring_lite.timed(self.folder):
      (self.folder / 'report.json').write_text('{}')
    with ring_lite.timed(self.folder):
      pass
    self.assertEqual(self.seconds(), 5)


if __name__ == '__main__':
  absltest.main()
