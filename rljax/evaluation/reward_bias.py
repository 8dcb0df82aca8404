"""What a reward model or a judge likes besides quality: length, place, author.

  length     how often the longer response wins, beside how often it should;
             accuracy where the right response is the longer or the shorter one
  position   how often the response shown first wins, over both orders of the
             same pairs, where an unbiased judge makes one half
  policy     how often the responses of a model win, beside how often they
             should: a reward model may overrate whole models

Every number is a mean over pairs, with an interval over pairs; a difference
from what should be is paired. Preferences are those of
`evaluation.reward_benchmarks`: of the right response, NaN where none was given;
such pairs are left out and counted.

Reference: length: arXiv 2310.03716; position: arXiv 2306.05685, 2406.07791;
policies: CHARM (arXiv 2504.10045), whose calibration needs ratings of an arena;
here the labels of the pairs take their place.
"""
from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from rljax.evaluation import intervals
from rljax.evaluation import reward_benchmarks


@dataclasses.dataclass(frozen=True)
class Length:
  """Pairs whose responses differ in length, and by how much they do."""
  num_pairs: int
  same_length: int                       # left out
  undecided: int                         # without a preference: left out
  longer_wins: intervals.Interval | None
  longer_is_right: intervals.Interval | None
  excess: intervals.Difference | None    # wins minus what is right
  right_is_longer: intervals.Interval | None   # accuracy there
  right_is_shorter: intervals.Interval | None
  by_difference: list[dict]              # low, high, count, accuracy


@dataclasses.dataclass(frozen=True)
class Position:
  """Both orders of the same pairs."""
  num_pairs: int
  undecided: int                         # no preference in one order: left out
  first_wins: intervals.Interval | None  # 1/2 without bias; ties count half
  consistent: intervals.Interval | None  # both orders name the same response
  first_both: float | None               # share: the first in both orders
  second_both: float | None


def length_bias(preference_I, right_length_I, wrong_length_I, *, seed: int,
                num_bins: int = 5) -> Length:
  """How preferences follow length.

  Args:
    preference_I: of the right response.
    right_length_I: its length, in characters or tokens.
    wrong_length_I: length of the other one.
    seed: of the resampling.
    num_bins: quantiles of right minus wrong length to tabulate.
  """
  win_I = reward_benchmarks.credit(preference_I, undecided=np.nan)
  win_I = np.where(np.asarray(preference_I) == 0.5, 0.5, win_I)
  delta_I = (np.asarray(right_length_I, np.float64)
             - np.asarray(wrong_length_I, np.float64))
  if win_I.ndim != 1 or delta_I.shape != win_I.shape:
    raise ValueError('Expected a preference and two lengths per pair, got '
                     f'shapes {list(win_I.shape)} and {list(delta_I.shape)}.')
  silent_I, same_I = np.isnan(win_I), delta_I == 0
  kept_I = ~silent_I & ~same_I
  win, delta = win_I[kept_I], delta_I[kept_I]
  longer = (delta > 0).astype(np.float64)
  longer_win = np.where(delta > 0, win, 1 - win)
  return Length(
      int(kept_I.sum()), int((~silent_I & same_I).sum()), int(silent_I.sum()),
      _mean(longer_win, seed), _mean(longer, seed),
      _against(longer, longer_win, seed), _mean(win[delta > 0], seed),
      _mean(win[delta < 0], seed), _by_quantile(delta, win, seed, num_bins))


def position_bias(preference_I2, *, seed: int) -> Position:
  """How preferences follow the place; [right first, right second].

  An order that prefers neither counts half for the first, and agrees only with
  another one that prefers neither.
  """
  preference_I2 = np.asarray(preference_I2, np.float64)
  if preference_I2.ndim != 2 or preference_I2.shape[1] != 2:
    raise ValueError('Expected preferences of both orders as [pairs, 2], got '
                     f'shape {list(preference_I2.shape)}.')
  silent_I = np.any(np.isnan(preference_I2), axis=1)
  right_I2 = reward_benchmarks.credit(preference_I2[~silent_I], undecided=0.5)
  first_I2 = right_I2 * [1, -1] + [0, 1]
  share = lambda chosen_I: float(chosen_I.mean()) if len(chosen_I) else None
  return Position(
      len(right_I2), int(silent_I.sum()), _mean(first_I2.mean(axis=1), seed),
      _mean((right_I2[:, 0] == right_I2[:, 1]).astype(float), seed),
      share(np.all(first_I2 == 1, axis=1)),
      share(np.all(first_I2 == 0, axis=1)))


def policy_bias(preference_I, right_policy: Sequence[str],
                wrong_policy: Sequence[str], *, seed: int) -> list[dict]:
  """Of each policy: pairs, win rate, true win rate, and the excess.

  Pairs of a policy with itself say nothing and are left out, as are those
  without a preference.
  """
  preference_I = np.asarray(preference_I, np.float64)
  right, wrong = np.asarray(right_policy), np.asarray(wrong_policy)
  if not preference_I.shape == right.shape == wrong.shape:
    raise ValueError(f'Expected two policies per pair, got {right.shape[0]} '
                     f'and {wrong.shape[0]} for {len(preference_I)} pairs.')
  win_I = reward_benchmarks.credit(preference_I, undecided=0.5)
  kept_I = np.isfinite(preference_I) & (right != wrong)
  rows = []
  for policy in np.unique(np.concatenate([right[kept_I], wrong[kept_I]])):
    mine_I = kept_I & ((right == policy) | (wrong == policy))
    truth = (right[mine_I] == policy).astype(np.float64)
    won = np.where(truth > 0, win_I[mine_I], 1 - win_I[mine_I])
    rows.append(dict(policy=str(policy), pairs=int(mine_I.sum()),
                     wins=_mean(won, seed), should_win=_mean(truth, seed),
                     excess=_against(truth, won, seed)))
  return rows


def _by_quantile(delta, win, seed: int, num_bins: int) -> list[dict]:
  if not len(delta):
    return []
  edges = np.unique(np.quantile(delta, np.linspace(0, 1, num_bins + 1)))
  place = np.clip(np.searchsorted(edges, delta, side='right') - 1, 0,
                  max(len(edges) - 2, 0))
  return [dict(low=float(delta[place == b].min()),
               high=float(delta[place == b].max()),
               count=int((place == b).sum()), accuracy=_mean(
                   win[place == b], seed)) for b in np.unique(place)]


def _mean(values, seed: int) -> intervals.Interval | None:
  return intervals.bootstrap(values, seed=seed) if len(values) > 1 else None


def _against(truth, found, seed: int) -> intervals.Difference | None:
  return intervals.paired_difference(
      truth, found, seed=seed) if len(truth) > 1 else None
