"""The Ring-lite pipeline: distil, choose by entropy, RL in two stages, measure.

  python -m experiments.ring_lite \\
      --config=configs/pipeline/ring_lite_mini.py --workdir=runs/ring_lite

Every stage writes into a folder of its own and continues where it was stopped.

Reference: Ring-lite (arXiv 2506.14731), §3.4 and §4.3.
"""
from __future__ import annotations

import contextlib
import itertools
import json
import pathlib
import time

import numpy as np

from experiments import evaluate
from experiments import sft
from experiments import train_policy
from experiments.evaluation import measurement
from experiments.job import launch
from experiments.job import run_folder
from rljax.evaluation import entropy
from rljax.evaluation import plots
from rljax.evaluation import report
from rljax.training import metrics as logging

# In the folder of a stage:
SECONDS = 'wall_seconds.json'
_START = 'start.json'  # digest of the checkpoint that it began from


def run(config, workdir: str) -> dict:
  """Runs the pipeline once for every seed and reports them together."""
  check(config)
  job = launch.start(config.sft, workdir, 'ring_lite')
  parts = [run_seed(config, job.workdir / f'seed_{seed}', seed)
           for seed in config.seeds]
  sections = account(config.seeds, parts)
  curves = {'SFT start': sections['sft']['pass_at_k'],
            'after RL': sections['rl']['pass_at_k']}
  made = [plots.pass_at_k(curves, job.workdir / 'plots',
                          num_samples=sections['rl']['num_samples'])]
  first = job.workdir / f'seed_{config.seeds[0]}'
  for stage in ('sft', *(s.name for s in config.rl)):
    made += sorted((first / stage / 'plots').glob('*.png'))
  total = {}
  for part in parts:
    for name, seconds in part['seconds'].items():
      total[name] = total.get(name, 0.0) + seconds
  written = report.write_report(
      job.workdir, title='Ring-lite in miniature',
      command=report.command_line(), seed=config.seeds[0], seconds=total,
      compilations=parts[0]['compilations'], sections=sections, plots=made)
  launch.say(conclusion(sections, job.workdir))
  return written


def account(seeds, parts: list[dict]) -> dict:
  """The sections of the report; what is not averaged is of the first seed."""
  found = {name: [part['results'][name] for part in parts]
           for name in parts[0]['results']}
  names = list(found)
  start, end = found[names[0]], found[names[-1]]
  summaries = {name: measurement.summary(results)
               for name, results in found.items()}
  return {
      'sft': summaries[names[0]],
      'rl': summaries[names[-1]],
      'gain': measurement.difference(start, end),
      'seeds': [dict(seed=seed, sft_step=part['choice']['step'],
                     sft_entropy=before['entropy']['estimate'],
                     sft_accuracy=before['accuracy'],
                     rl_accuracy=after['accuracy'],
                     gain=measurement.difference([before], [after]).interval,
                     warning=part['choice']['warning'])
                for seed, part, before, after in zip(
                    seeds, parts, start, end, strict=True)],
      'stages': [dict(stage=name, accuracy=s['interval'], entropy=s['entropy'],
                      response_length=s['response_length'], **s['by_domain'])
                 for name, s in summaries.items()],
      # What each stage gained, and what it forgot.
      'changes': [changes(name, found[before], found[name])
                  for before, name in itertools.pairwise(names)]
                 + [changes('all stages', start, end)],
      'choice': {'seed': seeds[0]} | parts[0]['choice'],
      'step_seconds': parts[0]['step_seconds'],
      'examples': end[0]['examples'],
  }


def check(config):
  """Refuses, before anything is trained, sizes that cannot work together."""
  keep, needed = config.sft.checkpoint.keep, len(candidates(config.sft))
  if keep is not None and keep < needed:
    raise ValueError(
        f'Expected sft.checkpoint.keep to be None or >= {needed}, as many as '
        f'are compared, got {keep}. Raise it, or save fewer with '
        'sft.checkpoint.every.')


def candidates(config) -> list[int]:
  """Steps of SFT that are compared: each regular checkpoint, and the last."""
  every, last = config.checkpoint.every, config.num_steps
  return sorted({*range(every, last + 1, every), last})


def changes(stage: str, before: list[dict], after: list[dict]) -> dict:
  """Accuracy gained by a stage, over all problems and in each domain."""
  gain = lambda in_P=...: measurement.difference(before, after, in_P).interval
  return dict(stage=stage, accuracy=gain(),
              **measurement.by_domain(before[0]['problems'], gain))


def run_seed(config, workdir: pathlib.Path, seed: int) -> dict:
  """One run of the whole pipeline; returns what its stages reported."""
  train(sft, at_seed(config.sft, seed), workdir / 'sft')
  choice = choose(config, workdir, seed)
  start = (str(workdir / 'sft' / 'checkpoints'), choice['step'])
  checkpoints = {'sft': start}
  for settings in config.rl:
    stage = at_seed(settings, seed)
    stage.init.checkpoint, stage.init.step = start
    remember_start(stage.init, workdir / stage.name)
    train(train_policy, stage, workdir / stage.name)
    start = (str(workdir / stage.name / 'checkpoints'), stage.num_steps)
    checkpoints[stage.name] = start
  with timed(workdir / 'test'):
    results = evaluate.run(at_seed(config.evaluation, seed), workdir / 'test',
                           checkpoints)
  names = ['sft', 'choice', *(name for name in checkpoints if name != 'sft'),
           'test']
  return accounts(workdir, names, last=list(checkpoints)[-1]) | {
      'results': results, 'choice': choice}


def train(script, config, workdir: pathlib.Path, **options):
  """Runs a stage of training, unless it is finished."""
  if run_folder.finished(config, workdir):
    launch.say(f'== finished before: {workdir}')
    return
  with timed(workdir):
    script.run(config, workdir, **options)


def remember_start(init, workdir: pathlib.Path):
  """Notes where a stage begins; a config names a folder, not what is in it.

  Raises:
    ValueError: the stage has begun from what is no longer there.
  """
  path = workdir / _START
  now = evaluate.digest(init.checkpoint, init.step)
  if not path.exists():
    workdir.mkdir(parents=True, exist_ok=True)
    report.write_json(path, now)
  elif json.loads(path.read_text()) != now:
    raise ValueError(
        f'Expected {workdir} to have begun from step {init.step} in '
        f'{init.checkpoint} as it is now, but that was trained again since. '
        f'Delete {workdir} to run the stage again, or use another --workdir.')


@contextlib.contextmanager
def timed(workdir: pathlib.Path):
  """Adds up the wall seconds of a stage, interrupted or not, in its folder.

  A start that finds everything done, and leaves the report as it is, adds none.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  path, written = workdir / SECONDS, workdir / 'report.json'
  stamp = lambda: written.stat().st_mtime_ns if written.exists() else None
  before, begin = stamp(), time.perf_counter()
  try:
    yield
  finally:
    if before is None or stamp() != before:
      spent = json.loads(path.read_text()) if path.exists() else 0.0
      report.write_json(path, spent + time.perf_counter() - begin)


def at_seed(config, seed: int):
  """A copy of a stage's config that may be changed."""
  config = config.copy_and_resolve_references()
  config.unlock()
  config.seed = seed
  return config


def choose(config, workdir: pathlib.Path, seed: int) -> dict:
  """Measures the SFT checkpoints and picks the start of RL by its entropy."""
  folder = workdir / 'sft' / 'checkpoints'
  lost = [step for step in candidates(config.sft)
          if not (folder / str(step)).exists()]
  with timed(workdir / 'choice'):
    results = evaluate.run(at_seed(config.choice, seed), workdir / 'choice', {
        f'sft_{step}': (str(folder), step)
        for step in candidates(config.sft) if step not in lost})
  rows = [dict(step=int(name.removeprefix('sft_')), entropy=found['entropy'],
               accuracy=found['accuracy']) for name, found in results.items()]
  low, high = config.entropy_band
  chosen, warning = entropy.choose_checkpoint(
      [entropy.Candidate(step=row['step'], entropy=row['entropy']['estimate'],
                         score=row['accuracy']['estimate']) for row in rows],
      low=low, high=high)
  if lost:  # stops on request save steps too, and push others out
    warning = (f'{warning or ""} SFT steps {lost} are not compared: they were '
               'deleted. sft.checkpoint.keep=None keeps all.').strip()
  launch.say(
      f'   chosen   SFT step {chosen.step}, {chosen.entropy:.3f} nats per token'
      + (f'\n   WARNING  {warning}' if warning else ''))
  return dict(step=chosen.step, warning=warning, candidates=rows)


def accounts(workdir: pathlib.Path, names, last: str) -> dict:
  """Wall seconds and compilations by stage, and the split of an RL step."""
  seconds, compilations = {}, {}
  for name in names:
    found = json.loads((workdir / name / 'report.json').read_text())
    if (workdir / name / SECONDS).exists():  # else it was run by itself
      seconds[name] = json.loads((workdir / name / SECONDS).read_text())
    compilations |= {f'{name}/{function}': count for function, count in
                     found['compilations'].items()}
  lines = logging.read(workdir / last / logging.FILE_NAME)
  split = [dict(part=part, seconds=float(np.median(
      [line[f'{part}_seconds'] for line in lines])),
                tokens_per_second=float(np.median(
                    [line[f'{part}_tokens_per_second'] for line in lines])))
           for part in ('rollout', 'reward', 'pack', 'update')]
  return dict(seconds=seconds, compilations=compilations, step_seconds=split)


def conclusion(sections, workdir) -> str:
  """The last lines a user reads."""
  gain = sections['gain']
  return (f'SFT start  {sections["sft"]["interval"]}\n'
          f'after RL   {sections["rl"]["interval"]}\n'
          f'gain       {gain.interval}, p = {gain.p_value:.2g}\n'
          f'report     {workdir / "report.md"}')


if __name__ == '__main__':
  launch.main(run)
