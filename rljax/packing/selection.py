"""The outcome of a selection: which tokens of which responses are trained on.

  Ψ = {(r, t): start_r <= t < stop_r},  |Ψ| = Φ when there are enough tokens

Intervals, not a mask: a rollout's mask would be as large as its tokens.

Reference: Ring-lite (arXiv 2506.14731), eq. 2.
"""
from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Selection:
  """Ψ: token t of response r is kept iff start_R[r] <= t < stop_R[r].

  A ring window may begin and end in one response; then start > stop and what is
  kept is t < stop or t >= start. `keeps` knows both forms.
  """
  start_R: np.ndarray     # int32
  stop_R: np.ndarray      # int32; start = stop: nothing is kept
  length_R: np.ndarray    # int32; tokens the response has
  crossing_R: np.ndarray  # bool; the edge of the budget lies inside it
  order_R: np.ndarray     # int32; the order of the greedy pass
  token_budget: int       # Φ of the optimiser step, summed over ranks

  @property
  def kept_R(self) -> np.ndarray:
    """Number of tokens kept of each response."""
    wrapped_R = self.start_R > self.stop_R
    return (self.stop_R - self.start_R
            + np.where(wrapped_R, self.length_R, 0)).astype(np.int32)

  @property
  def stored_R(self) -> np.ndarray:
    """Tokens that a row must hold: up to the last one kept."""
    wrapped_R = self.start_R > self.stop_R
    stored_R = np.where(wrapped_R, self.length_R, self.stop_R)
    return np.where(self.kept_R > 0, stored_R, 0).astype(np.int32)

  @property
  def num_tokens(self) -> int:
    return int(self.kept_R.sum())

  @property
  def shortfall(self) -> int:
    """Tokens missing to Φ; 0 if the budget is filled."""
    return max(self.token_budget - self.num_tokens, 0)


def keeps(t: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
  """Whether token t (before the response's end) is kept; broadcasts."""
  return np.where(start <= stop, (start <= t) & (t < stop),
                  (t < stop) | (start <= t))


def kept_mask(selection: Selection, max_length: int) -> np.ndarray:
  """Ψ as mask_RT."""
  t_1T = np.arange(max_length)[None]
  mask_RT = keeps(t_1T, selection.start_R[:, None], selection.stop_R[:, None])
  return mask_RT & (t_1T < selection.length_R[:, None])


def statistics(selection: Selection) -> dict[str, float]:
  """What the step used and what it dropped."""
  kept_R, length_R = selection.kept_R, selection.length_R
  crossing_R = selection.crossing_R
  return {
      'budget_fill': selection.num_tokens / selection.token_budget,
      'selected_tokens': float(kept_R.sum()),
      'selected_responses': float((kept_R > 0).sum()),
      'dropped_tokens': float((length_R - kept_R).sum()),
      'dropped_responses': float(((length_R > 0) & (kept_R == 0)).sum()),
      'crossing_length': (
          float(length_R[crossing_R].mean()) if crossing_R.any() else 0.0),
  }
