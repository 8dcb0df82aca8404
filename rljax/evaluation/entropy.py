"""Token entropy of a policy, and the checkpoint to start RL from.

  H = Σ_responses Σ_t H_t / Σ_responses length,   H_t = -Σ_v p_v log p_v

Start RL from a distilled checkpoint whose entropy at the sampling temperature
lies between 0.3 and 0.5 nats: below there is too little left to explore, above
learning is slow and ends lower.

The bootstrap resamples prompts, with all tokens of all their responses: tokens
of one response, and responses to one prompt, are alike.

Reference: Ring-lite (arXiv 2506.14731), §4.3.1-4.3.2.

                 paper                 ours
  entropy        "entropy loss"        full vocabulary, float32, every response
                                       token weighs alike; -log p beside it
  two in band    not said              the higher validation score, then the
                                       earlier step
  none in band   not said              the nearest to it, and a warning
"""
from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math

import numpy as np

from rljax.types import Rollout


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Mean token entropy in nats, between the bounds of its interval."""
  estimate: float
  low: float
  high: float
  sampled: float  # mean of -log p of the tokens drawn; the same at T=1, top-p=1
  level: float = 0.95


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A checkpoint: its step, its entropy in nats, its validation score."""
  step: int
  entropy: float
  score: float


def token_entropy(rollout: Rollout, *, seed: int, level: float = 0.95,
                  num_resamples: int = 2_000) -> Estimate:
  """Mean entropy over response tokens with a percentile interval.

  Args:
    rollout: sampled at the temperature that RL will sample at, with top-p 1.
    seed: of the resampling.
    level: nominal coverage.
    num_resamples: bootstrap replicates.
  """
  length_PG = rollout.length_PG
  if len(length_PG) < 2:
    raise ValueError(f'Expected responses to at least two prompts, got '
                     f'{len(length_PG)}. Measure on more prompts.')
  inside_PGT = (np.arange(rollout.tokens_PGT.shape[-1])
                < length_PG[..., None])
  total_P = lambda x_PGT: np.sum(
      x_PGT, axis=(1, 2), where=inside_PGT, dtype=np.float64)
  entropy_P, surprisal_P = total_P(rollout.entropy_PGT), -total_P(
      rollout.logp_PGT)
  tokens_P = length_PG.sum(axis=1, dtype=np.float64)
  # Resampling prompts with replacement is drawing how often each one counts.
  rng = np.random.default_rng(seed)
  num_prompts = len(tokens_P)
  count_JP = rng.multinomial(
      num_prompts, np.full(num_prompts, 1 / num_prompts), num_resamples)
  low, high = np.quantile((count_JP @ entropy_P) / (count_JP @ tokens_P),
                          [(1 - level) / 2, (1 + level) / 2])
  return Estimate(float(entropy_P.sum() / tokens_P.sum()), float(low),
                  float(high), float(surprisal_P.sum() / tokens_P.sum()), level)


def choose_checkpoint(
    candidates: Sequence[Candidate], *, low: float = 0.3, high: float = 0.5
) -> tuple[Candidate, str | None]:
  """The checkpoint to start RL from, and a warning if none is in the band.

  Inside the band, bounds included, the best score wins, among equals the
  earliest step: it has seen the least. With none inside, the entropy nearest to
  the band wins, among equals the better score, then the earlier step.
  """
  if not candidates or not all(
      math.isfinite(c.entropy) and math.isfinite(c.score) for c in candidates):
    raise ValueError(
        'Expected at least one checkpoint, each of finite entropy and score, '
        f'got {list(candidates)}. Evaluate the checkpoints first.')
  if not 0 <= low <= high:
    raise ValueError(f'Expected an entropy band with 0 <= low <= high, got '
                     f'{low}..{high}. Swap the bounds.')
  distance = lambda c: max(low - c.entropy, c.entropy - high, 0.0)
  chosen = min(candidates, key=lambda c: (distance(c), -c.score, c.step))
  if distance(chosen) == 0:
    return chosen, None
  if chosen.entropy < low:
    side, advice = 'below', ('exploration may be too small; save checkpoints '
                             'earlier or distil for fewer epochs')
  else:
    side, advice = 'above', ('learning may be slow; distil for longer')
  return chosen, (
      f'No checkpoint has a token entropy inside {low:g}-{high:g} nats. Step '
      f'{chosen.step} with {chosen.entropy:.3f} nats, {side} the band, is the '
      f'nearest: {advice}.')
