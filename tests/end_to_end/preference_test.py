"""Pairs through the script: what is scored, saved, resumed and refused."""
import json
import math
import os
import shutil
import signal
import tempfile
from unittest import mock

from absl.testing import absltest
import jax
import numpy as np
import pytest

from configs import common
from configs.preference import dpo_tiny
from configs.preference import tgdpo_tiny
from experiments import train_preference
from experiments.job import launch
from experiments.job import pins
from experiments.job import run_folder
from experiments.job import starting_params
from rljax.training import checkpoint
from rljax.training import metrics
from rljax.training import optimizer as optimizers
from rljax.training import preference
from tests.end_to_end import runs

_STEPS = 4


@pytest.mark.usefixtures('one_device', 'compilation_cache')
class PreferenceTest(absltest.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path):
    self.folder = tmp_path

  def config(self, module=dpo_tiny, **overrides):
    config = module.get_config('smoke')
    config.model = dict(variant='tiny', num_layers=1, vocab_size=272)
    config.num_steps = _STEPS
    config.data.source.data_dir = str(self.folder / 'data')
    config.optimizer.learning_rate = 1e-2
    config.lock()
    config.update_from_flattened_dict(overrides)
    return config

  def run_script(self, name, config):
    with metrics.CompilationCounter() as counter:
      state = train_preference.run(config, self.folder / name)
    return state, metrics.read(
        self.folder / name / metrics.FILE_NAME), counter.counts

  def assert_same_end(self, name, want='whole'):
    got, want = (self.folder / run for run in (name, want))
    runs.assert_same_bits(runs.checkpoint(got / 'checkpoints', _STEPS),
                          runs.checkpoint(want / 'checkpoints', _STEPS))
    self.assertEqual(runs.lines(got), runs.lines(want))

  def test_a_run_and_what_continues_it(self):
    state, lines, counts = self.run_script('whole', self.config())
    with self.subTest('each function is compiled once'):
      self.assertEqual([counts[name] for name in (
          'score', 'update', 'by_pair')], [1, 1, 1])
    with self.subTest('the policy begins as its own reference'):
      self.assertAlmostEqual(lines[0]['loss'], math.log(2), delta=1e-6)
      self.assertAlmostEqual(lines[0]['reward_margin'], 0, delta=1e-5)
      self.assertGreater(abs(lines[-1]['reward_chosen']), 1e-3)
    with self.subTest('the report'):
      self.check_report(json.loads((
          self.folder / 'whole' / 'report.json').read_text()))
    with self.subTest('a run that ends early goes on'):
      self.run_script('early', self.config(num_steps=2))
      self.run_script('early', self.config())
      self.assert_same_end('early')
    with self.subTest('SIGTERM, and scores that a kill has cut'):
      self.stop_after_step(1, 'stopped')
      for part in (self.folder / 'stopped' / 'scores').rglob('*.npz'):
        part.unlink()
      self.run_script('stopped', self.config())
      self.assert_same_end('stopped')
    with self.subTest('scores of each step are the kept ones'):
      fresh, fresh_lines, _ = self.run_script(
          'fresh', self.config(**{'scores.precompute': False}))
      self.assertFalse((self.folder / 'fresh' / 'scores').exists())
      self.assertAlmostEqual(fresh_lines[0]['loss'], math.log(2), delta=1e-6)
      for a, b in zip(lines, fresh_lines, strict=True):
        self.assertAlmostEqual(a['loss'], b['loss'], delta=1e-3)
    with self.subTest('stale scores are refused'):
      shutil.copytree(self.folder / 'whole' / 'scores',
                      self.folder / 'stale' / 'scores')
      with self.assertRaisesRegex(ValueError, "truncation: there .*'max_respo"):
        self.run_script('stale', self.config(
            **{'data.max_response_length': 20}))
      with self.assertRaisesRegex(ValueError, 'parameters: there'):
        self.run_script('stale', self.config(seed=1))
      config = self.config()
      with config.unlocked():
        config.model.rope_theta = 77.0  # the same parameters, another model
      with self.assertRaisesRegex(ValueError, "model: there .*now .*77.0"):
        self.run_script('stale', config)
    with self.subTest('a guide that DPO has trained'):
      self.check_guide(state)

  def test_losses_that_take_the_reference_along(self):
    for name, first, compiled in (('kto', 0.5, ('score', 'update')),
                                  ('tdpo', math.log(2), (
                                      'score', 'update', 'divergence'))):
      with self.subTest(name):
        config = self.config(loss=dict(name=name, beta=0.1))
        _, lines, counts = self.run_script(name, config)
        self.assertEqual([counts[part] for part in compiled],
                         [1] * len(compiled))
        self.assertAlmostEqual(lines[0]['loss'], first, delta=1e-6)
        self.assertNotAlmostEqual(lines[-1]['loss'], first, delta=1e-4)
        before, after = (json.loads((
            self.folder / name / 'report.json').read_text())['held_out'][when]
                         for when in ('before', 'after'))
        self.assertAlmostEqual(before['loss']['estimate'], first, delta=1e-6)
        self.assertNotAlmostEqual(after['loss']['estimate'], first, delta=1e-4)
        early = self.config(loss=dict(name=name, beta=0.1), num_steps=2)
        self.run_script(f'{name}_early', early)
        self.run_script(f'{name}_early', config)
        self.assert_same_end(f'{name}_early', name)

  def test_steps_of_answers(self):
    says = lambda who, text: {'role': who, 'content': text}
    rows = [{'prompt': [says('user', f'{i} + 1 + 1?'),
                        says('assistant', f'{i} + 1 = {i + 1}; ')],
             'chosen': f'{i + 1} + 1 = {i + 2}', 'rejected': f'{i + 1} + 1 = 0'}
            for i in range(20)]
    path = self.folder / 'steps.jsonl'
    path.write_text('\n'.join(json.dumps(row) for row in rows))
    config = self.config(num_steps=2)
    with config.unlocked():
      config.data.source = common.preference_file(str(path), 'steps', 4)
    with self.assertRaisesRegex(ValueError, 'Set data.ends=False'):
      self.run_script('ends', config)
    config.data.ends = False
    _, lines, _ = self.run_script('steps', config)
    self.assertAlmostEqual(lines[0]['loss'], math.log(2), delta=1e-6)
    report = json.loads((self.folder / 'steps' / 'report.json').read_text())
    self.assertEqual(report['data']['train']['pairs'], 16)
    self.assertEqual(report['held_out']['before']['pairs'], 4)

  def test_single_labels(self):
    rows = [{'prompt': f'{i} + 1?', 'label': i % 3 > 0,
             'response': str(i + 1 if i % 3 else 0)} for i in range(20)]
    path = self.folder / 'labels.jsonl'
    path.write_text('\n'.join(json.dumps(row) for row in rows))
    config = self.config(num_steps=2, loss=dict(name='kto', beta=0.1))
    with config.unlocked():
      config.data.source = common.preference_file(str(path), 'labels', 4)
    _, lines, _ = self.run_script('labels', config)
    self.assertAlmostEqual(lines[0]['loss'], 0.5, delta=1e-6)
    self.assertNotAlmostEqual(lines[-1]['loss'], 0.5, delta=1e-4)
    found = json.loads((self.folder / 'labels' / 'report.json').read_text())
    self.assertEqual(found['held_out']['before']['pairs'], 4)
    self.assertIn('reward_accuracy', found['held_out']['after'])
    # Beside nothing, there is nothing that it would rather write.
    self.assertNotIn('logp_accuracy', found['held_out']['after'])
    config.loss = dict(name='dpo', beta=0.1)
    with self.assertRaisesRegex(ValueError, 'a loss of single labels: kto'):
      self.run_script('refused', config)

  def check_report(self, report):
    self.assertEqual(report['data']['train']['pairs'], 60)
    found = report['held_out']
    self.assertEqual(found['before']['pairs'], 8)
    # Its own reference: no opinion counts half.
    self.assertEqual(found['before']['reward_accuracy']['estimate'], 0.5)
    self.assertLen(found['after']['reward_margin'], 4)
    for name in ('loss', 'accuracy', 'reward', 'logp'):
      self.assertTrue(
          (self.folder / 'whole' / 'plots' / f'{name}.png').exists())

  def stop_after_step(self, step, name, config=None):
    write = metrics.MetricWriter.write

    def writing(writer, number, values):
      write(writer, number, values)
      if number == step:
        os.kill(os.getpid(), signal.SIGTERM)

    with mock.patch.object(metrics.MetricWriter, 'write', writing):
      with self.assertRaisesRegex(run_folder.Preempted,
                                  f'saved step {step + 1}'):
        self.run_script(name, config or self.config())

  def test_a_reference_that_goes_on_is_read_as_it_was_at_first(self):
    others = self.folder / 'other' / 'checkpoints'
    self.save_other(others, 5)
    config = lambda: self.config(**{
        'scores.precompute': False, 'reference.checkpoint': str(others)})
    self.run_script('whole', config())
    self.stop_after_step(1, 'pinned', config())
    shutil.copytree(self.folder / 'pinned', self.folder / 'newest')
    self.save_other(others, 6)
    self.run_script('pinned', config())
    self.assert_same_end('pinned')
    pinned = pins.pinned
    with self.subTest('else it ends elsewhere'), mock.patch.object(
        pins, 'pinned', lambda config, *_: pinned(config, {})):
      self.run_script('newest', config())
      with self.assertRaisesRegex(AssertionError, 'differs by up to'):
        self.assert_same_end('newest')
    with self.subTest('gone'):
      shutil.rmtree(others / '5')
      with self.assertRaisesRegex(ValueError, r'step 5 .*reference.step=-1.*6'):
        self.run_script('pinned', config())

  def save_other(self, folder, step):
    """A checkpoint of another policy of the same kind."""
    config = self.config()
    job = launch.start(config, self.folder / 'reader', 'other')
    state, _ = starting_params.initial_state(
        config, job, optimizers.make_optimizer('sgd', 0.1),
        jax.random.key(step))
    with checkpoint.Checkpointer(folder,
                                 fingerprint=job.fingerprint) as saver:
      saver.save(step, state, {}, force=True)

  def check_guide(self, dpo):
    config = self.config(tgdpo_tiny, **{
        'guide.checkpoint': str(self.folder / 'whole' / 'checkpoints')})
    with self.assertRaisesRegex(ValueError, 'Expected a guide'):
      self.run_script('none', self.config(tgdpo_tiny))
    seen = {}
    keep = preference.score_pairs

    def keeping(score, params, layout, pairs):
      seen[len(seen)] = params
      return keep(score, params, layout, pairs)

    with mock.patch.object(preference, 'score_pairs', keeping):
      _, lines, _ = self.run_script('guided', config)
    for a, b in zip(jax.tree.leaves(seen[max(seen)]),
                    jax.tree.leaves(dpo.params), strict=True):
      np.testing.assert_array_equal(a, b)
    self.assertNotEqual(lines[0]['guide_weight_chosen'], 1.0)
    self.assertAlmostEqual(lines[0]['loss'], math.log(2), delta=1e-6)
    other = {'tokenizer': 'another'}
    fingerprint = launch.make_fingerprint
    with mock.patch.object(
        launch, 'make_fingerprint',
        lambda *arguments: fingerprint(*arguments) | other):
      with self.assertRaisesRegex(ValueError, "tokenizer: checkpoint 'byte'"):
        self.run_script('foreign', config)


class RefusalTest(absltest.TestCase):

  def test_rows_too_few_and_an_unknown_source_are_refused(self):
    folder = self.enterContext(tempfile.TemporaryDirectory())
    config = dpo_tiny.get_config('smoke')
    config.packing.num_rows = 4
    with self.assertRaisesRegex(ValueError, 'num_rows >= .* = 8.*got 4'):
      train_preference.run(config, folder)
    config = dpo_tiny.get_config('smoke')
    config.data.source.name = 'pears'
    with self.assertRaisesRegex(ValueError, "source.name among .*'pears'"):
      train_preference.run(config, folder)

if __name__ == '__main__':
  absltest.main()
