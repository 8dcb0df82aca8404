import pathlib
import tempfile

from absl.testing import absltest
import jax

from experiments.job import launch
from rljax import models
from rljax import sharding
from tests.end_to_end import smoke


class MicrobatchesTest(absltest.TestCase):

  def test_more_devices_take_more_rows_at_a_time(self):
    config = smoke.get_config('rl_math')
    config.packing.update(num_rows=24, rows_per_device=3)
    for ways, count in ((1, 8), (2, 4), (8, 1)):
      mesh = sharding.make_mesh(devices=jax.devices()[:ways])
      self.assertEqual(launch.num_microbatches(config, mesh), count)
    config.packing.rows_per_device = 2
    with self.assertRaisesRegex(ValueError, r'8 shares.*got 24 and .*=2'):
      launch.num_microbatches(config, sharding.make_mesh())
    config.packing.row_length = 90
    with self.assertRaisesRegex(ValueError, 'mesh.context = 4, got 90'):
      launch.num_microbatches(config, sharding.make_mesh(data=2, context=4))

  def test_a_mesh_that_the_model_does_not_fit_leaves_no_folder(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    for axis, named in (('expert', 'moe'), ('tensor', 'attention')):
      config = smoke.get_config('rl_math')
      config.mesh.update({'data': 1, axis: 8})
      with self.assertRaisesRegex(ValueError, f"{named}.*{axis}.* = 8 devices"):
        launch.start(config, folder / 'run', 'rl')
    self.assertEmpty(list(folder.iterdir()))


class PositionsTest(absltest.TestCase):

  def test_texts_beyond_the_models_positions_are_refused(self):
    model = models.create('tiny_yarn')
    launch.check_positions(model, 256)
    with self.assertRaisesRegex(ValueError, 'at most 256 tokens, .*got .*257'):
      launch.check_positions(model, 257)


class ConfigNameTest(absltest.TestCase):

  def test_one_that_is_there_passes(self):
    root = pathlib.Path(launch.__file__).parents[2]
    launch.check_exists(str(root / 'configs/pipeline/ring_lite_mini.py'))

  def test_one_that_is_not_is_answered_with_the_nearest(self):
    with self.assertRaisesRegex(
        ValueError, "got 'configs/pipeline/ring_mini.py'.*Configs: .*"
        "Did you mean 'configs/pipeline/ring_lite_mini.py'"):
      launch.check_exists('configs/pipeline/ring_mini.py')
    with self.assertRaisesRegex(ValueError, r'Configs: .*\.py\.$'):
      launch.check_exists('zzz')


if __name__ == '__main__':
  absltest.main()
