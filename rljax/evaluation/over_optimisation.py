"""Best of n by a proxy reward, measured by the gold reward, over all n.

  E[gold of the proxy's best of n] = Σ_i C(i-1, n-1) / C(N, n) · gold_(i)

for N samples in the order of their proxy scores: the mean over all subsets of
n, without bias, gold averaged where proxy scores are equal. As n grows the
proxy rises; gold that falls again is over-optimisation. The horizontal axis is

  KL(best of n || policy) <= log n - (n - 1) / n

an equality where no two samples have the same score or the same text, a bound
otherwise (arXiv 2401.01879).

The n with the most gold is found on one half of the prompts, and what is lost
beyond it measured on the other: where it was found it is the most by chance as
well.

Reference: Gao et al. (arXiv 2210.10760); Nakano et al. (arXiv 2112.09332),
appendix I.
"""
from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from rljax.evaluation import intervals
from rljax.evaluation import sample_metrics


@dataclasses.dataclass(frozen=True)
class Point:
  """Best of n."""
  n: int
  kl: float
  proxy: intervals.Interval
  gold: intervals.Interval


@dataclasses.dataclass(frozen=True)
class Curve:
  """All n, and whether the largest gives less gold than the best one."""
  num_prompts: int
  num_samples: int
  points: list[Point]
  best_n: int                       # on one half of the prompts
  lost: intervals.Difference | None  # gold(N) - gold(best_n), on the other
  ties: float                       # share of samples whose score is not alone


def kl_of_best_of(n) -> np.ndarray:
  """Nats between best of n and the policy, at most."""
  n = np.asarray(n, np.float64)
  if np.any(n < 1):
    raise ValueError(f'Expected n >= 1, got {n.min()}.')
  return np.log(n) - (n - 1) / n


def expected_best(proxy_PG, value_PG) -> np.ndarray:
  """value_PN: expected value of the proxy's best of n, n = 1 .. G."""
  samples = np.asarray(proxy_PG).shape[-1]
  return np.stack([sample_metrics.best_of_k(proxy_PG, value_PG, n)
                   for n in range(1, samples + 1)], axis=1)


def curve(proxy_PG, gold_PG, *, seed: int,
          ns: Sequence[int] | None = None) -> Curve:
  """The curve with bands over prompts.

  Args:
    proxy_PG: scores of the reward model under test.
    gold_PG: true rewards of the same samples.
    seed: of the resampling and of the halves.
    ns: those to draw; None takes all.
  """
  proxy_PN, gold_PN = (expected_best(proxy_PG, value_PG)
                       for value_PG in (proxy_PG, gold_PG))
  prompts, samples = gold_PN.shape
  ns = range(1, samples + 1) if ns is None else ns
  if not all(1 <= n <= samples for n in ns):
    raise ValueError(f'Expected n from 1 to the {samples} samples of a prompt, '
                     f'got {list(ns)}. Draw more samples.')
  points = [Point(n, float(kl_of_best_of(n)),
                  intervals.bootstrap(proxy_PN[:, n - 1], seed=seed),
                  intervals.bootstrap(gold_PN[:, n - 1], seed=seed))
            for n in ns]
  half = np.random.default_rng(seed).permutation(prompts) < prompts // 2
  best = int(np.argmax(gold_PN[half].mean(axis=0))) if half.any() else 0
  rest_PN = gold_PN[~half]
  lost = intervals.paired_difference(
      rest_PN[:, best], rest_PN[:, -1], seed=seed) if len(rest_PN) > 1 else None
  return Curve(prompts, samples, points, best + 1, lost, _ties(proxy_PG))


def _ties(proxy_PG) -> float:
  alone = [np.sum(np.unique(score_G, return_counts=True)[1] == 1)
           for score_G in np.asarray(proxy_PG)]
  return float(1 - np.sum(alone) / np.asarray(proxy_PG).size)
