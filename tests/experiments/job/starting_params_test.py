import tempfile
from unittest import mock

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from experiments.job import launch
from experiments.job import starting_params
from rljax.training import checkpoint
from rljax.training import optimizer as optimizers
from rljax.training import state as states
from tests.end_to_end import smoke


class InitialStateTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = self.enterContext(tempfile.TemporaryDirectory())
    self.config = smoke.get_config('sft')
    mesh = launch.sharding.make_mesh(devices=jax.devices()[:1])
    with mock.patch.object(launch.sharding, 'make_mesh', lambda **sizes: mesh):
      self.job = launch.start(self.config, self.folder, 'test')
    self.optimizer = optimizers.make_optimizer('adam', 1e-3)

  def test_a_stage_takes_the_parameters_and_says_whether_the_moments(self):
    key = jax.random.key(0)
    start, _ = starting_params.initial_state(
        self.config, self.job, self.optimizer, key)
    moved = states.TrainState(
        step=jnp.int32(5), params=jax.tree.map(lambda x: x + 1, start.params),
        opt_state=jax.tree.map(lambda x: x + 1, start.opt_state))
    with checkpoint.Checkpointer(
        f'{self.folder}/checkpoints',
        fingerprint=self.job.fingerprint) as saver:
      saver.save(5, moved, {})
    for keep in (False, True):
      self.config.init.update(checkpoint=f'{self.folder}/checkpoints', step=-1,
                              keep_optimizer=keep)
      found, _ = starting_params.initial_state(
          self.config, self.job, self.optimizer, key)
      jax.tree.map(np.testing.assert_array_equal, found.params, moved.params)
      jax.tree.map(np.testing.assert_array_equal, found.opt_state,
                   moved.opt_state if keep else start.opt_state)
      self.assertEqual(found.step, 0)  # the stage counts its own steps


if __name__ == '__main__':
  absltest.main()
