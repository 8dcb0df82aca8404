"""Length shaping of rewards: pure functions on arrays, one value a response.

  soft overlong penalty =  0                            ℓ <= L_max - L_c
                           ((L_max - L_c) - ℓ) / L_c    in between
                          -1                            ℓ >= L_max

A hard zero at the limit punishes good reasoning for its length alone; the ramp
over the last L_c tokens tells the policy that the limit is near.

Reference: DAPO (arXiv 2503.14476), eq. 13.
"""
from __future__ import annotations

import numpy as np


def soft_overlong_penalty(lengths_R: np.ndarray, *, max_length: int,
                          buffer: int) -> np.ndarray:
  """The penalty to add to the reward, float32 in [-1, 0].

  Args:
    lengths_R: response tokens.
    max_length: L_max, at which the penalty is complete.
    buffer: L_c, tokens before it at which the penalty begins.
  """
  if not 0 < buffer <= max_length:
    raise ValueError(
        f'Expected 0 < buffer <= max_length, got buffer {buffer} and '
        f'max_length {max_length}; shorten the buffer.')
  over_R = (max_length - buffer - np.asarray(lengths_R)) / buffer
  return np.clip(over_R, -1.0, 0.0).astype(np.float32)


def zero_truncated(rewards_R: np.ndarray, stopped_R: np.ndarray) -> np.ndarray:
  """Hard truncation: a response cut at the limit earns nothing."""
  rewards_R, stopped_R = np.asarray(rewards_R), np.asarray(stopped_R)
  if rewards_R.shape != stopped_R.shape or stopped_R.dtype != bool:
    raise ValueError(
        'Expected stopped_R bool of the shape of rewards_R, '
        f'{rewards_R.shape}, got {stopped_R.dtype} {stopped_R.shape}; pass one '
        'flag for each response.')
  return np.where(stopped_R, rewards_R, 0.0).astype(np.float32)
