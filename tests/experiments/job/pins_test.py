"""The step -1 is the newest at the first start, and that one ever after."""
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized

from configs.policy import c3po_tiny
from configs.preference import tgdpo_tiny
from experiments.job import pins
from experiments.job import run_folder


class PinsTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(
        tempfile.TemporaryDirectory()))
    self.other = self.folder / 'other' / 'checkpoints'
    self.workdir = self.folder / 'run'
    self.workdir.mkdir()
    self.save(5, 7)

  def save(self, *steps):
    for step in steps:
      (self.other / str(step)).mkdir(parents=True)

  def begin(self):
    (self.workdir / 'checkpoints' / '1').mkdir(parents=True)

  def config(self, section, step=-1):
    if section == 'reward_model':
      config = c3po_tiny.get_config('smoke')
      config.reward_model.update(run=str(self.other.parent), step=step)
    else:
      config = tgdpo_tiny.get_config('smoke')
      names = ('base', 'base_step') if section == 'lora' else (
          'checkpoint', 'step')
      config[section].update(dict(zip(
          names, (str(self.other), step), strict=True)))
    return config.lock()

  def claim(self, section, step=-1, **options):
    config = run_folder.claim(self.config(section, step), self.workdir,
                              **options)
    return config[section]['base_step' if section == 'lora' else 'step']

  def test_no_other_step_stands_for_the_newest(self):
    with self.assertRaisesRegex(ValueError, 'guide.step >= -1.*got -2'):
      self.claim('guide', -2)

  @parameterized.parameters('init', 'lora', 'reference', 'guide',
                            'reward_model')
  def test_a_run_goes_on_with_what_it_has_begun_with(self, section):
    self.assertEqual(self.claim(section), 7)
    self.save(9)
    self.assertEqual(self.claim(section), 7)  # killed before its first save
    self.begin()
    self.assertEqual(self.claim(section), 7)
    with self.assertRaisesRegex(ValueError, 'there 7, now 9'):
      self.claim(section, 9)
    (self.other / '7').rmdir()
    with self.assertRaisesRegex(
        ValueError, r'Expected step 7 in .*, found \[5, 9\]. Bring'):
      self.claim(section)

  def test_without_what_was_stored_the_newest_is_taken(self):
    config = self.config('guide')
    self.assertEqual(pins.pinned(config, {}).guide.step, 7)
    self.save(9)
    self.assertEqual(pins.pinned(config, {}).guide.step, 9)
    self.assertEqual(pins.pinned(config, {'guide.step': 7}).guide.step, 7)
    self.assertEqual(config.guide.step, -1)  # the caller's stays
    self.assertEqual(pins.pinned(config, {}).reference.step, -1)  # none

  def test_another_run_in_the_folder_takes_the_newest_anew(self):
    self.claim('guide')
    self.save(9)
    config = self.config('guide')
    config.seed = 3  # the first start failed, before anything was saved
    self.assertEqual(run_folder.claim(config, self.workdir).guide.step, 9)

  def test_a_finished_run_is_recognised_by_the_config_it_was_given(self):
    self.claim('guide')
    config = self.config('guide')
    (self.workdir / 'checkpoints' / str(config.num_steps)).mkdir(parents=True)
    (self.workdir / 'report.json').write_text('{}')
    self.save(9)
    self.assertTrue(run_folder.finished(config, self.workdir))

  def test_before_anything_is_saved_the_newest_replaces_what_is_gone(self):
    self.assertEqual(self.claim('guide'), 7)
    (self.other / '7').rmdir()
    self.assertEqual(self.claim('guide'), 5)
    self.assertEqual(
        run_folder.stored_config(self.workdir).guide.step, 5)
    (self.workdir / 'scores').mkdir()  # of that step
    (self.other / '5').rmdir()
    self.save(9)
    with self.assertRaisesRegex(ValueError, 'Expected step 5'):
      self.claim('guide')

  def test_a_start_that_is_not_read_again_may_be_gone(self):
    self.claim('init', reads_start=False)
    self.begin()
    (self.other / '7').rmdir()
    config = run_folder.claim(self.config('init'), self.workdir,
                              reads_start=False)
    self.assertEqual(config.init.checkpoint, '')
    stored = run_folder.stored_config(self.workdir)
    self.assertEqual(dict(stored.init), dict(
        checkpoint=str(self.other), step=7, keep_optimizer=False))
    with self.assertRaisesRegex(ValueError, 'Expected step 7'):
      run_folder.claim(self.config('init'), self.workdir)
    config = self.config('init')
    config.lora.rank = 2
    stored = run_folder.flat(config.to_dict()) | {'init.step': 7}
    with self.assertRaisesRegex(ValueError, 'Expected step 7'):
      pins.pinned(config, stored)  # adapters lie on it


if __name__ == '__main__':
  absltest.main()
