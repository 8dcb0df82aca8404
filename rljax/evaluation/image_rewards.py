"""What a reward for images has learnt, and what a generator has become.

  Fréchet   |μ_a - μ_b|² + tr(S_a + S_b - 2 (S_a S_b)^½), in a feature space
  AUC       chance that one of the first kind scores above one of the second
  gap       score of the targets trained on, less that of held-out targets
  paid      mean_i [s(edited x_i) - s(x_i)] / unit, the x_i outputs
  unit      mean s(targets) - mean s(outputs), or the deviation of s over the
            outputs if that is more

An edit that leaves content as it is should be paid nothing. What it is paid is
the share of the way from outputs to targets that it goes, without content; half
of it already lifts an output with the edit above targets without. The deviation
is the unit where R cannot tell the two apart: it decides the best of n then.

Reference: GAN-RM (arXiv 2506.13846), whose reviewers name style of the targets
as what such a reward learns; `paid` is ours. Fréchet distance: arXiv
1706.08500.
"""
from __future__ import annotations

import numpy as np
from scipy import stats

from rljax.evaluation import intervals

_LEAST_UNIT = 1e-6  # of scores: below, R tells nothing apart


def frechet_distance(a_RD, b_RD) -> float:
  """Between the Gaussians with the moments of two sets of features.

  Raises:
    ValueError: fewer than two rows, or different widths.
  """
  a_RD, b_RD = np.asarray(a_RD, np.float64), np.asarray(b_RD, np.float64)
  if min(len(a_RD), len(b_RD)) < 2 or a_RD.shape[1] != b_RD.shape[1]:
    raise ValueError('Expected two rows or more of equal width, got '
                     f'{list(a_RD.shape)} and {list(b_RD.shape)}. Use more '
                     'images.')
  apart = a_RD.mean(0) - b_RD.mean(0)
  cov_a, cov_b = (np.atleast_2d(np.cov(x.T)) for x in (a_RD, b_RD))
  values, vectors = np.linalg.eigh(cov_a)
  root_a = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
  # tr (S_a S_b)^½ by a symmetric matrix of the same eigenvalues.
  shared = np.linalg.eigvalsh(root_a @ cov_b @ root_a)
  return float(apart @ apart + np.trace(cov_a) + np.trace(cov_b)
               - 2 * np.sqrt(np.maximum(shared, 0)).sum())


def auc(higher_R, lower_R) -> float:
  """Share of pairs in the expected order; ties count one half."""
  higher_R, lower_R = np.asarray(higher_R), np.asarray(lower_R)
  rank_R = stats.rankdata(np.concatenate([higher_R, lower_R]))
  count = len(higher_R)
  wins = rank_R[:count].sum() - count * (count + 1) / 2
  return float(wins / (count * len(lower_R)))


def accuracy(target_R, output_R) -> float:
  """Balanced accuracy of R > 1/2 as "is a target"; scores in [0, 1]."""
  return float((np.mean(np.asarray(target_R) > 0.5)
                + np.mean(np.asarray(output_R) <= 0.5)) / 2)


def memorisation(trained_R, held_out_R) -> float:
  """Mean score of the targets trained on, less that of the held-out ones."""
  return float(np.mean(trained_R) - np.mean(held_out_R))


def check_memorisation(gap: float, most: float):
  """Raises ValueError if the gap is larger than `most`."""
  if gap > most:
    raise ValueError(
        f'Expected targets that were not trained on to score within {most:g} '
        f'of those that were, got a gap of {gap:.3g}: the reward knows its '
        'targets by heart. Use more of them, fewer steps or more weight decay, '
        'or raise config.diagnostics.max_memorisation.')


def diversity(feature_RD) -> float:
  """Mean distance between two images."""
  feature_RD = np.asarray(feature_RD, np.float64)
  count = len(feature_RD)
  square_R = np.sum(feature_RD**2, axis=1)
  square_RR = square_R[:, None] + square_R[None] - 2 * feature_RD @ feature_RD.T
  return float(np.sqrt(np.maximum(square_RR, 0)).sum() / (count * (count - 1)))


def paid(edited_R, plain_R, target_R, *, seed: int,
         num_resamples: int = 2_000) -> intervals.Interval:
  """What a reward pays for an edit of the same images, in units of its gap.

  Images are resampled with their edit, and targets beside them, so that the
  interval holds the noise of the unit as well.

  Args:
    edited_R: scores of outputs behind the edit; log-odds, as R saturates.
    plain_R: of the same outputs before it.
    target_R: of targets that the reward was not trained on.
    seed: of the resampling.
    num_resamples: bootstrap replicates.

  Raises:
    ValueError: scores that are not finite or do not match.
  """
  edited_R, plain_R, target_R = (np.asarray(x_R, np.float64) for x_R in (
      edited_R, plain_R, target_R))
  finite = all(np.all(np.isfinite(x)) for x in (edited_R, plain_R, target_R))
  if edited_R.shape != plain_R.shape or not finite or not (
      plain_R.size and target_R.size):
    raise ValueError(
        'Expected finite scores of the same outputs with and without the edit, '
        f'and of targets, got {edited_R.shape}, {plain_R.shape} and '
        f'{target_R.shape}, {"all" if finite else "not all"} finite. Score '
        'again.')

  def share(row_NR, target_NR):
    plain_NR = plain_R[row_NR]
    gap_N = target_R[target_NR].mean(1) - plain_NR.mean(1)
    unit_N = np.maximum(np.maximum(gap_N, plain_NR.std(1)), _LEAST_UNIT)
    return (edited_R - plain_R)[row_NR].mean(1) / unit_N

  rng = np.random.default_rng(seed)
  replicates_N = share(*(rng.integers(len(x_R), size=(num_resamples, len(x_R)))
                         for x_R in (plain_R, target_R)))
  whole, = share(np.arange(len(plain_R))[None], np.arange(len(target_R))[None])
  low, high = np.quantile(replicates_N, [0.025, 0.975])
  return intervals.Interval(float(whole), float(low), float(high))
