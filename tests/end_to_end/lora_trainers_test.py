"""Adapters in the trainers of preferences and of reward models."""
from absl.testing import absltest
import jax
import numpy as np
import pytest

from configs.preference import dpo_tiny
from configs.reward import bradley_terry_tiny
from experiments import launch
from experiments import reward_models
from experiments import train_preference
from experiments import train_reward_model
from rljax import sharding
from rljax.data import toy_comparisons
from rljax.models import reward
from rljax.training import checkpoint
from rljax.training import metrics
from rljax.training import optimizer as optimizers


def with_adapters(config, base):
  config.model = dict(variant='tiny_dense', num_layers=1)
  config.num_steps = 2
  config.optimizer.learning_rate = 1e-2
  config.lora.update(rank=2, alpha=8.0)
  config.init.checkpoint = str(base)
  return config


@pytest.mark.usefixtures('one_device', 'compilation_cache')
class TrainersTest(absltest.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path):
    self.folder = tmp_path
    config = with_adapters(dpo_tiny.get_config('smoke'), '')
    config.lora.rank = 0
    job = launch.start(config, tmp_path / 'whole', 'base')
    state, _ = launch.initial_state(
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

  def test_a_new_head_is_trained_in_full_beside_the_adapters(self):
    config = with_adapters(bradley_terry_tiny.get_config('smoke'),
                           self.folder / 'base')
    state = train_reward_model.run(config, self.folder / 'run')
    self.assert_base(state.params, 'head')
    self.assertEqual(set(state.params.trained), {'lora', reward.HEAD})
    loaded = reward_models.load(self.folder / 'run', sharding.make_mesh(),
                                sharding.make_rules())
    jax.tree.map(np.testing.assert_array_equal, loaded.ask.params, state.params)
    records = toy_comparisons.records(4, seed=5)
    scores = loaded.ask([one['prompt'] for one in records],
                        [one['chosen'] for one in records])
    self.assertGreater(np.std(scores), 1e-4)


if __name__ == '__main__':
  absltest.main()
