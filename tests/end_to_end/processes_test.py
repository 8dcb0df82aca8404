"""Two processes with four devices each are one process with eight.

The processes are real, started by `experiments.launch_local`, and talk over
localhost. The single process is this one, with its eight simulated devices.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from unittest import mock

from absl.testing import absltest
import jax
import numpy as np
import pytest

from experiments import launch_local
from experiments import sft
from experiments import train_policy
from experiments import train_preference
from rljax.training import preference
from tests.end_to_end import runs
from tests.end_to_end import smoke

_SHORT = 12  # tokens of a response: gloo takes long for each
_RL = {'num_steps': 2, 'rollout.max_new_tokens': _SHORT,
       'rollout.num_slots': 16, 'packing.select.token_budget': 100,
       'reward.overlong_max_length': _SHORT, 'reward.overlong_buffer': _SHORT,
       'checkpoint.keep': 9, 'seed': 2}  # with which some answers end early
_COMPILE_FAST = ('--xla_backend_optimization_level=0 '
                 '--xla_cpu_use_fusion_emitters=false')
_STARTED: list[subprocess.Popen] = []
_TIMEOUT = 10  # seconds without a heartbeat
# Sums over devices round differently when some go through the network; what a
# step changes is a hundred times as much.
_ATOL = 2e-6


@pytest.fixture(scope='module')
def scratch(tmp_path_factory) -> pathlib.Path:
  return tmp_path_factory.mktemp('processes')


@pytest.fixture(scope='module')
def one_sft(scratch, compilation_cache) -> pathlib.Path:
  return alone(sft, 'sft', scratch, scratch / 'one_sft',
               {'checkpoint.every': 1})


@pytest.fixture(scope='module')
def one_rl(scratch, compilation_cache) -> pathlib.Path:
  return alone(train_policy, 'rl_math', scratch, scratch / 'one_rl', _RL)


def alone(script, stage, scratch, workdir, overrides) -> pathlib.Path:
  """A run in this process, on eight devices."""
  assert jax.device_count() == 8
  config = smoke.get_config(stage)
  config.data.source.data_dir = str(scratch / 'data')
  config.update_from_flattened_dict(overrides)
  script.run(config, str(workdir))
  return workdir


def start(script, stage, scratch, workdir, overrides, *more):
  """The launcher, and with it two processes of four devices."""
  arguments = [f'--config.{name}={value}' for name, value in overrides.items()]
  environment = os.environ | {'PYTHONPATH': str(runs.REPOSITORY),
                              'XLA_FLAGS': _COMPILE_FAST}
  process = subprocess.Popen(
      [sys.executable, '-m', 'experiments.launch_local', '--num_processes=2',
       '--cpu_devices=4', '--grace_seconds=90', f'experiments.{script}',
       f'--config={runs.CONFIG}:{stage}', f'--workdir={workdir}',
       f'--compilation_cache={scratch / "xla"}',
       f'--config.data.source.data_dir={scratch / "data"}', *arguments, *more],
      text=True, cwd=scratch, env=environment, stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT)
  _STARTED.append(process)
  return process


@pytest.fixture(autouse=True)
def leave_none_behind():
  """A test that fails half-way must not leave its processes to the next."""
  yield
  while _STARTED:
    process = _STARTED.pop()
    if process.poll() is None:
      for child in process_ids(process):
        os.kill(child, signal.SIGKILL)
      process.communicate(timeout=30)


def assert_same_end(got: pathlib.Path, want: pathlib.Path, step: int):
  """Equal records, arrays within rounding, which a step is far beyond."""
  found, wanted, before = (
      runs.checkpoint(path / 'checkpoints', at)
      for path, at in ((got, step), (want, step), (want, step - 1)))
  assert found['record'] == wanted['record']
  assert found['arrays'].keys() == wanted['arrays'].keys()
  for name, value in wanted['arrays'].items():
    np.testing.assert_allclose(found['arrays'][name], value, rtol=0,
                               atol=_ATOL, err_msg=name)
  moved = max(np.abs(value - before['arrays'][name]).max()
              for name, value in wanted['arrays'].items()
              if name.startswith('params'))
  assert moved > 100 * _ATOL, moved


def begun(source: pathlib.Path, workdir: pathlib.Path, step: int):
  """A copy of a run as it was after a step."""
  shutil.copytree(source, workdir)
  for path in (workdir / 'checkpoints').iterdir():
    if int(path.name) > step:
      shutil.rmtree(path)
  (workdir / 'report.json').unlink(missing_ok=True)
  return workdir


def wait(process, condition):
  limit = time.monotonic() + 200
  while not condition():
    if process.poll() is not None or time.monotonic() > limit:
      process.kill()
      raise AssertionError(process.communicate(timeout=10)[0])
    time.sleep(0.01)


def process_ids(launcher) -> list[int]:
  """Of the launcher's children, in the order in which they were started."""
  text = pathlib.Path(
      f'/proc/{launcher.pid}/task/{launcher.pid}/children').read_text()
  return [int(word) for word in text.split()]


def newest(workdir: pathlib.Path) -> int:
  return max((int(path.name) for path in (workdir / 'checkpoints').glob('*')
              if path.name.isdecimal()), default=0)


class ProcessesTest(absltest.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, request, scratch, tmp_path):
    self.scratch, self.workdir = scratch, tmp_path / 'run'
    self.reference = request.getfixturevalue

  def test_reinforcement_learning_ends_alike_and_one_continues_two(self):
    text = runs.finish(start('train_policy', 'rl_math', self.scratch,
                             self.workdir, _RL))
    assert_same_end(self.workdir, self.reference('one_rl'), 2)
    got, want = runs.lines(self.workdir), runs.lines(self.reference('one_rl'))
    self.assertLen(got, 2)  # one process writes
    for mine, other in zip(got, want, strict=True):
      self.assertEqual(mine.keys(), other.keys())
      for name in ('sampled_tokens', 'reward', 'response_length_std', 'step'):
        self.assertEqual(mine[name], other[name], name)
      self.assertGreater(other['response_length_std'], 0)  # rewards differ
    self.assertIn('[0]    devices  8 x cpu (cpu) of 2 processes', text)
    self.assertNotIn('[1]    devices', text)
    report = json.loads((self.workdir / 'report.json').read_text())
    self.assertEqual(report['devices']['hosts'], 2)
    self.assertTrue(list((self.workdir / 'plots').glob('*.png')))

    resumed = begun(self.workdir, self.workdir.with_name('resumed'), 1)
    alone(train_policy, 'rl_math', self.scratch, resumed, _RL)
    assert_same_end(resumed, self.reference('one_rl'), 2)

  def test_two_processes_continue_one_on_another_mesh(self):
    begun(self.reference('one_sft'), self.workdir, 2)
    runs.finish(start('sft', 'sft', self.scratch, self.workdir,
                      {'checkpoint.every': 1, 'mesh.data': 2, 'mesh.fsdp': 4}))
    assert_same_end(self.workdir, self.reference('one_sft'), 4)

  @pytest.mark.slow
  def test_pairs_end_alike_with_a_reference_scored_by_both(self):
    more = {'optimizer.learning_rate': 1e-2}
    one = alone(train_preference, 'preference', self.scratch,
                self.scratch / 'one_preference', more)
    runs.finish(start('train_preference', 'preference', self.scratch,
                      self.workdir, more))
    assert_same_end(self.workdir, one, 2)
    for got, want in zip(runs.lines(self.workdir), runs.lines(one),
                         strict=True):
      self.assertEqual(got['train_tokens'], want['train_tokens'])
      self.assertAlmostEqual(got['loss'], want['loss'], delta=1e-5)
    kept, wanted = (path / 'scores' / 'reference'
                    for path in (self.workdir, one))
    name = 'fingerprint.json'  # with it, of the same bits
    self.assertEqual((kept / name).read_text(), (wanted / name).read_text())
    with np.load(kept / '00000.npz') as got, (
        np.load(wanted / '00000.npz')) as want:
      for side in ('chosen', 'rejected'):
        np.testing.assert_allclose(got[side], want[side], atol=1e-5)
        self.assertGreater(np.abs(want[side]).min(), 0)

    # One goes on with what two have scored and trained.
    resumed = begun(self.workdir, self.workdir.with_name('resumed'), 1)
    with mock.patch.object(preference, 'score_pairs') as score:
      alone(train_preference, 'preference', self.scratch, resumed, more)
    score.assert_not_called()
    assert_same_end(resumed, one, 2)

  def test_a_killed_process_ends_the_other_with_a_message(self):
    long = {'num_steps': 10_000, 'checkpoint.every': 1}
    process = start('sft', 'sft', self.scratch, self.workdir, long,
                    f'--process_timeout={_TIMEOUT}')
    wait(process, lambda: newest(self.workdir) >= 4)
    begin = time.monotonic()
    os.kill(process_ids(process)[1], signal.SIGKILL)
    text, _ = process.communicate(timeout=100)
    # A heartbeat may come just before, and the machine may be busy.
    self.assertLess(time.monotonic() - begin, 4 * _TIMEOUT)
    self.assertEqual(process.returncode, 128 + signal.SIGKILL)
    self.assertIn('process 1 has died (SIGKILL)', text)
    self.assertNotIn('process 0 is killed', text)  # it ended by itself
    self.assertRegex(text, r'\[0\] .*(unhealthy|[Hh]eartbeat|Gloo|gloo|peer)')
    assert_same_end(self.workdir, self.reference('one_sft'), 4)

  def test_sigterm_to_one_process_stops_all_at_the_same_step(self):
    long = {'num_steps': 10_000, 'checkpoint.every': 100_000}
    process = start('sft', 'sft', self.scratch, self.workdir, long,
                    '--stopped_exit_code=75')
    wait(process, (self.workdir / 'metrics.jsonl').exists)
    os.kill(process_ids(process)[1], signal.SIGTERM)
    text, _ = process.communicate(timeout=100)
    self.assertEqual(process.returncode, 75, text)
    saved = newest(self.workdir)
    self.assertGreater(saved, 0)
    self.assertIn(f'[0] Stopped on request: saved step {saved}', text)

  def test_processes_that_were_started_differently_are_refused(self):
    port = launch_local.free_port()
    both = [subprocess.Popen(
        [sys.executable, '-m', 'experiments.sft', f'--workdir={self.workdir}',
         f'--config={runs.CONFIG}:sft', f'--config.seed={7 + index}',
         f'--coordinator=localhost:{port}', '--num_processes=2',
         f'--process_id={index}'],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        cwd=self.scratch, env=os.environ | {
            'PYTHONPATH': str(runs.REPOSITORY), 'XLA_FLAGS': _COMPILE_FAST})
            for index in range(2)]
    for process in both:
      text = runs.finish(process, code=1)
      self.assertIn('Expected the same run in all 2 processes', text)
      self.assertIn('  seed: process 0 7, process 1 8', text)
    self.assertFalse(self.workdir.exists())


if __name__ == '__main__':
  absltest.main()
