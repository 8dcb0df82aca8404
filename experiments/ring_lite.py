"""The Ring-lite pipeline: distil, choose by entropy, RL in two stages, measure.

  python -m experiments.ring_lite \\
      --config=configs/pipeline/ring_lite_mini.py --workdir=runs/ring_lite

Every stage writes into a folder of its own and continues where it was stopped.

Reference: Ring-lite (arXiv 2506.14731), §3.4 and §4.3.
"""
from __future__ import annotations

import json
import pathlib

import numpy as np

from experiments import evaluate
from experiments import launch
from experiments import sft
from experiments import train_policy
from rljax.evaluation import entropy
from rljax.evaluation import intervals
from rljax.evaluation import plots
from rljax.evaluation import report
from rljax.training import metrics as logging


def run(config, workdir: str) -> dict:
  """Runs the pipeline once for every seed and reports them together."""
  job = launch.start(config.sft, workdir, 'ring_lite')
  parts = [run_seed(config, job.workdir / f'seed_{seed}', seed)
           for seed in config.seeds]
  before = np.mean([part['sft']['scores'] for part in parts], axis=0)
  after = np.mean([part['rl']['scores'] for part in parts], axis=0)
  gain = intervals.paired_difference(before, after, seed=config.seeds[0])
  sections = {
      'sft': summary([part['sft'] for part in parts]),
      'rl': summary([part['rl'] for part in parts]),
      'gain': gain,
      'seeds': [dict(seed=seed, sft_step=part['choice']['step'],
                     sft_entropy=part['sft']['entropy']['estimate'],
                     sft_accuracy=part['sft']['accuracy']['estimate'],
                     rl_accuracy=part['rl']['accuracy']['estimate'])
                for seed, part in zip(config.seeds, parts, strict=True)],
      'choice': parts[0]['choice'],
      'stages': parts[0]['stages'],
      'step_seconds': parts[0]['step_seconds'],
      'examples': parts[0]['rl']['examples'],
  }
  curves = {'SFT start': sections['sft']['pass_at_k'],
            'after RL': sections['rl']['pass_at_k']}
  made = [plots.pass_at_k(curves, job.workdir / 'plots',
                          num_samples=parts[0]['rl']['num_samples'])]
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
  print(conclusion(sections, job.workdir), flush=True)
  return written


def run_seed(config, workdir: pathlib.Path, seed: int) -> dict:
  """One run of the whole pipeline; returns what its stages reported."""
  stage = at_seed(config.sft, seed)
  if not is_finished(workdir / 'sft', stage.num_steps):
    sft.run(stage, workdir / 'sft')
  choice = choose(config, workdir, seed)
  start = (str(workdir / 'sft' / 'checkpoints'), choice['step'])
  checkpoints = {'sft': start}
  for settings in config.rl:
    stage = at_seed(settings, seed)
    stage.init.checkpoint, stage.init.step = start
    if not is_finished(workdir / stage.name, stage.num_steps):
      train_policy.run(stage, workdir / stage.name)
    start = (str(workdir / stage.name / 'checkpoints'), stage.num_steps)
    checkpoints[stage.name] = start
  results = evaluate.run(at_seed(config.evaluation, seed), workdir / 'test',
                         checkpoints)
  stages = [dict(stage=name, accuracy=result['accuracy'],
                 entropy=result['entropy'], **result['by_domain'])
            for name, result in results.items()]
  names = ['sft', 'choice', *(name for name in checkpoints if name != 'sft'),
           'test']
  return accounts(workdir, names, last=list(checkpoints)[-1]) | {
      'sft': results['sft'], 'rl': results[list(checkpoints)[-1]],
      'choice': choice, 'stages': stages}


def is_finished(workdir: pathlib.Path, num_steps: int) -> bool:
  """Whether a stage of training has nothing left to do."""
  done = ((workdir / 'checkpoints' / str(num_steps)).exists()
          and (workdir / 'report.json').exists())
  if done:
    print(f'== finished before: {workdir}', flush=True)
  return done


def at_seed(config, seed: int):
  """A copy of a stage's config that may be changed."""
  config = config.copy_and_resolve_references()
  config.unlock()
  config.seed = seed
  return config


def choose(config, workdir: pathlib.Path, seed: int) -> dict:
  """Measures every SFT checkpoint and picks the start of RL by its entropy."""
  folder = str(workdir / 'sft' / 'checkpoints')
  every = config.sft.checkpoint.every
  results = evaluate.run(at_seed(config.choice, seed), workdir / 'choice', {
      f'sft_{step}': (folder, step)
      for step in range(every, config.sft.num_steps + 1, every)})
  rows = [dict(step=int(name.removeprefix('sft_')), entropy=found['entropy'],
               accuracy=found['accuracy']) for name, found in results.items()]
  candidates = [entropy.Candidate(
      step=row['step'], entropy=row['entropy']['estimate'],
      score=row['accuracy']['estimate']) for row in rows]
  low, high = config.entropy_band
  chosen, warning = entropy.choose_checkpoint(candidates, low=low, high=high)
  print(f'   chosen   SFT step {chosen.step}, {chosen.entropy:.3f} nats per '
        'token' + (f'\n   WARNING  {warning}' if warning else ''), flush=True)
  return dict(step=chosen.step, warning=warning, candidates=rows)


def accounts(workdir: pathlib.Path, names, last: str) -> dict:
  """Seconds and compilations by stage, and the split of the last RL step."""
  seconds, compilations = {}, {}
  for name in names:
    found = json.loads((workdir / name / 'report.json').read_text())
    seconds[name] = sum(found['seconds'].values())
    compilations |= {f'{name}/{function}': count for function, count in
                     found['compilations'].items()}
  lines = logging.read(workdir / last / logging.FILE_NAME)
  split = [dict(part=part, seconds=float(np.median(
      [line[f'{part}_seconds'] for line in lines])),
                tokens_per_second=float(np.median(
                    [line[f'{part}_tokens_per_second'] for line in lines])))
           for part in ('rollout', 'reward', 'pack', 'update')]
  return dict(seconds=seconds, compilations=compilations, step_seconds=split)


def summary(results: list[dict]) -> dict:
  """One entry for all seeds: problems are resampled, seeds are averaged."""
  first = results[0]
  mean_P = np.mean([r['scores'] for r in results], axis=0)
  average = lambda path: float(np.mean([path(r) for r in results]))
  curve = [dict(k=point['k'], **{
      bound: average(lambda r, i=i, b=bound: r['pass_at_k'][i][b])
      for bound in ('estimate', 'low', 'high')})
           for i, point in enumerate(first['pass_at_k'])]
  return dict(
      accuracy=float(mean_P.mean()),
      interval=intervals.bootstrap(mean_P, seed=0),
      entropy=average(lambda r: r['entropy']['estimate']), pass_at_k=curve,
      maj_at_k=[dict(k=p['k'], estimate=average(
          lambda r, i=i: r['maj_at_k'][i]['estimate']))
                for i, p in enumerate(first['maj_at_k'])],
      by_domain={d: average(lambda r, d=d: r['by_domain'][d]['estimate'])
                 for d in first['by_domain']},
      response_length=average(lambda r: r['response_length']),
      num_problems=first['num_problems'], num_samples=first['num_samples'])


def conclusion(sections, workdir) -> str:
  """The last lines a user reads."""
  gain = sections['gain']
  return (f'SFT start  {sections["sft"]["interval"]}\n'
          f'after RL   {sections["rl"]["interval"]}\n'
          f'gain       {gain.interval}, p = {gain.p_value:.2g}\n'
          f'report     {workdir / "report.md"}')


if __name__ == '__main__':
  launch.main(run)
