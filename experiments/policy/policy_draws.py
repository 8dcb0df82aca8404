"""What a step of policy training draws, until it has what it asks for."""
from __future__ import annotations

import jax
import numpy as np

from experiments.policy import guided
from experiments.policy import policy_pieces
from experiments.policy import responses
from rljax import packing
from rljax import processes
from rljax.ops import advantages


def collect(config, job, stages, clock, prompts, scorer, params, key,
            memory=None):
  """Samples and grades until the step has what it asks for.

  One draw is the rule. With `dynamic_sampling`, groups whose rewards are all
  alike are dropped and replaced; likewise with `guide`, which also tries failed
  prompts again with a hint; with `packing.resample`, prompts are added until
  their tokens fill the budget. `max_draws` bounds all of them.

  Returns:
    What to train on, and metrics of everything that was sampled.
  """
  drawn, parts, dropped, hints = [], [], 0, []
  options = config.rollout
  if memory is not None and memory.surplus is not None:
    parts.append(memory.surplus)  # the oldest first
  for draw in range(config.max_draws):
    records = processes.gather_own(next(prompts))
    sample = responses.Draw(
        stages.sample, params, jax.random.fold_in(key, draw), job.tokenizer,
        scorer, policy_pieces.sampling_options(config), clock,
        stages.rescore)
    if config.guide.mode == 'off':
      graded = sample(records, options.samples_per_prompt)
      drawn.append(graded)
    else:
      graded, plain, report = guided.groups(config, sample, records)
      drawn.append(plain)
      hints.append(report | memory.note(plain, config.guide.threshold))
      dropped += len(records) - len(graded.records)
    if config.dynamic_sampling:
      keep_P = np.asarray(advantages.informative_groups(
          graded.reward_PG, graded.correct_PG, graded.valid_PG))
      dropped += int((~keep_P).sum())
      graded = responses.take(graded, keep_P)
    parts.append(graded)
    joined = responses.join(parts)
    if not lacks(config, joined):
      break
  if not joined.records:
    raise ValueError(
        f'Expected a group with right and wrong answers in {config.max_draws} '
        'draws, got none. Use easier or harder prompts, raise max_draws, or '
        'turn dynamic_sampling or guide.mode off.')
  # Static shapes: what exceeds the step's prompts is not trained on.
  wanted = config.data.prompts_per_step * (
      config.max_draws if config.packing.resample else 1)
  kept = np.arange(len(joined.records)) < wanted
  if memory is not None:
    memory.keep(responses.take(joined, ~kept) if (
        config.guide.buffer and not kept.all()) else None)
  sampled = responses.summary(responses.join(drawn)) | {
      'draws': float(draw + 1), 'uninformative_groups': float(dropped)}
  sampled |= guided.rates(hints)
  sampled['sampled_tokens'] += sampled.get('hint_tokens', 0.0)
  return responses.take(joined, kept), sampled


def lacks(config, graded) -> bool:
  """Whether the step needs another draw."""
  if (config.dynamic_sampling or config.guide.mode != 'off') and (
      len(graded.records) < config.data.prompts_per_step):
    return True
  options = config.packing.select
  ranks = options.num_ranks if options.budget_scope == 'per_data_rank' else 1
  return config.packing.resample and bool(packing.needs_more(
      selectable(graded), options.token_budget, ranks))


def selectable(graded) -> np.ndarray:
  """Lengths; a response that nobody could grade has 0: never selected."""
  return np.where(graded.valid_PG, graded.rollout.length_PG, 0).ravel()
