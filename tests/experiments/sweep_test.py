"""Sweeps: what is applied, what is refused, which script runs and where."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
from ml_collections import config_dict

from experiments import sweep

_ROOT = pathlib.Path(__file__).parents[2]
_CONFIG = '''
from ml_collections import config_dict


def get_config(arg=''):
  return config_dict.ConfigDict(dict(seed=0, loss=dict(name='c3po', kl_coef=1)))


def get_sweep():
  return [{'seed': seed} for seed in (5, 6)]
'''


def make_config():
  """A locked config with a section and a tuple of stages."""
  config = config_dict.ConfigDict(dict(
      seed=0, loss=dict(name='c3po', clip_eps=0.2), stop=None,
      optimizer=dict(learning_rate=1.0, schedule=dict(warmup_steps=10))))
  config.rl = (config_dict.ConfigDict(dict(num_steps=3)),
               config_dict.ConfigDict(dict(num_steps=3)))
  return config.lock()


class ApplyTest(parameterized.TestCase):

  def test_values_of_a_section_of_a_stage_and_of_the_top(self):
    config = make_config()
    changed = sweep.apply(config, {
        'seed': 3, 'optimizer.schedule.warmup_steps': 1, 'rl[1].num_steps': 7})
    self.assertEqual(changed.seed, 3)
    self.assertEqual(changed.optimizer.schedule.warmup_steps, 1)
    self.assertEqual([stage.num_steps for stage in changed.rl], [3, 7])

  def test_the_config_itself_stays_as_it_is(self):
    config = make_config()
    before = repr(config)
    sweep.apply(config, {'seed': 3, 'loss.clip_eps': 0.1, 'rl[0].num_steps': 9,
                         'optimizer.schedule.warmup_steps': 1})
    self.assertEqual(repr(config), before)

  def test_a_dictionary_replaces_its_section(self):
    changed = sweep.apply(make_config(),
                          {'loss': dict(name='dapo', clip_high=0.28)})
    self.assertEqual(changed.loss.to_dict(), dict(name='dapo', clip_high=0.28))

  def test_a_whole_number_where_a_real_one_is_expected(self):
    changed = sweep.apply(make_config(), {'loss.clip_eps': 1})
    self.assertIsInstance(changed.loss.clip_eps, float)

  @parameterized.parameters(
      ('seeed', 'seed'), ('loss.clip_esp', 'clip_eps'), ('los.name', 'loss'),
      ('optimizer.shedule.warmup_steps', 'schedule'),
      ('optimizer.schedule.warmup_step', 'warmup_steps'),
      ('rl[0].num_step', 'num_steps'))
  def test_a_misspelt_name_is_an_error_with_the_right_one(self, name, right):
    with self.assertRaisesRegex(ValueError, f"Did you mean '{right}'"):
      sweep.apply(make_config(), {name: 1})

  @parameterized.parameters('rl[2].num_steps', 'rl.num_steps', 'seed.value',
                            'loss.name.x')
  def test_a_path_that_leads_nowhere_is_an_error(self, name):
    with self.assertRaisesRegex(ValueError, 'Expected a name of the config'):
      sweep.apply(make_config(), {name: 1})

  @parameterized.parameters(
      ('seed', 'three'), ('seed', 1.5), ('loss', 3), ('seed', dict(value=1)))
  def test_a_value_of_another_type_is_an_error(self, name, value):
    with self.assertRaisesRegex(ValueError, f"a value for '{name}'"):
      sweep.apply(make_config(), {name: value})

  def test_the_result_is_locked(self):
    changed = sweep.apply(make_config(), {'loss': dict(name='grpo')})
    with self.assertRaises(AttributeError):
      changed.loss.clip_eps = 0.1


class RunTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enter_context(
        tempfile.TemporaryDirectory()))
    self.calls = []
    for family in sweep.SCRIPTS:
      self.enter_context(mock.patch.dict(sweep.SCRIPTS, {
          family: lambda config, workdir, family=family: self.calls.append(
              (family, config.seed, workdir))}))

  def write(self, family, text=_CONFIG):
    path = self.folder / family / 'mine.py'
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path

  @parameterized.parameters(*sweep.SCRIPTS)
  def test_the_folder_of_the_config_names_the_script(self, family):
    path = self.write(family)
    sweep.run_entry(path, make_config(), self.folder / 'runs', 1)
    self.assertEqual(self.calls,
                     [(family, 6, str(self.folder / 'runs' / '1'))])
    self.assertEqual(
        json.loads((self.folder / 'runs' / '1' / 'sweep.json').read_text()),
        {'seed': 6})

  def test_every_family_of_configs_has_a_script(self):
    families = {path.parent.name for path in _ROOT.glob('configs/*/*.py')}
    self.assertEqual(families, set(sweep.SCRIPTS))

  def test_another_folder_is_refused(self):
    path = self.write('mine')
    with self.assertRaisesRegex(ValueError, 'folder named evaluation or'):
      sweep.run_entry(path, make_config(), self.folder / 'runs', 0)

  @parameterized.parameters(2, 99, -1)
  def test_an_index_outside_of_the_list_is_refused(self, index):
    path = self.write('policy')
    with self.assertRaisesRegex(ValueError,
                                rf'in 0\.\.1, .* lists 2 runs, got {index}'):
      sweep.run_entry(path, make_config(), self.folder / 'runs', index)
    self.assertEmpty(self.calls)

  def test_a_config_without_a_sweep_is_refused(self):
    path = self.write('policy', 'def get_config(arg=""):\n  pass\n')
    with self.assertRaisesRegex(ValueError, r'a function get_sweep\(\)'):
      sweep.run_entry(path, make_config(), self.folder / 'runs', 0)

  def test_a_second_start_continues_but_not_with_other_overrides(self):
    path = self.write('policy')
    for _ in range(2):
      sweep.run_entry(path, make_config(), self.folder / 'runs', 1)
    self.assertLen(self.calls, 2)
    self.write('policy', _CONFIG.replace('(5, 6)', '(5, 7)'))
    with self.assertRaisesRegex(ValueError, 'get_sweep.. has changed'):
      sweep.run_entry(path, make_config(), self.folder / 'runs', 1)
    self.assertLen(self.calls, 2)

  @parameterized.parameters(dict(), dict(show=True))
  def test_without_an_index_the_list_is_printed(self, **options):
    path = self.write('policy')
    with mock.patch('builtins.print') as printed:
      sweep.run_wanted(path, make_config(), None, None, **options)
    printed.assert_called_once_with('  0  seed=5\n  1  seed=6')
    self.assertEmpty(self.calls)

  def test_a_run_needs_a_folder(self):
    path = self.write('policy')
    with self.assertRaisesRegex(ValueError, 'Expected --workdir'):
      sweep.run_wanted(path, make_config(), None, 0)

  @parameterized.parameters(
      dict(every=True), dict(show=True), dict(every=True, show=True))
  def test_one_thing_at_a_time(self, **options):
    path = self.write('policy')
    with self.assertRaisesRegex(ValueError, 'one of --sweep_index, --all'):
      sweep.run_wanted(path, make_config(), self.folder, 0, **options)
    self.assertEmpty(self.calls)

  def test_the_list_shows_every_value(self):
    listed = sweep.describe([{'seed': 1}, {'loss': dict(name='a', eps=2)}])
    self.assertEqual(listed, '  0  seed=1\n  1  loss.name=a  loss.eps=2')


class CommandLineTest(absltest.TestCase):
  """The flags, with a script that only prints."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enter_context(
        tempfile.TemporaryDirectory()))
    self.config = self.folder / 'policy' / 'mine.py'
    self.config.parent.mkdir()
    self.config.write_text(_CONFIG)
    program = self.folder / 'program.py'
    program.write_text(
        'from experiments import sweep\n'
        "sweep.SCRIPTS['policy'] = lambda config, workdir: print(\n"
        "    'ran', config.seed, config.loss.kl_coef, workdir)\n"
        'sweep.main()\n')
    self.program = program

  def call(self, *arguments):
    environment = os.environ | {'PYTHONPATH': str(_ROOT)}
    return subprocess.run(
        [sys.executable, str(self.program), f'--config={self.config}',
         '--compilation_cache=', *arguments], text=True, cwd=self.folder,
        env=environment, capture_output=True, check=False)

  def test_all_runs_in_turn_after_the_overrides(self):
    done = self.call('--all', '--workdir=runs', '--config.loss.kl_coef=4',
                     '--config.seed=9')
    self.assertEqual(done.returncode, 0, done.stderr)
    ran = [line for line in done.stdout.splitlines() if line[:3] == 'ran']
    self.assertEqual(ran, ['ran 5 4 runs/0', 'ran 6 4 runs/1'])


if __name__ == '__main__':
  absltest.main()
