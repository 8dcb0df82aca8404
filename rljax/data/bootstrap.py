"""GAN-RM's rank-based bootstrapping: what the second fit of a round sees.

  D_r    targets (label 1) and the first outputs of the generator (label 0)
  D_f⁺   the M outputs that the first fit ranks highest, y = exp(-α r)
  D_f⁻   the M outputs that it ranks lowest, y = 0

r counts from 0. A label falls below 1/2 from rank ln 2 / α on, and acts against
its image from there: with α = 0.5 only the ranks 0 and 1 are positives.

Reference: GAN-RM (arXiv 2506.13846), of which abstract, a caption and reviews
are public, and no code.

Differs from the paper:

                    paper (from reviews)     ours
  label of the top  exp(-α r)                the same
  r starts at       not known                0; `first_rank`
  α, M              not known                in the config; α below ln 2 / M
                                             keeps every positive above 1/2
  label of bottom   not known                0; `rising`: 1 - exp(-α r)
  D_r               targets and the first N  the N outputs are of this round's
                    outputs                  generator
  the second fit    not known                from scratch
"""
from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Chosen:
  """Outputs that join the training set, best and worst first."""
  top_M: np.ndarray         # places in the pool
  top_label_M: np.ndarray   # float32
  bottom_M: np.ndarray
  bottom_label_M: np.ndarray

  @property
  def index_R(self) -> np.ndarray:
    return np.concatenate([self.top_M, self.bottom_M])

  @property
  def label_R(self) -> np.ndarray:
    return np.concatenate([self.top_label_M, self.bottom_label_M])


def soft_labels(count: int, alpha: float, first_rank: int = 0) -> np.ndarray:
  """exp(-α r) of `count` ranks; float32.

  Raises:
    ValueError: a negative α, count or rank.
  """
  if not alpha >= 0 or count < 0 or first_rank < 0:
    raise ValueError(f'Expected alpha, count and first_rank >= 0, got {alpha}, '
                     f'{count} and {first_rank}. Correct config.bootstrap.')
  rank_M = np.arange(first_rank, first_rank + count, dtype=np.float64)
  return np.exp(-alpha * rank_M).astype(np.float32)


def warning(count: int, alpha: float, first_rank: int = 0) -> str | None:
  """What is wrong with α: positives whose label makes them negatives."""
  against = int(np.sum(soft_labels(count, alpha, first_rank) < 0.5))
  if not against:
    return None
  return (f'alpha={alpha:g} puts {against} of the {count} positives below 1/2, '
          'where they act as negatives. Below '
          f'{math.log(2) / max(first_rank + count - 1, 1):.3g} none is.')


def choose(score_R, digest_R: Sequence[str], taken: set[str], *,
           num_chosen: int, alpha: float, first_rank: int = 0,
           rising: bool = False) -> Chosen:
  """The top and the bottom of a pool, with their labels.

  Of equal scores, the one that comes first in the pool ranks higher.

  Args:
    score_R: of the first fit.
    digest_R: hash of each image of the pool.
    taken: hashes of D_r; those are left out of the ranking.
    num_chosen: M, of either end.
    alpha: α.
    first_rank: of the best one.
    rising: the bottom's labels are 1 - exp(-α r), from the worst on.

  Raises:
    ValueError: top and bottom would overlap, or a score is no number.
  """
  score_R = np.asarray(score_R, np.float64)
  if score_R.shape != (len(digest_R),) or not np.all(np.isfinite(score_R)):
    raise ValueError(f'Expected a finite score for each of {len(digest_R)} '
                     f'images, got shape {list(score_R.shape)} with '
                     f'{int(np.sum(~np.isfinite(score_R)))} that are not. Look '
                     'at the fit of the reward.')
  fresh_R = np.flatnonzero([digest not in taken for digest in digest_R])
  if num_chosen < 0 or 2 * num_chosen > len(fresh_R):
    raise ValueError(
        f'Expected bootstrap.num_chosen of at most half of the {len(fresh_R)} '
        f'outputs that are not in the training set, got {num_chosen}: top and '
        'bottom would overlap. Lower it, or sample more.')
  order_R = fresh_R[np.argsort(-score_R[fresh_R], kind='stable')]
  labels_M = soft_labels(num_chosen, alpha, first_rank)
  return Chosen(
      top_M=order_R[:num_chosen], top_label_M=labels_M,
      bottom_M=order_R[::-1][:num_chosen],
      bottom_label_M=1 - labels_M if rising else np.zeros_like(labels_M))


def lineage(round_number: int, proxies: Sequence[str], outputs: Sequence[str],
            pool: Sequence[str], chosen: Chosen, first_rank: int = 0
            ) -> list[dict[str, Any]]:
  """Where each row of the training set comes from, in the set's order."""
  row = lambda source, rank, label, image: dict(
      round=round_number, source=source, rank=rank, label=float(label),
      image=image)
  ranked = lambda source, index_M, label_M: [
      row(source, first_rank + rank, label, pool[index])
      for rank, (index, label) in enumerate(zip(index_M, label_M, strict=True))]
  return [*(row('proxy', None, 1, image) for image in proxies),
          *(row('output', None, 0, image) for image in outputs),
          *ranked('top', chosen.top_M, chosen.top_label_M),
          *ranked('bottom', chosen.bottom_M, chosen.bottom_label_M)]
