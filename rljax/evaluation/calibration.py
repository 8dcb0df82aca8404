"""Whether a preference of 0.8 is right four times of five.

  p = σ((r_1 - r_2) / T)      NLL = -mean log p(what was better)
  Brier = mean (p - y)²       ECE = Σ_b (n_b / n) |mean p - mean y| in bin b

y says whether response 1 is the better one, and which of the two is response 1
is drawn first: with the better one always in front y is always 1, and the ECE
measures nothing but how low p is.

T is fitted by NLL on one part of the pairs and applied to the other. It moves
no p across 1/2, so accuracy stays. For a judge's probability the logit stands
for the difference of scores.

ECE is never negative, so a finite sample of a perfectly calibrated model has
one above zero: `floor` says how large it would be on these predictions. Labels
smoothed by ε make a model's confidence end at 1 - ε: state ε beside its ECE.

Reference: Guo et al. (arXiv 1706.04599); the floor: Bröcker and Smith (Weather
and Forecasting 2007), consistency resampling.
"""
from __future__ import annotations

import dataclasses

import numpy as np
from scipy import optimize
from scipy import special

from rljax.evaluation import intervals

_LOG_T = 6.0  # fitted temperatures lie in e^-6 .. e^6


@dataclasses.dataclass(frozen=True)
class Bin:
  """Predictions between two bounds."""
  low: float
  high: float
  count: int
  predicted: float | None  # mean of p
  observed: float | None   # share of y


@dataclasses.dataclass(frozen=True)
class Summary:
  """Calibration of one model on pairs in drawn order."""
  num_pairs: int
  temperature: float
  accuracy: float           # ties count half
  nll: intervals.Interval
  brier: intervals.Interval
  ece: float
  floor: float              # ECE of a calibrated model with these predictions
  bins: list[Bin]


def in_drawn_order(margin_I, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """(difference r_1 - r_2, [1 is the better one]), the order drawn per pair.

  Args:
    margin_I: score of the better response minus that of the other; for a
      judge `logit` of its preference for the better one.
    seed: of the order.
  """
  margin_I = _finite(margin_I)
  first_I = np.random.default_rng(seed).random(len(margin_I)) < 0.5
  return np.where(first_I, margin_I, -margin_I), first_I


def logit(preference_I, clip: float = 1e-6) -> np.ndarray:
  """Log-odds; what is nearer to 0 or 1 than `clip` counts as that near."""
  return special.logit(np.clip(np.asarray(preference_I, np.float64), clip,
                               1 - clip))


def nll(difference_I, better_I) -> np.ndarray:
  """Negative log-likelihood of each pair at T = 1; stable for any scores."""
  return np.logaddexp(0.0, np.where(better_I, -1, 1) * _finite(difference_I))


def brier(probability_I, better_I) -> np.ndarray:
  """Squared error of each probability."""
  return (np.asarray(probability_I) - np.asarray(better_I, np.float64)) ** 2


def reliability(probability_I, better_I, num_bins: int = 10) -> list[Bin]:
  """Bins of equal width over [0, 1]; 1 belongs to the last one."""
  count_C, predicted_C, observed_C = _binned(probability_I, better_I, num_bins)
  mean = lambda total, count: float(total / count) if count else None
  return [Bin(b / num_bins, (b + 1) / num_bins, int(count_C[b]),
              mean(predicted_C[b], count_C[b]), mean(observed_C[b], count_C[b]))
          for b in range(num_bins)]


def ece(probability_I, better_I, num_bins: int = 10) -> float:
  """Expected calibration error over bins of equal width."""
  count_C, predicted_C, observed_C = _binned(probability_I, better_I, num_bins)
  return float(np.sum(np.abs(predicted_C - observed_C)) / count_C.sum())


def floor(probability_I, seed: int, num_bins: int = 10,
          num_draws: int = 200) -> float:
  """Mean ECE of outcomes drawn from the probabilities themselves."""
  probability_I = np.asarray(probability_I, np.float64)
  rng = np.random.default_rng(seed)
  return float(np.mean([
      ece(probability_I, rng.random(len(probability_I)) < probability_I,
          num_bins) for _ in range(num_draws)]))


def fit_temperature(difference_I, better_I) -> float:
  """T of the least NLL; differences all right or all wrong drive it to a bound.

  Raises:
    ValueError: no difference tells anything: all are 0.
  """
  difference_I = _finite(difference_I)
  if not np.any(difference_I):
    raise ValueError('Expected scores that differ in some pair, got none. A '
                     'temperature cannot calibrate them.')
  loss = lambda log_t: nll(difference_I * np.exp(-log_t), better_I).mean()
  found = optimize.minimize_scalar(loss, bounds=(-_LOG_T, _LOG_T),
                                   method='bounded', options=dict(xatol=1e-6))
  return float(np.exp(found.x))


def split(num_pairs: int, seed: int, share: float = 0.5) -> np.ndarray:
  """bool_I: the pairs that the temperature is fitted on."""
  fitted_I = np.zeros(num_pairs, bool)
  order = np.random.default_rng(seed).permutation(num_pairs)
  fitted_I[order[:int(round(share * num_pairs))]] = True
  return fitted_I


def summarize(margin_I, *, seed: int, temperature: float = 1.0,
              num_bins: int = 10) -> Summary:
  """Calibration of margins of the better response, as in `in_drawn_order`."""
  if not temperature > 0:
    raise ValueError(f'Expected a temperature above 0, got {temperature}.')
  difference_I, better_I = in_drawn_order(margin_I, seed)
  difference_I = difference_I / temperature
  probability_I = special.expit(difference_I)
  margin_I = np.asarray(margin_I)
  return Summary(
      len(margin_I), temperature,
      float(np.mean((margin_I > 0) + 0.5 * (margin_I == 0))),
      intervals.bootstrap(nll(difference_I, better_I), seed=seed),
      intervals.bootstrap(brier(probability_I, better_I), seed=seed),
      ece(probability_I, better_I, num_bins),
      floor(probability_I, seed, num_bins),
      reliability(probability_I, better_I, num_bins))


def before_and_after(margin_I, *, seed: int, num_bins: int = 10,
                     ) -> tuple[Summary, Summary] | None:
  """The same half of the pairs, at T = 1 and at the T of the other half.

  None: that other half is all ties, and no T can be fitted on it.
  """
  margin_I = _finite(margin_I)
  fitted_I = split(len(margin_I), seed)
  if not np.any(margin_I[fitted_I]):
    return None
  temperature = fit_temperature(*in_drawn_order(margin_I[fitted_I], seed))
  measure = lambda t: summarize(margin_I[~fitted_I], seed=seed, temperature=t,
                                num_bins=num_bins)
  return measure(1.0), measure(temperature)


def _finite(values) -> np.ndarray:
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not len(values) or not np.all(np.isfinite(values)):
    raise ValueError(
        f'Expected finite differences of pairs, got shape {list(values.shape)} '
        f'with {np.sum(~np.isfinite(values))} that are not. Leave out pairs '
        'without a verdict first, and count them.')
  return values


def _binned(probability_I, better_I, num_bins: int):
  """Of each bin: pairs, sum of the probabilities, sum of the outcomes."""
  if num_bins < 1:
    raise ValueError(f'Expected num_bins >= 1, got {num_bins}.')
  probability_I = np.asarray(probability_I, np.float64)
  better_I = np.asarray(better_I, np.float64)
  if probability_I.shape != better_I.shape or not probability_I.size or (
      not np.all((probability_I >= 0) & (probability_I <= 1))):
    raise ValueError(
        'Expected probabilities in [0, 1] and as many outcomes, got shapes '
        f'{list(probability_I.shape)} and {list(better_I.shape)}.')
  place_I = np.minimum((probability_I * num_bins).astype(int), num_bins - 1)
  return [np.bincount(place_I, weights, minlength=num_bins)
          for weights in (None, probability_I, better_I)]
