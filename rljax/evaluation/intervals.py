"""Intervals and tests for scores that are means over problems.

Samples of one problem are alike, so the problem is the unit that is resampled
(the cluster bootstrap); resampling the pooled samples gives bars that are too
short. Two models are compared on the same resampled problems, which removes the
difficulty they share:

  Var(ā - b̄) = Var(ā) + Var(b̄) - 2 Cov(ā, b̄)

Below some hundred problems, or where all scores are equal, bootstrap bars are
too short or empty: use `wilson` or `beta` on one sample per problem.

Reference: Adding error bars to evals (arXiv 2411.00640); for small sets,
arXiv 2503.01747; BCa: Efron (1987).
"""
from __future__ import annotations

import dataclasses

import numpy as np
from scipy import stats

_CHUNK = 1 << 22  # resampled values held at once


@dataclasses.dataclass(frozen=True)
class Interval:
  """An estimate between two bounds; `level` is their nominal coverage."""
  estimate: float
  low: float
  high: float
  level: float = 0.95

  def __str__(self) -> str:
    return f'{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]'


@dataclasses.dataclass(frozen=True)
class Difference:
  """b - a on the same problems; p-value of "no difference", two-sided."""
  interval: Interval
  p_value: float


@dataclasses.dataclass(frozen=True)
class Coverage:
  """Which problems each model solves; p-value of McNemar's exact test."""
  both: int
  only_a: int
  only_b: int
  neither: int
  p_value: float


def bootstrap(score_P, *, seed: int, method: str = 'BCa', level: float = 0.95,
              num_resamples: int = 2_000) -> Interval:
  """Interval of the mean over problems.

  Args:
    score_P: one number per problem: mean@n, pass@k, a majority's correctness.
    seed: of the resampling.
    method: 'BCa' corrects for bias and skew, 'percentile' does not.
    level: nominal coverage.
    num_resamples: bootstrap replicates.
  """
  score_P = _scores(score_P, 1)
  if method not in ('BCa', 'percentile'):
    raise ValueError(f"Expected method 'BCa' or 'percentile', got {method!r}.")
  mean = float(score_P.mean())
  # No spread but that of rounding: nothing to resample, and BCa divides by 0.
  if np.ptp(score_P) <= 1e-12 * max(1.0, np.abs(score_P).max()):
    return Interval(mean, mean, mean, level)
  result = stats.bootstrap(
      (score_P,), np.mean, vectorized=True, n_resamples=num_resamples,
      batch=max(1, _CHUNK // len(score_P)), confidence_level=level,
      method=method, rng=np.random.default_rng(seed))
  low, high = result.confidence_interval
  return Interval(mean, float(low), float(high), level)


def two_level_bootstrap(score_PG, *, seed: int, level: float = 0.95,
                        num_resamples: int = 2_000) -> Interval:
  """Percentile interval of the mean, problems and their samples resampled.

  Wider than `bootstrap`, whose bars already hold the noise of the samples: this
  is the answer for "other problems and other samples" when the problems are a
  fixed list of few, and conservative otherwise.
  """
  score_PG = _scores(score_PG, 2)
  problems, samples = score_PG.shape
  rng = np.random.default_rng(seed)

  def replicate(count: int) -> np.ndarray:
    row = rng.integers(problems, size=(count, problems, 1))
    column = rng.integers(samples, size=(count, problems, samples))
    return score_PG[row, column].mean((1, 2))

  chunk = max(1, _CHUNK // score_PG.size)
  means = np.concatenate([replicate(min(chunk, num_resamples - start))
                          for start in range(0, num_resamples, chunk)])
  return _percentile(float(score_PG.mean()), means, level)


def paired_difference(a_P, b_P, *, seed: int, level: float = 0.95,
                      num_resamples: int = 10_000) -> Difference:
  """Mean of b - a over problems, both resampled together.

  The p-value is twice the share of replicates on the far side of zero, at
  least 2 / (num_resamples + 1).
  """
  a_P, b_P = _scores(a_P, 1), _scores(b_P, 1)
  if a_P.shape != b_P.shape:
    raise ValueError(
        f'Expected scores of the same problems, got {len(a_P)} and {len(b_P)}. '
        'Match the problems before comparing.')
  delta_P = b_P - a_P
  means = _replicates(delta_P, np.random.default_rng(seed), num_resamples)
  return _difference(float(delta_P.mean()), means, level)


def grouped_bootstrap(score_P, group_P, *, seed: int, weights=None,
                      level: float = 0.95,
                      num_resamples: int = 2_000) -> Interval:
  """Percentile interval of a weighted mean of the means of groups.

  Problems are resampled within their group, whose size is given: a macro
  average, or one with fixed weights. A group of one problem adds no width.

  Args:
    score_P: one number per problem.
    group_P: the name of its group.
    seed: of the resampling.
    weights: group -> weight, divided by their sum; None weighs groups alike.
    level: nominal coverage.
    num_resamples: bootstrap replicates.
  """
  mean, means = _grouped(_scores(score_P, 1), group_P, weights, seed,
                         num_resamples)
  return _percentile(mean, means, level)


def grouped_difference(a_P, b_P, group_P, *, seed: int, weights=None,
                       level: float = 0.95,
                       num_resamples: int = 10_000) -> Difference:
  """As `paired_difference`, of weighted means of the means of groups."""
  a_P, b_P = _scores(a_P, 1), _scores(b_P, 1)
  if a_P.shape != b_P.shape:
    raise ValueError(
        f'Expected scores of the same problems, got {len(a_P)} and {len(b_P)}. '
        'Match the problems before comparing.')
  mean, means = _grouped(b_P - a_P, group_P, weights, seed, num_resamples)
  return _difference(mean, means, level)


def wilson(num_correct: int, num_problems: int,
           level: float = 0.95) -> Interval:
  """Score interval of a proportion: one sample per problem."""
  _proportion(num_correct, num_problems)
  low, high = stats.binomtest(num_correct, num_problems).proportion_ci(
      level, method='wilson')
  return Interval(num_correct / num_problems, float(low), float(high), level)


def beta(num_correct: int, num_problems: int, level: float = 0.95) -> Interval:
  """Equal-tailed posterior interval of a proportion under Beta(1, 1)."""
  _proportion(num_correct, num_problems)
  low, high = stats.beta.interval(level, 1 + num_correct,
                                  1 + num_problems - num_correct)
  return Interval(num_correct / num_problems, float(low), float(high), level)


def mcnemar(a_P, b_P) -> Coverage:
  """Exact test on the problems that only one of two models solves."""
  a_P, b_P = np.asarray(a_P), np.asarray(b_P)
  if a_P.dtype != bool or b_P.dtype != bool or a_P.shape != b_P.shape:
    raise ValueError(
        'Expected two boolean arrays over the same problems, got '
        f'{a_P.dtype}{list(a_P.shape)} and {b_P.dtype}{list(b_P.shape)}. Say '
        'what counts as solved first, for instance pass@k > 0.')
  only_a, only_b = int(np.sum(a_P & ~b_P)), int(np.sum(~a_P & b_P))
  discordant = only_a + only_b
  p_value = stats.binomtest(only_a, discordant).pvalue if discordant else 1.0
  return Coverage(both=int(np.sum(a_P & b_P)), only_a=only_a, only_b=only_b,
                  neither=int(np.sum(~a_P & ~b_P)), p_value=float(p_value))


def _replicates(score_P, rng, num_resamples: int) -> np.ndarray:
  """Means of as many problems, drawn with replacement."""
  chunk = max(1, _CHUNK // len(score_P))
  return np.concatenate([
      score_P[rng.integers(len(score_P), size=(
          min(chunk, num_resamples - start), len(score_P)))].mean(1)
      for start in range(0, num_resamples, chunk)])


def _grouped(score_P, group_P, weights, seed: int, num_resamples: int):
  """(weighted mean of the groups, its replicates)."""
  group_P = np.asarray(group_P)
  names = np.unique(group_P).tolist()
  weights = dict.fromkeys(names, 1.0) if weights is None else weights
  if group_P.shape != score_P.shape or not set(names) <= set(weights):
    raise ValueError(
        f'Expected a group for each of {len(score_P)} problems, and a weight '
        f'for each group, got {group_P.size} groups, {names}, and weights of '
        f'{sorted(weights)}. Add what is missing.')
  total, rng = sum(weights[name] for name in names), np.random.default_rng(seed)
  mean, means = 0.0, np.zeros(num_resamples)
  for name in names:
    some_P = score_P[group_P == name]
    share = weights[name] / total
    mean += share * some_P.mean()
    means += share * _replicates(some_P, rng, num_resamples)
  return float(mean), means


def _difference(estimate: float, replicates, level: float) -> Difference:
  tail = min(np.sum(replicates <= 0), np.sum(replicates >= 0))
  p_value = min(1.0, 2 * (tail + 1) / (len(replicates) + 1))
  return Difference(_percentile(estimate, replicates, level), float(p_value))


def _percentile(estimate: float, replicates, level: float) -> Interval:
  low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
  return Interval(estimate, float(low), float(high), level)


def _scores(values, rank: int) -> np.ndarray:
  values = np.asarray(values, np.float64)
  if values.ndim != rank or values.size == 0 or len(values) < 2:
    raise ValueError(
        f'Expected scores of at least two problems as an array of rank {rank}, '
        f'got shape {list(values.shape)}.')
  if not np.all(np.isfinite(values)):
    raise ValueError('Expected finite scores, got '
                     f'{np.sum(~np.isfinite(values))} that are not. Leave out '
                     'or decide upon problems without a score first.')
  return values


def _proportion(num_correct: int, num_problems: int):
  if not 0 <= num_correct <= num_problems or num_problems < 1:
    raise ValueError(
        f'Expected 0 <= correct <= problems and a problem, got {num_correct} '
        f'of {num_problems}.')
