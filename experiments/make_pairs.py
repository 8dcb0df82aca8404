"""Pairs from a policy's own responses: the best of n against the worst.

  python -m experiments.make_pairs --config=configs/pairs/worked_sums.py \\
      --config.init.checkpoint=runs/sft_tiny/checkpoints --workdir=runs/pairs

Writes `pairs.jsonl`, which `experiments.train_preference` reads as a file of
the form jsonl: rewards and where a pair comes from stand beside it. A group
whose responses all earn the same says nothing and gives no pair; a reward model
(`config.reward_model`) may take the verifier's place as scorer, and a judge
finds the best and the worst as its `ranking` says. What is sampled is kept step
by step in `groups.jsonl`; the same command goes on there.

Reference: UltraFeedback's on-policy pairs as in SimPO (arXiv 2405.14734).
"""
from __future__ import annotations

import collections
import json
import pathlib
from typing import Any

import jax
import numpy as np

from experiments.job import launch
from experiments.job import pins
from experiments.job import prompt_records
from experiments.job import reporting
from experiments.job import run_folder
from experiments.job import starting_params
from experiments.policy import responses
from experiments.policy import reward_from_model
from rljax import journal
from rljax import processes
from rljax import rewards
from rljax import sharding
from rljax.evaluation import report
from rljax.training import metrics as logging
from rljax.training import optimizer as optimizers
from rljax.training import state as states

_OUTCOMES = ('pair', 'all_equal_best', 'all_equal_worst', 'all_equal',
             'too_few_gradable', 'empty_response')


def run(config, workdir: str) -> dict[str, Any]:
  """Samples, grades and pairs; returns the counts."""
  responses.check_prompt_lengths(config)
  if config.pairs.samples_per_prompt < 2:
    raise ValueError(
        'Expected pairs.samples_per_prompt >= 2, a better and a worse response,'
        f' got {config.pairs.samples_per_prompt}. Raise it.')
  reward_from_model.check(config, config.pairs.samples_per_prompt)
  job = launch.start(config, workdir, 'make_pairs')
  config = claim(config, job.workdir)
  keys = states.named_keys(config.seed, 'init', 'sample')
  clock, path = reporting.Clock(), job.workdir / 'groups.jsonl'
  with (logging.CompilationCounter() as counter,
        sharding.use(job.mesh, job.rules),
        rewards.create(**config.reward) as scorer):
    records = list(prompt_records.open_records(
        config, job, config.pairs.split, scorer))
    each = config.pairs.prompts_per_step
    if len(records) < each:
      raise ValueError(f'Expected at least pairs.prompts_per_step = {each} '
                       f'records, got {len(records)}. Lower it.')
    records = records[:len(records) - len(records) % each]  # of one shape
    done = read(path)
    processes.meet()  # before it is written to, all have read
    state, _ = starting_params.initial_state(
        config, job, optimizers.make_optimizer('sgd', 0.0), keys['init'])
    sampler = responses.make_sampler(job, config)
    rescore = reward_from_model.create(config, job)
    steps = range(len(done), len(records) // each)
    for step in logging.progress(steps, job.title):
      draw = responses.Draw(
          sampler, state.params, jax.random.fold_in(keys['sample'], step),
          job.tokenizer, scorer, dict(config.pairs.sampling), clock,
          rescore)
      graded = draw(records[step * each:(step + 1) * each],
                    config.pairs.samples_per_prompt)
      groups = [pick(graded, p) for p in range(each)]
      done.append({'step': step, 'groups': groups})
      if jax.process_index() == 0:
        journal.append(path, done[-1:])
  groups = [group for line in done for group in line['groups']]
  counts = count(groups)
  launch.say(f'   {counts}')
  write(job.workdir / 'pairs.jsonl', groups, provenance(config))
  reporting.finish(job, config, clock, counter, {
      'groups': counts, 'reward model': {
          'most_judge_calls': reward_from_model.most_judge_calls(
              config, len(groups), config.pairs.samples_per_prompt)}}, [])
  return counts


def claim(config, workdir: pathlib.Path):
  """Refuses to go on with groups of another policy, data or way of sampling.

  Returns:
    The config; a step of -1 is the one that the first groups are of.

  Raises:
    ValueError: the folder holds such groups, or what they are of is gone.
  """
  path = workdir / 'request.json'
  begun = (workdir / 'groups.jsonl').exists()
  stored = json.loads(path.read_text()) if path.exists() else {}
  differing = run_folder.differences(stored, config) if stored else []
  if differing and begun:
    raise ValueError(
        f'Expected {workdir} to be new or to hold groups of this config, but '
        'they were sampled with other settings:\n' + '\n'.join(differing)
        + '\nGive this run those settings to continue, or another --workdir.')
  config = pins.pinned(config, {} if differing else stored, begun=begun)
  processes.meet()
  if jax.process_index() == 0:
    report.write_json(path, run_folder.flat(config.to_dict()))
  return config


def pick(graded: responses.Graded, p: int) -> dict[str, Any]:
  """What a group gives: its best and its worst response, or why it does not.

  Of several that are equally good the first is taken: samples have no order.
  """
  reward_G, valid_G = graded.reward_PG[p], graded.valid_PG[p]
  record, size = graded.records[p], len(reward_G)
  found = {'id': record['id'], 'rewards': reward_G.tolist(), 'ties': 0}
  gradable = np.flatnonzero(valid_G)
  if len(gradable) < 2:
    return found | {'outcome': 'too_few_gradable'}
  values = reward_G[gradable]
  if values.max() == values.min():
    correct = graded.correct_PG[p][gradable]
    kind = ('all_equal_best' if correct.all() else
            'all_equal_worst' if not correct.any() else 'all_equal')
    return found | {'outcome': kind}
  best, worst = (int(gradable[index]) for index in (
      values.argmax(), values.argmin()))
  texts = {side: graded.texts[p * size + g]
           for side, g in (('chosen', best), ('rejected', worst))}
  found['ties'] = int((values == values.max()).sum()
                      + (values == values.min()).sum() - 2)
  if not all(text.strip() for text in texts.values()):
    return found | {'outcome': 'empty_response'}
  # What the limit has cut off did not end: no stop is to be learnt there.
  stopped_G = graded.rollout.stopped_PG[p]
  ends = {f'{side}_ends': bool(stopped_G[g])
          for side, g in (('chosen', best), ('rejected', worst))}
  return found | {'outcome': 'pair', 'pair': texts | ends | {
      'prompt': record['prompt'], 'id': record['id'],
      'domain': record['domain'], 'score_chosen': float(reward_G[best]),
      'score_rejected': float(reward_G[worst])}}


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """The steps that are done; a last line that a kill has cut does not count."""
  if not path.exists():
    return []
  *whole, _ = path.read_text(encoding='utf-8').split('\n')
  return [json.loads(line) for line in whole]


def count(groups) -> dict[str, int]:
  """Groups by what came of them, and responses as good as one that was taken.

  All in a group right is `all_equal_best`, all wrong `all_equal_worst`.
  """
  found = collections.Counter(group['outcome'] for group in groups)
  return {name: found[name] for name in _OUTCOMES} | {
      'ties': sum(group['ties'] for group in groups)}


def provenance(config) -> dict[str, Any]:
  """What a reader of the file has to know of where it comes from."""
  return {'checkpoint': config.init.checkpoint, 'step': config.init.step,
          'seed': config.seed, 'reward': config.reward.name,
          'reward_model': config.reward_model.run,
          'ranking': config.reward_model.ranking,
          'samples_per_prompt': config.pairs.samples_per_prompt,
          'sampling': dict(config.pairs.sampling)}


def write(path: pathlib.Path, groups, source: dict[str, Any]):
  """All pairs, in the order of the records.

  Raises:
    ValueError: no group gave one.
  """
  pairs = [group['pair'] | {'provenance': source} for group in groups
           if group['outcome'] == 'pair']
  if not pairs:
    raise ValueError(
        f'Expected a group with responses of different rewards, got none of '
        f'{len(groups)}: {count(groups)}. Take more samples, another '
        'temperature, or another policy.')
  if jax.process_index() == 0:
    report.write_text(path, ''.join(json.dumps(pair) + '\n' for pair in pairs))


if __name__ == '__main__':
  launch.main(run)
