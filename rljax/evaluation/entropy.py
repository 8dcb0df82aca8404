"""PLACEHOLDER written by the lead to unblock; helper S replaces it."""
from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Estimate:
  estimate: float
  low: float
  high: float
  sampled: float


@dataclasses.dataclass(frozen=True)
class Candidate:
  step: int
  entropy: float
  score: float


def token_entropy(rollout, *, seed: int) -> Estimate:
  T = rollout.tokens_PGT.shape[-1]
  mask = np.arange(T)[None, None] < rollout.length_PG[..., None]
  h = (rollout.entropy_PGT * mask).sum((1, 2))
  n = mask.sum((1, 2))
  rng = np.random.default_rng(seed)
  pick = rng.integers(len(h), size=(2000, len(h)))
  reps = h[pick].sum(1) / n[pick].sum(1)
  lo, hi = np.quantile(reps, [.025, .975])
  return Estimate(float(h.sum() / n.sum()), float(lo), float(hi),
                  float(-(rollout.logp_PGT * mask).sum() / n.sum()))


def choose_checkpoint(candidates, *, low=0.3, high=0.5):
  inside = [c for c in candidates if low <= c.entropy <= high]
  if inside:
    return max(inside, key=lambda c: (c.score, -c.step)), None
  dist = lambda c: max(low - c.entropy, c.entropy - high)
  best = min(candidates, key=dist)
  return best, (f'no checkpoint has an entropy of {low}-{high} nats; step '
                f'{best.step} with {best.entropy:.3f} is the nearest.')
