"""What a policy does on a set of problems, from its graded responses.

A sample that no verifier could grade says nothing of the policy: it counts
neither as right nor as wrong, and a problem left with too few others is left
out, and counted.
"""
from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from experiments import responses
from rljax.evaluation import entropy
from rljax.evaluation import intervals
from rljax.evaluation import sample_metrics


@dataclasses.dataclass(frozen=True)
class Measurement:
  """What one checkpoint does on a set of problems."""
  num_problems: int                  # those averaged over
  ungraded: int                      # left out: fewer than max(ks) graded
  num_samples: int                   # drawn for each problem
  accuracy: intervals.Interval       # mean@n, over the graded samples of each
  entropy: entropy.Estimate          # nats per response token
  pass_at_k: list[dict[str, float]]  # k, estimate, low, high
  maj_at_k: list[dict[str, float]]
  by_domain: dict[str, intervals.Interval]
  truncated: float                   # share of responses cut at the limit
  response_length: float             # mean tokens
  verdicts: dict[str, int]           # samples by status
  examples: list[dict[str, str]]     # a few, to read
  scores: list[float]                # mean@n of each; NaN: left out


def measure(graded: responses.Graded, *, ks: Sequence[int], seed: int,
            num_examples: int) -> Measurement:
  """Puts the numbers together.

  Args:
    graded: the same number of samples for each of at least two problems.
    ks: of pass@k and maj@k.
    seed: of the resampling.
    num_examples: problems of which a response is kept as it is.
  """
  is_graded_P = graded.valid_PG.sum(axis=1) >= max(ks)
  if is_graded_P.sum() < 2:
    raise ValueError(
        f'Expected at least two problems with {max(ks)} samples that a '
        f'verifier could grade, got {is_graded_P.sum()} of '
        f'{len(is_graded_P)}; verdicts {responses.verdicts(graded)}. See to '
        'the verifier, or ask for smaller ks.')
  some = responses.take(graded, is_graded_P)
  n_P = some.valid_PG.sum(axis=1)
  correct_P = (some.correct_PG & some.valid_PG).sum(axis=1)
  mean_P = sample_metrics.mean_at_n(n_P, correct_P)
  scores = np.full(len(is_graded_P), np.nan)
  scores[is_graded_P] = mean_P
  samples = graded.rollout

  def curve(score):
    found = [(k, interval(score(k), seed)) for k in ks]
    return [dict(k=k, estimate=i.estimate, low=i.low, high=i.high)
            for k, i in found]

  domains = np.array([record['domain'] for record in some.records])
  return Measurement(
      num_problems=len(mean_P), ungraded=int((~is_graded_P).sum()),
      num_samples=graded.valid_PG.shape[1], accuracy=interval(mean_P, seed),
      entropy=entropy.token_entropy(samples, seed=seed),
      pass_at_k=curve(lambda k: sample_metrics.pass_at_k(n_P, correct_P, k)),
      maj_at_k=curve(lambda k: majority(some, k, seed)),
      by_domain={d: interval(mean_P[domains == d], seed)
                 for d in sorted(set(domains.tolist()))},
      truncated=float(1 - samples.stopped_PG.mean()),
      response_length=float(samples.length_PG.mean()),
      verdicts=responses.verdicts(graded),
      examples=examples(graded, num_examples), scores=scores.tolist())


def interval(score_P: np.ndarray, seed: int) -> intervals.Interval:
  """Of the mean; a single problem says nothing of all the others."""
  if len(score_P) == 1:
    return intervals.Interval(float(score_P[0]), 0.0, 1.0)
  return intervals.bootstrap(score_P, seed=seed)


def majority(graded: responses.Graded, k: int, seed: int) -> np.ndarray:
  """maj@k of each problem over the samples that could be graded."""
  class_PG, valid_PG = answer_classes(graded), graded.valid_PG
  n_P = valid_PG.sum(axis=1)
  score_P = np.zeros(len(n_P))
  for n in np.unique(n_P):
    valid_QG = valid_PG[n_P == n]  # Q problems with as many samples
    take = lambda x_PG, n=n, valid_QG=valid_QG: (
        x_PG[n_P == n][valid_QG].reshape(-1, n))
    score_P[n_P == n] = sample_metrics.maj_at_k(
        take(class_PG), take(graded.correct_PG), k, seed=seed)
  return score_P


def answer_classes(graded: responses.Graded) -> np.ndarray:
  """Equal answers get equal labels per problem; no answer gets -1.

  All answers that the verifier accepts are one class, whatever their form.
  Differs from a vote over values: wrong answers are told apart by their text,
  so 1/2 and 0.5, both wrong, are two classes, and the right one wins more often
  than if they were one.
  """
  num_prompts, num_samples = graded.correct_PG.shape
  labels_PG = np.full((num_prompts, num_samples), -1)
  for p in range(num_prompts):
    seen = {}
    for g in range(num_samples):
      result = graded.results[p * num_samples + g]
      if result.extracted is not None:
        name = True if result.is_correct else result.extracted
        labels_PG[p, g] = seen.setdefault(name, len(seen))
  return labels_PG


def examples(graded: responses.Graded, count: int) -> list[dict[str, str]]:
  """The first response to each of the first problems."""
  num_samples = graded.valid_PG.shape[1]
  return [dict(prompt=record['prompt'], response=graded.texts[p * num_samples],
               verdict=graded.results[p * num_samples].status)
          for p, record in enumerate(graded.records[:count])]
