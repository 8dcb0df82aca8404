"""What the scores of n samples per prompt are used for.

  best of n  the sample with the highest score
  SFT        the best one, where its score is high enough
  DPO        the best and the worst one, where they are far enough apart

Reference: GAN-RM (arXiv 2506.13846), figure 1; the two filters are ours.
"""
from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Places among the samples of each prompt."""
  chosen_P: np.ndarray
  rejected_P: np.ndarray
  keep_P: np.ndarray  # bool; the others stand there to keep the shape


def best(score_PG) -> np.ndarray:
  """Place of the best sample of each prompt; of equals, the first."""
  return np.argmax(_scores(score_PG), axis=1)


def supervised(score_PG, quantile: float = 0.0) -> tuple[np.ndarray,
                                                         np.ndarray]:
  """(best_P, keep_P): kept are those not below a quantile of all scores.

  Raises:
    ValueError: the quantile is not in [0, 1).
  """
  score_PG = _scores(score_PG)
  if not 0 <= quantile < 1:
    raise ValueError(f'Expected a quantile in [0, 1), got {quantile}. Correct '
                     'config.tune.')
  best_P = best(score_PG)
  return best_P, score_PG.max(1) >= np.quantile(score_PG, quantile)


def pairs(score_PG, min_gap: float = 0.0) -> Pairs:
  """Best against worst; kept if better, and by `min_gap` at least.

  Raises:
    ValueError: a negative gap.
  """
  score_PG = _scores(score_PG)
  if min_gap < 0:
    raise ValueError(f'Expected min_gap >= 0, got {min_gap}. Correct '
                     'config.tune.')
  gap_P = score_PG.max(1) - score_PG.min(1)
  return Pairs(best(score_PG), np.argmin(score_PG, axis=1),
               (gap_P > 0) & (gap_P >= min_gap))


def _scores(score_PG) -> np.ndarray:
  score_PG = np.asarray(score_PG, np.float64)
  if score_PG.ndim != 2 or score_PG.size == 0 or np.isnan(score_PG).any():
    raise ValueError('Expected scores of prompts and their samples without '
                     f'NaN, got shape {list(score_PG.shape)} with '
                     f'{int(np.isnan(score_PG).sum())} NaN. Score again.')
  return score_PG
