"""Adapters in the trainers of preferences and of reward models."""
from unittest import mock

from absl.testing import absltest
import jax
import numpy as np
import optax
import pytest

from configs.preference import dpo_tiny
from configs.preference import tgdpo_tiny
from configs.reward import bradley_terry_tiny
from experiments import train_preference
from experiments import train_reward_model
from experiments.job import launch
from experiments.job import starting_params
from experiments.reward import trained_reward
from rljax import sharding
from rljax.data import toy_comparisons
from rljax.models import lora
from rljax.models import reward
from rljax.training import checkpoint
from rljax.training import metrics
from rljax.training import optimizer as optimizers
from rljax.training import preference


def with_adapters(config, base):
  config.model = dict(variant='tiny_dense', num_layers=1)
  config.num_steps = 2
  config.optimizer.learning_rate = 1e-2
  config.lora.update(rank=2, alpha=8.0)
  config.init.checkpoint = str(base)
  return config


def apart(got, want) -> float:
  return max(np.abs(a - b).max() for a, b in zip(
      jax.tree.leaves(got), jax.tree.leaves(want), strict=True))


def assert_close(got, want):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7),
               got, want)


@pytest.mark.usefixtures('one_device', 'compilation_cache')
class TrainersTest(absltest.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path):
    self.folder = tmp_path
    config = with_adapters(dpo_tiny.get_config('smoke'), '')
    config.lora.rank = 0
    job = launch.start(config, tmp_path / 'whole', 'base')
    state, _ = starting_params.initial_state(
        config, job, optimizers.make_optimizer('sgd', 0.1), jax.random.key(7))
    self.base = jax.tree.map(np.array, state.params)
    with checkpoint.Checkpointer(tmp_path / 'base',
                                 fingerprint=job.fingerprint) as saver:
      saver.save(1, state, {}, force=True)

  def assert_base(self, params, *without):
    want = {name: part for name, part in self.base.items()
            if name not in without}
    jax.tree.map(np.testing.assert_array_equal, params.base, want)

  def lines(self):
    return metrics.read(self.folder / 'run' / metrics.FILE_NAME)

  def test_preferences_refer_to_the_base(self):
    config = with_adapters(dpo_tiny.get_config('smoke'), self.folder / 'base')
    state = train_preference.run(config, self.folder / 'run')
    self.assert_base(state.params)
    first, second = self.lines()
    self.assertAlmostEqual(first['reward_margin'], 0, places=5)
    self.assertGreater(abs(second['reward_margin']), 1e-6)

  def test_a_run_with_adapters_guides_another_run(self):
    config = with_adapters(dpo_tiny.get_config('smoke'), self.folder / 'base')
    state = train_preference.run(config, self.folder / 'run')
    run = self.folder / 'run' / 'checkpoints'
    seen = []
    keep = preference.score_pairs

    def keeping(score, params, *rest):
      seen.append(params)
      return keep(score, params, *rest)

    other = with_adapters(tgdpo_tiny.get_config('smoke'), '')
    other.lora.rank = 0
    other.guide.checkpoint = str(run)
    with mock.patch.object(preference, 'score_pairs', keeping):
      train_preference.run(other, self.folder / 'guided')
    assert_close(seen[-1], lora.merge(state.params))
    self.assertGreater(apart(seen[-1], self.base), 1e-3)
    self.check_a_base_that_has_moved(other, run, seen[-1])

  def check_a_base_that_has_moved(self, config, run, want):
    job = launch.start(config, self.folder / 'reader', 'reader')
    (self.folder / 'base').rename(self.folder / 'moved')
    with self.assertRaisesRegex(
        ValueError, r'Expected the parameters that the adapters in .*run.* in '
        r'.*base, step 1, found nothing. Name .*`base`.*experiments.convert'):
      starting_params.stored_params(job, str(run), -1)
    assert_close(starting_params.stored_params(
        job, str(run), -1, str(self.folder / 'moved')), want)
    with self.assertRaisesRegex(ValueError, 'found nothing'):
      starting_params.stored_params(job, str(run), -1,
                                    str(self.folder / 'elsewhere'))

  def test_a_run_begins_and_is_measured_with_adapters_merged(self):
    config = with_adapters(dpo_tiny.get_config('smoke'), self.folder / 'base')
    state = train_preference.run(config, self.folder / 'run')
    want, key = lora.merge(state.params), jax.random.key(1)
    run = str(self.folder / 'run' / 'checkpoints')
    plain = with_adapters(dpo_tiny.get_config('smoke'), run)
    plain.lora.rank = 0
    job = launch.start(plain, self.folder / 'reader', 'reader')
    read = lambda config, source=None: starting_params.initial_state(
        config, job, optax.identity(), key, source)[0].params
    with self.subTest('training from it, and measuring it'):
      assert_close(read(plain), want)
      plain.init.checkpoint = ''
      assert_close(read(plain, (run, -1)), want)
      self.assertGreater(apart(want, self.base), 1e-3)
    with self.subTest('adapters on adapters'):
      second = with_adapters(dpo_tiny.get_config('smoke'), run)
      ends = {'second': train_preference.run(second, self.folder / 'second')}
      assert_close(ends['second'].params.base, want)
      found = read(plain, (str(self.folder / 'second' / 'checkpoints'), -1))
      assert_close(found, lora.merge(ends['second'].params))
      self.assertGreater(apart(found, want), 1e-3)
    (self.folder / 'base').rename(self.folder / 'moved')
    with self.assertRaisesRegex(ValueError, 'found nothing'):
      read(plain, (run, -1))
    plain.lora.base = str(self.folder / 'moved')
    assert_close(read(plain, (run, -1)), want)
    with self.subTest('adapters on adapters whose base has moved'):
      third = with_adapters(dpo_tiny.get_config('smoke'), run)
      third.lora.base = plain.lora.base
      ends['third'] = train_preference.run(third, self.folder / 'third')
      assert_close(ends['third'].params.base, want)
    with self.subTest('and these, read back'):
      for name in ('second', 'third'):
        chain = str(self.folder / name / 'checkpoints')
        plain.lora.base = str(self.folder / 'moved')
        found = read(plain, (chain, -1))
        assert_close(found, lora.merge(ends[name].params))

  def test_adapters_on_random_parameters_find_them_by_the_seed(self):
    config = with_adapters(dpo_tiny.get_config('smoke'), '')
    config.seed = 3
    state = train_preference.run(config, self.folder / 'run')
    config.seed = 0  # of the run at hand: not that of the other one
    job = launch.start(config, self.folder / 'reader', 'reader')
    found = starting_params.stored_params(
        job, str(self.folder / 'run/checkpoints'), -1)
    assert_close(found, lora.merge(state.params))

  def test_a_new_head_is_trained_in_full_beside_the_adapters(self):
    config = with_adapters(bradley_terry_tiny.get_config('smoke'),
                           self.folder / 'base')
    state = train_reward_model.run(config, self.folder / 'run')
    self.assert_base(state.params, 'head')
    self.assertEqual(set(state.params.trained), {'lora', reward.HEAD})
    config.init.update(checkpoint=str(self.folder / 'run' / 'checkpoints'),
                       head_from_checkpoint=True)
    with self.assertRaisesRegex(ValueError, 'adapters and a head'):
      train_reward_model.run(config, self.folder / 'other')
    loaded = trained_reward.load(self.folder / 'run', sharding.make_mesh(),
                                 sharding.make_rules())
    jax.tree.map(np.testing.assert_array_equal, loaded.ask.params, state.params)
    records = toy_comparisons.records(4, seed=5)
    scores = loaded.ask([one['prompt'] for one in records],
                        [one['chosen'] for one in records])
    self.assertGreater(np.std(scores), 1e-4)


if __name__ == '__main__':
  absltest.main()
