"""Scores of a reward model as rewards: text in, number out; no jax.

Who scores is passed in. Scores have no unit and no zero: to bring them to a
known scale, their mean and deviation on texts of a known source are stored with
the model, and nothing is normalised by what was never measured.
"""
from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import json
import math
import pathlib

import numpy as np

from rljax.types import RewardResult

FILE = 'score_statistics.json'


@dataclasses.dataclass(frozen=True)
class Statistics:
  """Of the scores of one checkpoint."""
  mean: float
  std: float
  count: int    # scores
  source: str   # of the texts
  step: int     # of the checkpoint

  def __post_init__(self):
    usable = (math.isfinite(self.mean) and math.isfinite(self.std)
              and self.std > 0 and self.count > 1)
    if not usable:
      raise ValueError(
          'Expected a finite mean, a positive deviation and two scores or '
          f'more, got {self}. Measure them on texts of different quality.')

  def normalized(self, score: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1 on the texts of the source."""
    return (np.asarray(score) - self.mean) / self.std


def measure(score: np.ndarray, source: str, step: int) -> Statistics:
  """Statistics of some scores; those that are NaN are of nothing."""
  score = np.asarray(score, np.float64)
  score = score[~np.isnan(score)]
  return Statistics(float(score.mean()), float(score.std()), int(score.size),
                    source, step)


def read(folder: str | pathlib.Path, step: int) -> Statistics:
  """Those stored for a checkpoint.

  Raises:
    ValueError: none are, or those of another step.
  """
  path = pathlib.Path(folder) / FILE
  if not path.exists():
    raise ValueError(
        f'Expected {path}, to normalise scores by, found nothing: statistics '
        'that were never measured are not 0 and 1. Finish the training of that '
        'reward model, or set reward_model.normalize=False.')
  found = Statistics(**json.loads(path.read_text()))
  if found.step != step:
    raise ValueError(
        f'Expected statistics of step {step} in {path}, got those of step '
        f'{found.step}. Name that step, or measure again.')
  return found


def rescored(results: Sequence[RewardResult],
             score_R: np.ndarray) -> list[RewardResult]:
  """A verifier's results with another reward; NaN is no reward at all.

  Whether a response is correct stays the verifier's word: it says what the
  score is worth.
  """
  if len(results) != len(score_R):
    raise ValueError(f'Expected a score for each of {len(results)} responses, '
                     f'got {len(score_R)}. Score all of them, with NaN where '
                     'that is not possible.')
  return [dataclasses.replace(
      result, reward=float(score) if math.isfinite(score) else None)
          for result, score in zip(results, score_R, strict=True)]
