"""Runs of the scripts in processes of their own, and what they leave behind."""
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp

from rljax.training import metrics

REPOSITORY = pathlib.Path(__file__).parents[2]
CONFIG = REPOSITORY / 'tests' / 'end_to_end' / 'smoke.py'
_SOURCES = {'': ('sft.', 'choice.', 'rl[0].', 'rl[1].', 'evaluation.')}


def start(script: str, scratch: pathlib.Path, workdir: pathlib.Path,
          *overrides: str, stage: str = '') -> subprocess.Popen:
  """Starts a script on one device, from a folder that is not the repository.

  Args:
    script: a module of `experiments`.
    scratch: holds the data, the compilation cache and what the scripts print.
    workdir: of the run.
    *overrides: further arguments.
    stage: which part of the config.
  """
  data = [f'--config.{part}data.source.data_dir={scratch / "data"}'
          for part in _SOURCES.get(stage, ('',))]
  return launch(
      script, scratch, f'--config={CONFIG}:{stage}', f'--workdir={workdir}',
      f'--compilation_cache={scratch / "xla"}', *data, *overrides)


def launch(script: str, scratch: pathlib.Path,
           *arguments: str) -> subprocess.Popen:
  """As `start`, with the arguments as they are."""
  environment = os.environ | {
      'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '', 'PYTHONPATH': str(REPOSITORY)}
  return subprocess.Popen(
      [sys.executable, '-m', f'experiments.{script}', *arguments], text=True,
      cwd=scratch, env=environment, stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen, code: int = 0) -> str:
  """Waits for the end of a run and returns what it has printed."""
  text, _ = process.communicate(timeout=300)
  if process.returncode != code:
    raise AssertionError(
        f'Expected exit code {code}, got {process.returncode}:\n{text}')
  return text


def checkpoint(folder: pathlib.Path, step: int) -> dict:
  """What a checkpoint holds: its arrays by path, and its record."""
  arrays = {}
  for item in ('params', 'optimizer'):
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
      path = folder / str(step) / item
      as_numpy = jax.tree.map(
          lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
          reader.metadata(path).item_metadata.tree)
      found = reader.restore(
          path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    arrays |= {item + jax.tree_util.keystr(keys): np.asarray(value)
               for keys, value in jax.tree_util.tree_leaves_with_path(found)}
  record = json.loads((folder / str(step) / 'record' / 'metadata').read_text())
  del record['progress']['seconds']
  return {'arrays': arrays, 'record': record}


def assert_same_bits(got: dict, want: dict):
  """Compares two checkpoints: dtypes, shapes and every bit."""
  assert got['record'] == want['record'], (got['record'], want['record'])
  assert got['arrays'].keys() == want['arrays'].keys()
  for name, value in want['arrays'].items():
    other = got['arrays'][name]
    assert (other.dtype, other.shape) == (value.dtype, value.shape), name
    assert other.tobytes() == value.tobytes(), (
        f'{name} differs by up to {np.abs(other - value).max()}')


def lines(workdir: pathlib.Path) -> list[dict]:
  """The metrics of a run without what a clock has measured."""
  return [{name: value for name, value in line.items() if 'second' not in name}
          for line in metrics.read(workdir / metrics.FILE_NAME)]
