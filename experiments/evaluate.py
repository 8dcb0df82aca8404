"""Sample metrics with intervals for one checkpoint on held-out problems.

  python -m experiments.evaluate --config=configs/evaluation/mini.py \\
      --config.init.checkpoint=runs/ring_lite/seed_0/rl_math/checkpoints \\
      --workdir=runs/evaluation

The unit that is resampled is the problem, never the sample.
"""
from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import pathlib

import tqdm

from experiments.evaluation import measurement
from experiments.job import launch
from experiments.job import prompt_records
from experiments.job import reporting
from experiments.job import shared as sharing
from experiments.job import starting_params
from experiments.policy import judging
from experiments.policy import responses
from rljax import rewards
from rljax import sharding
from rljax.evaluation import plots
from rljax.evaluation import report
from rljax.training import checkpoint
from rljax.training import metrics as logging
from rljax.training import optimizer as optimizers
from rljax.training import state as states


def measure(config, job, sampler, params, records, scorer, key):
  """Samples `num_samples` answers to each record, grades and judges them."""
  options = config.evaluation
  samples = responses.sample(
      sampler, params, records, key, tokenizer=job.tokenizer,
      num_samples=options.num_samples, sampling=dict(options.sampling))
  graded = responses.grade(samples, records, scorer, job.tokenizer)
  verdict_PGV = None if config.judge.name == 'none' else judging.verdicts(
      config, graded, job.workdir)
  return measurement.measure(
      graded, ks=options.ks, seed=config.seed,
      num_examples=options.num_examples, verdict_PGV=verdict_PGV,
      **judging.reading(config))


def choose_records(records, per_domain: int) -> list[dict]:
  """`per_domain` records of each domain, its tasks taking turns.

  The problems of a task are stored one after the other: the first of a domain
  would all be of the same family and difficulty.
  """
  domains: dict[str, dict[tuple, list]] = {}
  for record in records:
    tasks = domains.setdefault(record['domain'], {})
    task = record['family'], record['difficulty']
    tasks.setdefault(task, []).append(record)
  chosen = []
  for _, tasks in sorted(domains.items()):
    turns = itertools.zip_longest(*tasks.values())
    mixed = [record for turn in turns for record in turn if record is not None]
    chosen += mixed[:per_domain]
  if len(chosen) < 2:
    raise ValueError(
        f'Expected at least two problems to measure on, got {len(chosen)}: '
        'intervals are over problems. Raise '
        'config.evaluation.problems_per_domain, or hold out more of the data.')
  return chosen


def check(config):
  """Refuses, before anything is sampled, sizes that cannot work together."""
  options = config.evaluation
  responses.check_prompt_lengths(config)
  judging.check(config)
  if not options.ks or not 1 <= min(options.ks) <= max(options.ks) <= (
      options.num_samples):
    raise ValueError(
        f'Expected evaluation.ks between 1 and num_samples = '
        f'{options.num_samples}, got {tuple(options.ks)}. Draw more samples, '
        'or ask for smaller k.')


def run(config, workdir: str,
        checkpoints: dict[str, tuple[str, int]] | None = None,
        shared: sharing.Shared | None = None, plotted: bool = True) -> dict:
  """Evaluates checkpoints on the same problems with the same keys.

  Args:
    config: an evaluation config.
    workdir: gets the report; what is measured already is read from there.
    checkpoints: name -> (folder of checkpoints, step); None stands for the
      one that `config.init` names.
    shared: with other runs of this process.
    plotted: the curves over k.

  Returns:
    name -> Measurement, as plain dicts.
  """
  if shared is None:
    with sharing.Shared() as shared:
      return run(config, workdir, checkpoints, shared, plotted)
  check(config)
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
  wanted = {name: request(config, job, *found)
            for name, found in checkpoints.items()}
  missing = [name for name in checkpoints
             if results.get(name, {}).get('request') != wanted[name]]
  clock = reporting.Clock({
      name: results[name]['seconds'] for name in checkpoints
      if name not in missing})
  if not missing and reporting.has_report(job):
    # Nothing is left to do: the report of the run that did it stays.
    return {name: results[name] for name in checkpoints}
  with (logging.CompilationCounter() as counter,
        sharding.use(job.mesh, job.rules)):
    scorer = shared('scorer', config.reward.to_dict(),
                    lambda: rewards.create(**config.reward))
    split = config.evaluation.split
    records = choose_records(
        shared(f'records of {split}', sharing.records(config),
               lambda: prompt_records.open_records(config, job, split, scorer)),
        config.evaluation.problems_per_domain)
    sampler = shared('sampler', sharing.compiled(config),
                     lambda: responses.make_sampler(job, config))
    for name in tqdm.tqdm(missing, desc=job.title, unit='checkpoint'):
      state, _ = starting_params.initial_state(
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
  reporting.finish(job, config, clock, counter, tables(results), draw(
      results, job.workdir / 'plots', config.evaluation.num_samples)
                if plotted else [])
  for name, result in results.items():
    launch.say(f'   {name}: {line(result)}')
  return results


def draw(results: dict[str, dict], folder, num_samples: int) -> list:
  """The curves over k; with a judge also those of CoT-Pass@K."""
  made = [plots.pass_at_k({name: r['pass_at_k'] for name, r in results.items()},
                          folder, num_samples=num_samples)]
  judged = {f'{name}, {part["rule"]}': part['cot_pass_at_k']
            for name, r in results.items() for part in r['reasoning'] or ()}
  if judged:
    made.append(plots.pass_at_k(judged, folder, num_samples=num_samples,
                                name='cot_pass_at_k'))
  return made


def request(config, job, folder: str, step: int) -> dict:
  """What a result must have been measured with to be used again."""
  path = pathlib.Path(folder).expanduser().resolve()
  with checkpoint.Checkpointer(path, read_only=True,
                               fingerprint=job.fingerprint) as saver:
    steps = saver.steps()
  if not steps:
    raise ValueError(f'Expected checkpoints in {path}, found none. Train '
                     'first, or name another folder.')
  step = steps[-1] if step < 0 else step
  if step not in steps:
    raise ValueError(f'Expected a checkpoint of step {step} in {path}, found '
                     f'{steps}. Name one of these.')
  return report.plain(dict(checkpoint=path, step=step,
                           digest=digest(path, step), config=config.to_dict()))


def digest(folder: str | pathlib.Path, step: int) -> str | None:
  """Tells a checkpoint from another one of the same name."""
  sums = pathlib.Path(folder).expanduser() / str(step) / 'checksums.json'
  if not sums.exists():  # restoring will refuse it
    return None
  return hashlib.sha256(sums.read_bytes()).hexdigest()


def tables(results: dict[str, dict]) -> dict[str, list[dict]]:
  """The report, a row for each checkpoint; `results.json` holds the rest."""
  names = ('accuracy', 'entropy', 'truncated', 'response_length',
           'num_problems', 'ungraded')
  statuses = sorted({s for r in results.values() for s in r['verdicts']})
  rows = lambda row: [{'checkpoint': name} | row(result)
                      for name, result in results.items()]
  corrected = sorted({key for r in results.values()
                      for part in r['reasoning'] or ()
                      for key in part['corrected'] or ()})
  reasoning = [
      {'checkpoint': name, 'rule': part['rule'],
       'answer right': part['answer_right'],
       'reasoning right of these': part['reasoning_right'],
       'unjudged': part['unjudged']}
      | {f'k={p["k"]}': p for p in part['cot_pass_at_k']}
      | {f'{key}, corrected': (part['corrected'] or {key: None})[key]
         for key in corrected}
      for name, result in results.items()
      for part in result['reasoning'] or ()]
  judged = dict(cot_pass_at_k=reasoning, judge=rows(
      lambda r: r['judge'])) if reasoning else {}
  named = dict(letters=[{'checkpoint': name, 'letter': letter, 'named': count}
                        for name, result in results.items()
                        for letter, count in result['letters'].items()])
  return judged | (named if named['letters'] else {}) | {
      'accuracy': rows(lambda r: {n: r[n] for n in names} | r['by_domain']),
      'pass_at_k': rows(lambda r: {f'k={p["k"]}': p for p in r['pass_at_k']}),
      'maj_at_k': rows(lambda r: {f'k={p["k"]}': p for p in r['maj_at_k']}),
      'pass_hat_k': rows(lambda r: {f'k={p["k"]}': p for p in r['pass_hat_k']}),
      'mg_pass_at_k': rows(
          lambda r: {f'k={p["k"]}': p for p in r['mg_pass_at_k']}),
      'samples': rows(lambda r: r['behaviour']),
      'verdicts': rows(lambda r: {s: r['verdicts'].get(s, 0)
                                  for s in statuses}),
      'examples': [{'checkpoint': name} | example for name, result in
                   results.items() for example in result['examples']]}


def line(result: dict) -> str:
  """What a user reads of a measurement."""
  text = measurement.text
  left_out = (f'; {result["ungraded"]} problems left out, not graded'
              if result['ungraded'] else '')
  return (f'accuracy {text(result["accuracy"])}, entropy '
          f'{text(result["entropy"])} nats per token{left_out}')


if __name__ == '__main__':
  launch.main(run)
