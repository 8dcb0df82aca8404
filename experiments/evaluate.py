"""Sample metrics with intervals for one checkpoint on held-out problems.

  python -m experiments.evaluate --config=configs/evaluation/mini.py \\
      --config.init.checkpoint=runs/ring_lite/seed_0/rl_math/checkpoints \\
      --workdir=runs/evaluation

The unit that is resampled is the problem, never the sample.
"""
from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import tqdm

from experiments import launch
from experiments import responses
from rljax import rewards
from rljax import sharding
from rljax.evaluation import entropy
from rljax.evaluation import intervals
from rljax.evaluation import pass_at_k
from rljax.evaluation import plots
from rljax.evaluation import report
from rljax.training import checkpoint
from rljax.training import metrics as logging
from rljax.training import optimizer as optimizers
from rljax.training import state as states


@dataclasses.dataclass(frozen=True)
class Measurement:
  """What one checkpoint does on a set of problems."""
  num_problems: int
  num_samples: int                   # n; every pass@k is estimated from these
  accuracy: intervals.Interval       # mean@n
  entropy: Any                       # nats per response token, with bounds
  pass_at_k: list[dict[str, float]]  # k, estimate, low, high
  maj_at_k: list[dict[str, float]]
  by_domain: dict[str, intervals.Interval]
  truncated: float                   # share of responses cut at the limit
  response_length: float             # mean tokens
  verdicts: dict[str, int]           # samples by status
  examples: list[dict[str, str]]     # a few, to read
  scores: list[float]                # mean@n of each problem, for pairing


def measure(config, job, sampler, params, records, scorer, key) -> Measurement:
  """Samples `num_samples` answers to each record and grades them."""
  options = config.evaluation
  samples = responses.sample(
      sampler, params, records, key, tokenizer=job.tokenizer,
      num_samples=options.num_samples, sampling=dict(options.sampling))
  graded = responses.grade(samples, records, scorer, job.tokenizer)
  n = options.num_samples
  correct_P = graded.correct_PG.sum(axis=1)
  mean_P = pass_at_k.mean_at_n(n, correct_P)
  class_PG = answer_classes(graded)
  interval = lambda score_P: intervals.bootstrap(score_P, seed=config.seed)

  def curve(score):
    points = []
    for k in options.ks:
      found = interval(score(k))
      points.append(dict(k=k, estimate=found.estimate, low=found.low,
                         high=found.high))
    return points

  domains = np.array([record['domain'] for record in records])
  return Measurement(
      num_problems=len(records), num_samples=n, accuracy=interval(mean_P),
      entropy=entropy.token_entropy(samples, seed=config.seed),
      pass_at_k=curve(lambda k: pass_at_k.pass_at_k(n, correct_P, k)),
      maj_at_k=curve(lambda k: pass_at_k.maj_at_k(
          class_PG, graded.correct_PG, k, seed=config.seed)),
      by_domain={d: interval(mean_P[domains == d]) for d in sorted(
          set(domains))},
      truncated=float(1 - samples.stopped_PG.mean()),
      response_length=float(samples.length_PG.mean()),
      verdicts=responses.verdicts(graded),
      examples=[dict(prompt=records[p]['prompt'], response=graded.texts[p * n],
                     verdict=graded.results[p * n].status)
                for p in range(min(options.num_examples, len(records)))],
      scores=mean_P.tolist())


def answer_classes(graded) -> np.ndarray:
  """Equal answers get equal labels per problem; no answer gets -1.

  All answers that the verifier accepts are one class, whatever their form.
  """
  num_prompts, num_samples = graded.correct_PG.shape
  labels_PG = np.full((num_prompts, num_samples), -1)
  for p in range(num_prompts):
    seen = {}
    for g in range(num_samples):
      result = graded.results[p * num_samples + g]
      if result.extracted is not None:
        name = True if result.is_correct else result.extracted
        labels_PG[p, g] = seen.setdefault(name, len(seen))
  return labels_PG


def choose_records(records, per_domain: int) -> list[dict]:
  """The first `per_domain` records of each domain, in their stored order."""
  taken: dict[str, list] = {}
  for record in records:
    group = taken.setdefault(record['domain'], [])
    if len(group) < per_domain:
      group.append(record)
  return [record for domain in sorted(taken) for record in taken[domain]]


def run(config, workdir: str,
        checkpoints: dict[str, tuple[str, int]] | None = None) -> dict:
  """Evaluates checkpoints on the same problems with the same keys.

  Args:
    config: an evaluation config.
    workdir: gets the report; what is measured already is read from there.
    checkpoints: name -> (folder of checkpoints, step); None stands for the
      one that `config.init` names.

  Returns:
    name -> Measurement, as plain dicts.
  """
  if checkpoints is None:
    if not config.init.checkpoint:
      raise ValueError(
          'Expected config.init.checkpoint to name a folder of checkpoints, '
          'got nothing. Add --config.init.checkpoint=<run>/checkpoints.')
    checkpoints = {'checkpoint': (config.init.checkpoint, config.init.step)}
  job = launch.start(config, workdir, 'evaluate')
  path = job.workdir / 'results.json'
  results = json.loads(path.read_text()) if path.exists() else {}
  keys = states.named_keys(config.seed, 'init', 'sample')
  optimizer = optimizers.make_optimizer('sgd', 0.0)  # no training: no moments
  clock = launch.Clock({name: r['seconds'] for name, r in results.items()})
  wanted = {name: request(config, job, *found)
            for name, found in checkpoints.items()}
  missing = [name for name in checkpoints
             if results.get(name, {}).get('request') != wanted[name]]
  if not missing and launch.has_report(job):
    # Nothing is left to do: the report of the run that did it stays.
    return {name: results[name] for name in checkpoints}
  with (logging.CompilationCounter() as counter,
        sharding.use(job.mesh, job.rules),
        rewards.create(**config.reward) as scorer):
    records = choose_records(
        launch.open_records(config, job, config.evaluation.split, scorer),
        config.evaluation.problems_per_domain)
    sampler = responses.make_sampler(job, config)
    for name in tqdm.tqdm(missing, desc=job.title, unit='checkpoint'):
      state, _ = launch.initial_state(
          config, job, optimizer, keys['init'],
          (wanted[name]['checkpoint'], wanted[name]['step']))
      with clock(name):
        result = measure(config, job, sampler, state.params, records, scorer,
                         keys['sample'])
      results[name] = report.plain(
          dataclasses.asdict(result)
          | {'seconds': clock.seconds[name], 'request': wanted[name]})
      report.write_json(path, results)
  results = {name: results[name] for name in checkpoints}
  made = plots.pass_at_k(
      {name: r['pass_at_k'] for name, r in results.items()},
      job.workdir / 'plots', num_samples=config.evaluation.num_samples)
  launch.finish(job, config, clock, counter, {'results': results}, [made])
  for name, result in results.items():
    print(f'   {name}: accuracy {as_text(result["accuracy"])}, entropy '
          f'{as_text(result["entropy"])} nats per token', flush=True)
  return results


def request(config, job, folder: str, step: int) -> dict:
  """What a result must have been measured with to be used again."""
  path = pathlib.Path(folder).expanduser().resolve()
  with checkpoint.Checkpointer(path, read_only=True,
                               fingerprint=job.fingerprint) as saver:
    newest = saver.latest_step()
  if newest is None:
    raise ValueError(f'Expected checkpoints in {path}, found none. Train '
                     'first, or name another folder.')
  return report.plain(dict(checkpoint=path, config=config.to_dict(),
                           step=newest if step < 0 else step))


def as_text(interval: dict[str, float]) -> str:
  return (f'{interval["estimate"]:.3f} [{interval["low"]:.3f}, '
          f'{interval["high"]:.3f}]')


if __name__ == '__main__':
  launch.main(run)
