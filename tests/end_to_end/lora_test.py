"""Runs that train adapters: stopped, read back, exported, and RL on them."""
import json
import pathlib
import shutil

from absl.testing import absltest
import jax
import numpy as np
import pytest

from experiments import convert
from experiments import sft
from experiments import train_policy
from experiments.job import launch
from experiments.job import starting_params
from rljax.interop import convert as interop
from rljax.models import lora
from rljax.training import batch as batches
from rljax.training import checkpoint
from rljax.training import forward as forwards
from rljax.training import metrics
from rljax.training import optimizer as optimizers
from rljax.training import state as states
from tests.end_to_end import bad_input_test
from tests.end_to_end import runs
from tests.experiments import convert_test

# What qwen3_moe can describe.
_MODEL = dict(variant='tiny', norm_head=False, num_shared_experts=0,
              qk_norm='head')


def make_config(stage: str, path: pathlib.Path, **more):
  config = bad_input_test.make_config(stage, path)
  config.model = dict(_MODEL)
  config.init.update(checkpoint=str(path.parent / 'base'), step=-1)
  config.lora.update(rank=2, alpha=8.0, **more)
  if stage == 'sft':
    config.optimizer = dict(name='adamw', learning_rate=1e-2, clip_norm=1.0)
  return config


def read_back(config, job, folder, step=-1):
  state, _ = starting_params.initial_state(
      config, job, optimizers.make_optimizer('sgd', 0.0), jax.random.key(0),
      (str(folder / 'checkpoints'), step))
  return state.params


class LoraTest(absltest.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path, one_device, compilation_cache):
    self.folder = tmp_path
    self.path = bad_input_test.write(tmp_path / 'problems.jsonl',
                                     bad_input_test.problems())
    # A base with parameters of its own: checkpoints of a run without adapters.
    config = make_config('sft', self.path)
    config.init.checkpoint, config.lora.rank = '', 0
    job = launch.start(config, tmp_path / 'whole', 'sft')
    optimizer = optimizers.make_optimizer(**config.optimizer)
    state, _ = starting_params.initial_state(
        config, job, optimizer, jax.random.key(7))
    self.base = jax.tree.map(np.array, state.params)
    with checkpoint.Checkpointer(tmp_path / 'base',
                                 fingerprint=job.fingerprint) as saver:
      saver.save(5, state, {}, force=True)

  def train(self, name, num_steps):
    config = make_config('sft', self.path)
    config.num_steps = num_steps
    return config, sft.run(config, self.folder / name)

  def test_adapters_are_trained_stopped_resumed_read_back_and_exported(self):
    config, whole = self.train('whole_run', 3)
    self.train('parts', 2)
    _, state = self.train('parts', 3)
    with self.subTest('a resumed run ends with the bits of one that was not'):
      jax.tree.map(np.testing.assert_array_equal, state.params, whole.params)
      lines = metrics.read(self.folder / 'parts' / metrics.FILE_NAME)
      self.assertLen(lines, 3)
    with self.subTest('the base stays, and the adapters do not'):
      jax.tree.map(np.testing.assert_array_equal, state.params.base, self.base)
      for leaf in jax.tree.leaves(state.params.trained):
        self.assertGreater(np.abs(leaf).max(), 0)
    with self.subTest('files hold the adapters alone'):
      held = runs.checkpoint(self.folder / 'parts/checkpoints', 3)['arrays']
      self.assertFalse([name for name in held if 'router' in name])
      self.assertTrue([name for name in held if 'gate_up' in name])

    job = launch.start(config, self.folder / 'reader', 'evaluate')
    self.go_on_with_base(job)
    with self.subTest('read back on the base, as it was then'):
      found = read_back(config, job, self.folder / 'parts')
      jax.tree.map(np.testing.assert_array_equal, found, state.params)
      config.init.checkpoint = str(self.folder / 'parts' / 'checkpoints')
      found = read_back(config, job, self.folder / 'parts')
      jax.tree.map(np.testing.assert_array_equal, found, state.params)
    with self.subTest('without its configuration the base must be named'):
      shutil.copytree(self.folder / 'parts/checkpoints',
                      self.folder / 'copied/checkpoints')
      config.init.checkpoint = str(self.folder / 'copied' / 'checkpoints')
      with self.assertRaisesRegex(ValueError, 'Expected config.lora.base'):
        read_back(config, job, self.folder / 'copied')
      config.lora.update(base=str(self.folder / 'base'), base_step=5)
      found = read_back(config, job, self.folder / 'copied')
      jax.tree.map(np.testing.assert_array_equal, found, state.params)
      config.lora.update(base='', base_step=-1)
    self.check_exports(config, state.params)
    with self.subTest('another rank is another run'):
      config.lora.rank = 4
      with self.assertRaisesRegex(ValueError, 'lora: checkpoint .*rank.*2'):
        other = launch.start(config, self.folder / 'reader', 'evaluate')
        read_back(config, other, self.folder / 'parts')

  def go_on_with_base(self, job):
    """A newer checkpoint, of other parameters."""
    plain = {name: value for name, value in job.fingerprint.items()
             if name != 'lora'}
    moved = jax.tree.map(lambda x: x + 1, self.base)
    with checkpoint.Checkpointer(self.folder / 'base',
                                 fingerprint=plain) as saver:
      saver.save(9, states.TrainState(
          step=np.int32(9), params=moved, opt_state=()), {}, force=True)

  def check_exports(self, config, params):
    flags = dict(config=config, family='qwen3_moe',
                 input=str(self.folder / 'parts' / 'checkpoints'))
    with self.subTest('merged, whatever the config says of adapters'):
      plain = config.copy_and_resolve_references()
      plain.lora.update(rank=0, base='')
      convert.run(convert_test.FlagsStandIn(
          output=str(self.folder / 'merged'), **flags | dict(config=plain)))
      model = launch.create_model(config.model)
      merged = interop.load(self.folder / 'merged', model,
                            convert.one_device())
      jax.tree.map(np.testing.assert_array_equal, merged, lora.merge(params))
    with self.subTest('a frozen model is the same from the run and the export'):
      self.check_frozen(config)
    with self.subTest('adapter'):
      convert.run(convert_test.FlagsStandIn(
          output=str(self.folder / 'adapter'), adapter=True, **flags))
      made = json.loads(
          (self.folder / 'adapter/adapter_config.json').read_text())
      self.assertEqual((made['r'], made['lora_alpha']), (2, 8.0))
      self.assertEqual(made['target_modules'], [
          'down_proj', 'gate_proj', 'k_proj', 'o_proj', 'q_proj', 'up_proj',
          'v_proj'])

  def check_frozen(self, config):
    plain = config.copy_and_resolve_references()
    plain.lora.rank = 0
    job = launch.start(plain, self.folder / 'frozen', 'frozen')
    tokens_BT = jax.random.randint(jax.random.key(1), (2, 16), 0, 256)
    ones_BT = np.ones((2, 16), np.int32)
    score = forwards.make_score_fn(forwards.make_forward(job.model))
    rows = batches.ModelInputs(
        tokens_BT, np.arange(16, dtype=np.int32)[None] * ones_BT, ones_BT,
        np.full((2, 16), 1 / 32, np.float32))
    logps = lambda name, step: np.asarray(score(starting_params.stored_params(
        job, str(self.folder / name), step), rows)[0])
    run, export = logps('parts/checkpoints', -1), logps('merged', -1)
    base = logps('base', 5)
    np.testing.assert_allclose(run, export, atol=1e-6)
    self.assertGreater(np.abs(run - base).max(), 1e-3)  # adapters count

  def test_rl_samples_from_the_merged_model_and_refers_to_the_base(self):
    config = make_config('rl_math', self.path)
    config.num_steps = 2
    config.loss = dict(name='c3po', clip_eps=0.2, kl_coef=0.1)
    config.optimizer.learning_rate = 1e-2
    with metrics.CompilationCounter() as counter:
      state = train_policy.run(config, self.folder / 'rl')
    for name in ('score', 'update', 'prefill', 'decode'):
      self.assertEqual(counter.counts[name], 1, name)
    jax.tree.map(np.testing.assert_array_equal, state.params.base, self.base)
    first, second = metrics.read(self.folder / 'rl' / metrics.FILE_NAME)
    # At first the policy is its reference, and the sampler is the policy.
    self.assertAlmostEqual(first['kl'], 0, places=6)
    self.assertGreater(second['kl'], 1e-6)
    for line in (first, second):
      self.assertLess(line['mismatch_max'], 1.01)

  def test_what_cannot_be_trained_is_refused_before_anything_is_written(self):
    config = make_config('sft', self.path, targets=('query', 'table'))
    with self.assertRaisesRegex(ValueError, "'down', 'gate_up'.*'table'"):
      sft.run(config, self.folder / 'run')
    config = make_config('sft', self.path)
    config.init.keep_optimizer = True
    with self.assertRaisesRegex(ValueError, 'keep_optimizer=False'):
      sft.run(config, self.folder / 'run')


if __name__ == '__main__':
  absltest.main()
