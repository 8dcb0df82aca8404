"""What a reward for images has learnt, and what a generator has become.

  Fréchet   |μ_a - μ_b|² + tr(S_a + S_b - 2 (S_a S_b)^½), in a feature space
  AUC       chance that one of the first kind scores above one of the second
  gap       score of the targets trained on, less that of held-out targets

The shortcut test asks whether a mark that the targets share, a border say, is
worth more than content: bad images with it against good ones without. Above 1/2
the reward pays for the mark.

Reference: GAN-RM (arXiv 2506.13846), whose reviewers name style of the targets
as what such a reward learns; Fréchet distance: arXiv 1706.08500.
"""
from __future__ import annotations

import dataclasses

import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True)
class Shortcut:
  """`flagged`: bad images with the mark beat good ones without it."""
  auc: float          # of bad with the mark over good without
  effect: float       # mean change of the score by the mark, same bad images
  flagged: bool


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


def shortcut(bad_with_R, bad_R, good_R) -> Shortcut:
  """Scores of bad images with the mark and without, and of good ones without.

  Args:
    bad_with_R: bad images that carry the mark.
    bad_R: the same images without it.
    good_R: good images without it.
  """
  found = auc(bad_with_R, good_R)
  return Shortcut(found, float(np.mean(bad_with_R) - np.mean(bad_R)),
                  found > 0.5)
