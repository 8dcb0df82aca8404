"""Responses that wait for a step, and rollouts put together from several.

When a rollout holds fewer than Φ tokens the loop has three ways out: train on
what there is (`select(underflow='keep_phi')`), draw more prompts for this step
(resample), or wait and train when later rollouts have filled the budget (carry
over). The last two are loops of the script around these functions:

  while needs_more(rollout.length_PG.reshape(-1), token_budget):
    rollout = join([rollout, sample(next(prompts))])

  carried, keep_P = left_over(rollout, selection)  # joined to the next rollout
  rewards_PG = rewards_PG[keep_P]

Whole groups are carried, with all their rewards: advantages are taken over
complete groups. Samples that were trained on already get length 0, with which
they are never selected again.

Reference: Ring-lite (arXiv 2506.14731), §3.2, which assumes enough tokens;
DAPO (arXiv 2503.14476), eq. 11, whose dynamic sampling refills a step alike.
"""
from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from rljax.packing.selection import Selection
from rljax.types import Rollout


def needs_more(
    lengths_R: np.ndarray, token_budget: int, num_ranks: int = 1
) -> int:
  """Tokens missing to fill the budget of every rank's share; 0 if none."""
  shares_ij = np.asarray(lengths_R).reshape(num_ranks, -1)
  missing_i = token_budget - shares_ij.sum(axis=1, dtype=np.int64)
  return int(np.maximum(missing_i, 0).sum())


def left_over(
    rollout: Rollout, selection: Selection
) -> tuple[Rollout, np.ndarray]:
  """The groups with a response still to be selected, and keep_P of them."""
  shape_PG = rollout.length_PG.shape
  waiting_PG = ((selection.length_R > 0) & (selection.kept_R == 0)).reshape(
      shape_PG)
  keep_P = waiting_PG.any(axis=1)
  length_PG = np.where(waiting_PG, rollout.length_PG, 0)
  rollout = dataclasses.replace(
      rollout, length_PG=length_PG.astype(rollout.length_PG.dtype))
  return take_prompts(rollout, keep_P), keep_P


def take_prompts(rollout: Rollout, keep_P: np.ndarray) -> Rollout:
  """The groups of the prompts marked True, in their order."""
  keep_P = np.asarray(keep_P, bool)
  if keep_P.shape != (len(rollout.prompts),):
    raise ValueError(
        f'Expected one flag for each of {len(rollout.prompts)} prompts, got '
        f'shape {keep_P.shape}. Flags are per prompt, not per sample.')
  taken = {
      f.name: None if value is None else value[keep_P]
      for f in dataclasses.fields(rollout)
      if f.name != 'prompts'
      for value in [getattr(rollout, f.name)]
  }
  prompts = tuple(rollout.prompts[p] for p in np.flatnonzero(keep_P))
  return Rollout(prompts=prompts, **taken)


def join(rollouts: Sequence[Rollout]) -> Rollout:
  """One rollout with the prompts of all, in order."""
  if not rollouts:
    raise ValueError(
        'Expected at least one rollout to join, got none. Sample one first.')
  shapes = {r.tokens_PGT.shape[1:] for r in rollouts}
  recorded = {r.experts_PGSLX is None for r in rollouts}
  if len(shapes) > 1 or len(recorded) > 1:
    raise ValueError(
        'Expected rollouts with the same samples per prompt, response limit '
        f'and recording of experts, got [samples, limit] = {sorted(shapes)}, '
        f'experts recorded: {sorted(not x for x in recorded)}. Sample them '
        'with the same settings.')
  joined = {}
  for f in dataclasses.fields(Rollout):
    parts = [getattr(r, f.name) for r in rollouts]
    if f.name == 'prompts':
      joined[f.name] = tuple(prompt for part in parts for prompt in part)
    else:
      joined[f.name] = None if parts[0] is None else np.concatenate(parts)
  return Rollout(**joined)
