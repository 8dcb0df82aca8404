r"""Speed and memory as ratios, each against something run beside it.

  # All rows, against programs in environments that this makes once; then the
  # numbers and the README's table are those of this run.
  python -m experiments.benchmark --make_peers --save --workdir=runs/benchmark

  python -m experiments.benchmark grouped_matmul --workdir=runs/matmul

Times are medians over rounds in which all take turns: machines are noisy, so
nothing is compared with a number from another run. Without a name it runs the
rows of `benchmark_rows.NAMES`, which takes about 30 minutes on two cores;
`--smoke` shrinks them to seconds. A row that lies in the workdir, measured with
the same settings and sources, is not measured again. A row whose peers have no
environment is measured without them, and says so.

Writes `report.json`, whose rows `benchmark_rows` describes, and `report.md`.
"""
from __future__ import annotations

import hashlib
import json
import os
import pathlib
import statistics
import time
from typing import Callable

from absl import app
from absl import flags
import jax

from experiments.benchmarking import benchmark_rows
from experiments.benchmarking import benchmark_team
from experiments.benchmarking.subjects import against_peers
from experiments.benchmarking.subjects import compile_depth
from experiments.benchmarking.subjects import decode_skewed
from experiments.benchmarking.subjects import grouped_matmul
from experiments.benchmarking.subjects import head_memory
from experiments.benchmarking.subjects import import_memory
from experiments.benchmarking.subjects import moe_dispatch
from experiments.benchmarking.subjects import preference_steps
from rljax.evaluation import report

# Each is `run(interleaved, smoke, team) -> rows`; the team starts peers.
SUBJECTS = {
    'moe_train': against_peers.moe_train,
    'moe32_train': against_peers.moe32_train,
    'dense_train': against_peers.dense_train,
    'decode': against_peers.decode,
    'decode_skewed': decode_skewed.run,
    'grpo_step': against_peers.grpo_step,
    'dpo_step': preference_steps.dpo_step,
    'reward_step': preference_steps.reward_step,
    'compile_depth': compile_depth.run,
    'head_memory': head_memory.run,
    'grouped_matmul': grouped_matmul.run,
    # By name only: gigabytes on the disk, and a part of the first row.
    'import_memory': import_memory.run,
    'moe_dispatch': moe_dispatch.run,
}
_ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(names, workdir: str, smoke: bool = False, peers=None,
        threads: int = 0) -> dict:
  """Measures the subjects one after the other; returns the report.

  Args:
    names: of subjects; none stands for `benchmark_rows.NAMES`.
    workdir: for the report, and for what the processes need.
    smoke: seconds instead of minutes.
    peers: environment -> its Python; see `benchmark_team.ENVIRONMENTS`.
    threads: of each process; 0 takes the CPUs there are.

  Raises:
    ValueError: a subject or an environment that there is not, or somebody who
      computes something else than the others.
  """
  _check('subjects', names, SUBJECTS)
  _check('peers', peers or {}, set(benchmark_team.ENVIRONMENTS.values()) - {
      None})
  folder = pathlib.Path(workdir).expanduser().resolve()
  (folder / 'rows').mkdir(parents=True, exist_ok=True)
  cpus = sorted(os.sched_getaffinity(0))
  threads = threads or len(cpus)
  os.sched_setaffinity(0, cpus[:threads])  # the peers inherit it
  team = benchmark_team.Team(peers or {}, folder / 'team', threads)
  settings = dict(smoke=smoke, threads=threads, peers=sorted(peers or ()),
                  cpu=_cpu(), source=_source(), versions=report.versions())
  print(f'== benchmark\n   machine  {_cpu()}, {len(cpus)} CPUs\n'
        f'   threads  {threads}\n   writes   {folder}', flush=True)
  rows, seconds = [], {}
  for name in names or benchmark_rows.NAMES:
    found = _measured(name, folder / 'rows' / f'{name}.json', settings, team)
    rows, seconds[name] = rows + found['rows'], found['seconds']
    print(f'   {name}: {seconds[name]:.0f} s\n'
          + benchmark_rows.table(found['rows']), flush=True)
  found = report.write_report(
      folder, title='Benchmark', command=report.command_line(), seed=0,
      seconds=seconds, compilations={}, plots=[], sections={
          'machine': dict(cpu=_cpu(), cpus=len(cpus), threads=threads),
          'rows': rows})
  report.write_text(folder / 'report.md', benchmark_rows.table(rows))
  return found


def _measured(name: str, path: pathlib.Path, settings: dict, team) -> dict:
  """Rows and seconds of a subject: those of the file, or measured now."""
  if path.exists():
    kept = json.loads(path.read_text())
    if kept['settings'] == settings:
      return kept
  begin, load = time.perf_counter(), os.getloadavg()[0]
  rows = [benchmark_rows.completed(row) for row in SUBJECTS[name](
      interleaved, settings['smoke'], team)]
  # Waiting for a CPU before the row and at its end: more than `threads` means
  # that others were at work.
  about = dict(load=[load, os.getloadavg()[0]], settings=settings)
  found = dict(settings=settings, seconds=time.perf_counter() - begin,
               rows=[row | about for row in rows])
  report.write_json(path, report.plain(found, name))
  return found


def _source() -> str:
  """A digest of what is measured, and of what measures."""
  found = hashlib.sha256()
  for folder in ('rljax', 'experiments'):
    for path in sorted((_ROOT / folder).rglob('*.py')):
      found.update(path.read_bytes())
  return found.hexdigest()


def _check(what: str, names, known):
  unknown = sorted(set(names) - set(known))
  if unknown:
    raise ValueError(f'Expected {what} among {sorted(known)}, got {unknown}. '
                     'Correct the name.')


def _cpu() -> str:
  lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  return next((line.split(':')[1].strip() for line in lines
               if line.startswith('model name')), 'unknown')


def interleaved(functions: dict[str, Callable],
                rounds: int) -> dict[str, float]:
  """Median seconds of each; they take turns, after one that is not counted."""
  def seconds(function):
    begin = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - begin

  for function in functions.values():
    jax.block_until_ready(function())
  times, order = [], list(functions)
  for _ in range(rounds):
    times.append({name: seconds(functions[name]) for name in order})
    order = order[1:] + order[:1]  # nobody always runs after the same one
  return {name: statistics.median(row[name] for row in times)
          for name in functions}


def main(arguments):
  flag = flags.FLAGS
  if flag.save and flag.smoke:
    raise ValueError('Expected a run at full size for --save, got --smoke. '
                     'Leave one of the two out.')
  unnamed = [peer for peer in flag.peer if '=' not in peer]
  if unnamed:
    raise ValueError(f'Expected --peer=<environment>=<python>, got {unnamed}.')
  peers = dict(peer.split('=', 1) for peer in flag.peer)
  if flag.make_peers:
    peers = benchmark_team.make_interpreters(
        pathlib.Path(flag.workdir).expanduser().resolve() / 'peers') | peers
  found = run(arguments[1:], flag.workdir, flag.smoke, peers, flag.threads)
  if flag.save:
    benchmark_rows.save(found, _ROOT / 'experiments' / 'results',
                        _ROOT / 'README.md')


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, 'Folder for rows and report.')
  flags.DEFINE_bool('smoke', False, 'Shrinks every subject to seconds.')
  flags.DEFINE_multi_string('peer', [], 'hf=<python> or tunix=<python>.')
  flags.DEFINE_bool('make_peers', False, 'Makes these environments here.')
  flags.DEFINE_integer('threads', 0, 'Of each process; 0: as many as CPUs.')
  flags.DEFINE_bool('save', False, 'Publishes the rows; not those of --smoke.')
  flags.mark_flag_as_required('workdir')
  app.run(main)
