import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
import numpy as np

from configs.pipeline import ring_lite_mini
from experiments import evaluate
from experiments import ring_lite
from experiments import sft
from experiments import train_policy


def result(scores, entropy=0.4):
  """What `evaluate.run` says of a checkpoint; one problem for each score."""
  mean = float(np.mean(scores))
  point = dict(k=1, estimate=mean, low=mean - 0.1, high=mean + 0.1)
  interval = dict(estimate=mean, low=mean - 0.1, high=mean + 0.1)
  return dict(
      scores=scores, accuracy=interval, entropy=dict(estimate=entropy),
      pass_at_k=[point], maj_at_k=[point], by_domain={'math': interval},
      response_length=10 * mean, num_problems=len(scores), num_samples=4)


class SummaryTest(absltest.TestCase):

  def test_seeds_are_averaged_and_problems_resampled(self):
    # Problem means over the two seeds: (0 + 1) / 2, (1 + 1) / 2 -> 0.75.
    found = ring_lite.summary([result([0.0, 1.0], 0.2),
                               result([1.0, 1.0], 0.6)])
    self.assertEqual(found['accuracy'], 0.75)
    self.assertEqual(found['interval'].estimate, 0.75)
    self.assertBetween(found['interval'].low, 0.5, 0.75)
    np.testing.assert_allclose(found['entropy'], 0.4)
    np.testing.assert_allclose(found['pass_at_k'][0]['low'], 0.65)
    np.testing.assert_allclose(found['response_length'], 7.5)
    self.assertEqual(found['num_problems'], 2)


class PipelineTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.enterContext(
        tempfile.TemporaryDirectory()))
    self.config = ring_lite_mini.get_config('smoke')
    self.config.sft.update(num_steps=6)  # checkpoints at 2, 4 and 6
    self.calls = []
    self.entropies = {2: 0.9, 4: 0.45, 6: 0.1}

  def run_seed(self, seed=0):
    """The pipeline with stages that only say what they were given."""
    def train(name):
      def run(config, workdir):
        self.calls.append((name, config.seed, config.get('name', ''),
                           config.init.checkpoint, config.init.step))
        self.finish(pathlib.Path(workdir), config.num_steps)
      return run

    def measure(config, workdir, checkpoints):
      self.calls.append(('evaluate', config.seed, config.evaluation.split,
                         {k: step for k, (_, step) in checkpoints.items()}))
      return {name: result([0.5], self.entropies.get(step, 0.4))
              for name, (_, step) in checkpoints.items()}

    with (mock.patch.object(sft, 'run', train('sft')),
          mock.patch.object(train_policy, 'run', train('rl')),
          mock.patch.object(evaluate, 'run', measure),
          mock.patch.object(ring_lite, 'accounts', lambda *a, **k: {})):
      return ring_lite.run_seed(self.config, self.workdir, seed)

  def finish(self, workdir, num_steps):
    (workdir / 'checkpoints' / str(num_steps)).mkdir(
        parents=True, exist_ok=True)
    (workdir / 'report.json').write_text('{}')

  def test_each_stage_starts_from_the_one_before(self):
    found = self.run_seed(seed=3)
    folder = lambda stage: str(self.workdir / stage / 'checkpoints')
    last = self.config.rl[0].num_steps
    self.assertEqual(self.calls, [
        ('sft', 3, '', '', -1),
        ('evaluate', 3, 'validation', {'sft_2': 2, 'sft_4': 4, 'sft_6': 6}),
        ('rl', 3, 'rl_math', folder('sft'), 4),  # 0.45 nats, within 0.3-0.5
        ('rl', 3, 'rl_code_science', folder('rl_math'), last),
        ('evaluate', 3, 'test', {'sft': 4, 'rl_math': last,
                                 'rl_code_science': last})])
    self.assertEqual(found['choice']['step'], 4)
    self.assertFalse(found['choice']['warning'])
    self.assertEqual(self.config.sft.seed, 0)  # the config was not changed

  def test_a_start_outside_the_band_is_said(self):
    self.entropies = {2: 0.9, 4: 0.8, 6: 0.7}
    found = self.run_seed()
    self.assertEqual(found['choice']['step'], 6)
    self.assertIn('0.3-0.5', found['choice']['warning'])

  def test_finished_stages_are_not_entered_again(self):
    self.run_seed()
    self.calls.clear()
    (self.workdir / 'rl_code_science' / 'report.json').unlink()
    self.run_seed()
    self.assertEqual([call[0] for call in self.calls],
                     ['evaluate', 'rl', 'evaluate'])
    self.assertEqual(self.calls[1][2], 'rl_code_science')

  def test_the_accounts_of_all_stages_are_put_together(self):
    for name, seconds in (('sft', dict(pack=1, update=2)), ('rl', dict(u=4))):
      (self.workdir / name).mkdir()
      (self.workdir / name / 'report.json').write_text(json.dumps(
          dict(seconds=seconds, compilations=dict(update=1))))
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


if __name__ == '__main__':
  absltest.main()
