"""Ours and its peers, each a process with an interpreter of its own.

All get the same CPUs, threads and files, and no other settings of this
process. One works while the others are stopped, so that nobody's idle threads
take time from it.
"""
from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys

_ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = pathlib.Path(__file__).parent / 'peers'
# Who -> the environment it needs; its script is <who>_worker.py.
ENVIRONMENTS = {'rljax': None, 'transformers': 'hf', 'trl': 'hf',
                'tunix': 'tunix'}


@dataclasses.dataclass(frozen=True)
class Team:
  """Where the interpreters are, and what each worker may use."""
  interpreters: dict[str, str]  # environment -> its Python
  folder: pathlib.Path          # for checkpoints, tokens and logs
  threads: int

  def split(self, names) -> tuple[list[str], list[str]]:
    """(those that there is an interpreter for, the others)."""
    here = [name for name in names if self._python(name)]
    return here, [name for name in names if name not in here]

  def start(self, name: str, kind: str, **job) -> Worker:
    """A worker with a job of this kind; it is loading when this returns.

    Raises:
      ValueError: there is no interpreter for it.
    """
    python = self._python(name)
    if not python:
      raise ValueError(
          f'Expected an interpreter for {name}, got none. Pass --peer='
          f'{ENVIRONMENTS[name]}=<python>, or --make_peers.')
    return Worker(name, kind, python, dict(
        job, kind=kind, threads=self.threads, folder=str(self.folder)),
                  self.folder / f'{name}.{kind}.log')

  def _python(self, name: str) -> str | None:
    environment = ENVIRONMENTS[name]
    return sys.executable if environment is None else self.interpreters.get(
        environment)


class Worker:
  """A process that does one job, once per request. Close it."""

  def __init__(self, name: str, kind: str, python: str, job: dict,
               log: pathlib.Path):
    self.name, self._log = name, log
    with open(log, 'w') as file:
      self._process = subprocess.Popen(
          [python, SCRIPTS / f'{name}_worker.py'], text=True, stderr=file,
          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
          env=_environment(job['threads']))
    self.facts = self._exchange(json.dumps(job))

  def run(self) -> dict:
    """Does the job once; returns what the worker says of it."""
    return self._exchange('run')

  def forget_memory(self):
    """From now on the peak is that of the job, not of its compilation."""
    self._exchange('forget')

  def _exchange(self, line: str) -> dict:
    os.kill(self._process.pid, signal.SIGCONT)
    try:
      print(line, file=self._process.stdin, flush=True)
      answer = self._process.stdout.readline()
    except BrokenPipeError:
      answer = ''
    if not answer:
      self.close()
      raise RuntimeError(
          f'Expected an answer of {self.name}, got none: it has ended. Its log '
          f'{self._log} ends:\n{self._log.read_text()[-1500:]}')
    os.kill(self._process.pid, signal.SIGSTOP)
    return json.loads(answer)

  def close(self):
    self._process.kill()
    self._process.wait()
    self._process.stdin.close()
    self._process.stdout.close()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()


def _environment(threads: int) -> dict[str, str]:
  """The same for everybody, whatever this process was started with."""
  ours = {name: value for name, value in os.environ.items()
          if not name.startswith(('XLA_', 'JAX_', 'OMP_', 'MKL_', 'PYTHON'))}
  return ours | {
      'OMP_NUM_THREADS': str(threads), 'MKL_NUM_THREADS': str(threads),
      'JAX_PLATFORMS': 'cpu', 'HF_HUB_OFFLINE': '1', 'PYTHONPATH': str(_ROOT)}


def make_interpreters(folder: pathlib.Path) -> dict[str, str]:
  """Environments with the pinned versions; those that exist are kept."""
  found = {}
  for name in sorted({name for name in ENVIRONMENTS.values() if name}):
    python = folder / name / 'bin' / 'python'
    if not (folder / name / 'complete').exists():
      print(f'   makes {folder / name}', flush=True)
      subprocess.run([sys.executable, '-m', 'venv', folder / name], check=True)
      subprocess.run([python, '-m', 'pip', 'install', '--quiet',
                      '--requirement', SCRIPTS / f'{name}.txt'], check=True)
      (folder / name / 'complete').touch()
    found[name] = str(python)
  return found
