"""What a policy does on a set of problems, from its graded responses.

A sample that no verifier could grade says nothing of the policy: it counts
neither as right nor as wrong, and a problem left with too few others is left
out, and counted.
"""
from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
import fractions
import re

import numpy as np

from experiments.policy import judging
from experiments.policy import responses
from rljax import evaluation
from rljax.evaluation import cot_pass_at_k
from rljax.evaluation import entropy
from rljax.evaluation import intervals
from rljax.evaluation import sample_metrics
from rljax.rewards import extraction

# Short: nothing is to be computed that takes long. 1/0 is text.
_NUMBER = re.compile(r'[+-]?\d{1,40}(?:\.\d{1,40}|/0*[1-9]\d{0,39})?')
_THOUSANDS = re.compile(r'(?<=\d),(?=\d{3}(?!\d))')
_FRACTION = re.compile(r'([+-]?)\\frac\{(\d+)\}\{(\d+)\}')


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
  pass_hat_k: list[dict[str, float]]     # all of k are right
  mg_pass_at_k: list[dict[str, float]]   # more than half are; from k = 2 on
  by_domain: dict[str, intervals.Interval | None]
  truncated: float                   # share of responses cut at the limit
  response_length: float             # mean tokens
  verdicts: dict[str, int]           # samples by status
  behaviour: dict[str, float | None]  # of the samples; see there
  letters: dict[str, int]  # named in multiple choice; 'none' abstains
  examples: list[dict[str, str]]     # a few, to read
  # Of each: id, domain, samples graded, and correct; and sample by sample
  # 1 (right), 0 (wrong) or - (not graded).
  problems: list[dict]
  # By rule, over the problems whose every sample could be graded.
  reasoning: list[cot_pass_at_k.Summary] | None
  # How far its calls agree and, where it judged wrong answers too, α, β and p
  # of the logic prior, with the ids of the problems that break it.
  judge: dict | None


def measure(graded: responses.Graded, *, ks: Sequence[int], seed: int,
            num_examples: int, verdict_PGV=None, **reading) -> Measurement:
  """Puts the numbers together.

  Args:
    graded: the same number of samples for each of at least two problems.
    ks: of pass@k and maj@k.
    seed: of the resampling.
    num_examples: problems of which a response is kept as it is.
    verdict_PGV: of a judge of reasoning, as `cot_pass_at_k` reads them.
    **reading: options of `judging.judged`.
  """
  is_graded_P = graded.valid_PG.sum(axis=1) >= max(ks)
  if is_graded_P.sum() < 2:
    raise ValueError(
        f'Expected at least two problems with {max(ks)} samples that a '
        f'verifier could grade, got {is_graded_P.sum()} of '
        f'{len(is_graded_P)}; verdicts {responses.verdicts(graded)}. See to '
        'the verifier, or ask for smaller ks.')
  problems = outcomes(graded)
  of = lambda k, *estimator: scores(problems, k, max(ks), *estimator)
  score_P = of(1)
  some = responses.take(graded, is_graded_P)
  samples = graded.rollout

  def curve(score, ks=ks):
    found = [(k, interval(score(k), seed)) for k in ks]
    return [dict(k=k, estimate=i.estimate, low=i.low, high=i.high)
            for k, i in found]

  return Measurement(
      num_problems=int(is_graded_P.sum()), ungraded=int((~is_graded_P).sum()),
      num_samples=graded.valid_PG.shape[1], accuracy=interval(score_P, seed),
      entropy=entropy.token_entropy(samples, seed=seed),
      pass_at_k=curve(of),
      maj_at_k=curve(lambda k: majority(some, k, seed)),
      pass_hat_k=curve(lambda k: of(k, sample_metrics.pass_hat_k)),
      mg_pass_at_k=curve(lambda k: of(k, sample_metrics.mg_pass_at_k),
                         [k for k in ks if k > 1]),
      by_domain=by_domain(problems, lambda in_P: interval(score_P[in_P], seed)),
      truncated=float(1 - samples.stopped_PG.mean()),
      response_length=float(samples.length_PG.mean()),
      verdicts=responses.verdicts(graded), behaviour=behaviour(graded),
      letters=letters(graded), problems=problems,
      examples=examples(graded, num_examples),
      **judging.judged(graded, verdict_PGV, ks, seed, **reading))


def outcomes(graded: responses.Graded) -> list[dict]:
  """`Measurement.problems`."""
  return [dict(id=record['id'], domain=record['domain'],
               graded=int(valid_G.sum()),
               correct=int((correct_G & valid_G).sum()),
               samples=''.join(np.where(
                   valid_G, np.where(correct_G, '1', '0'), '-')))
          for record, valid_G, correct_G in zip(
              graded.records, graded.valid_PG, graded.correct_PG,
              strict=True)]


def scores(problems: Sequence[dict], k: int, least: int,
           estimator=evaluation.pass_at_k) -> np.ndarray:
  """pass@k of each problem; NaN with fewer than `least` samples graded."""
  n_P, correct_P = (np.array([problem[name] for problem in problems])
                    for name in ('graded', 'correct'))
  score_P, enough_P = np.full(len(n_P), np.nan), n_P >= least
  score_P[enough_P] = estimator(n_P[enough_P], correct_P[enough_P], k)
  return score_P


def by_domain(problems: Sequence[dict], measure_one) -> dict:
  """`measure_one(in_P)` of each domain, `in_P` its problems."""
  domains = np.array([problem['domain'] for problem in problems])
  return {d: measure_one(domains == d) for d in sorted(set(domains.tolist()))}


def interval(score_P: np.ndarray, seed: int) -> intervals.Interval | None:
  """Of the mean, NaN left out; None without any score.

  A single problem says nothing of the others: from 0 to 1.
  """
  score_P = score_P[np.isfinite(score_P)]
  if len(score_P) < 2:
    return intervals.Interval(float(score_P[0]), 0.0, 1.0) if (
        len(score_P)) else None
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
    score_P[n_P == n] = evaluation.maj_at_k(
        take(class_PG), take(graded.correct_PG), k, seed=seed)
  return score_P


def answer_classes(graded: responses.Graded) -> np.ndarray:
  """Equal answers get equal labels per problem; no answer gets -1.

  All answers that the verifier accepts are one class, whatever their form.
  Wrong ones are told apart by their value where they are plain numbers or
  fractions, else by their text without typesetting.
  """
  num_prompts, num_samples = graded.correct_PG.shape
  labels_PG = np.full((num_prompts, num_samples), -1)
  for p in range(num_prompts):
    seen = {}
    for g in range(num_samples):
      result = graded.results[p * num_samples + g]
      if result.extracted is not None:
        name = True if result.is_correct else ('wrong', _value(
            result.extracted))
        labels_PG[p, g] = seen.setdefault(name, len(seen))
  return labels_PG


def _value(answer: str) -> fractions.Fraction | str:
  """What two forms of an answer have in common."""
  text = extraction.normalize(answer)
  plain = _FRACTION.sub(r'\1\2/\3', _THOUSANDS.sub('', text))
  if not _NUMBER.fullmatch(plain):
    return text
  return fractions.Fraction(plain)


def behaviour(graded: responses.Graded) -> dict[str, float | None]:
  """Lengths and cuts of right and wrong samples, answers, what went wrong.

  Means over the samples of a kind, None without any; `distinct_answers` is a
  mean over problems, and the statuses are shares of all samples.
  """
  right_PG, valid_PG = graded.correct_PG, graded.valid_PG
  found = {}
  for kind, in_PG in (('right', right_PG & valid_PG),
                      ('wrong', ~right_PG & valid_PG)):
    for name, x_PG in (('tokens', graded.rollout.length_PG),
                       ('truncated', ~graded.rollout.stopped_PG)):
      found[f'{name}_{kind}'] = float(x_PG[in_PG].mean()) if (
          in_PG.any()) else None
  found['distinct_answers'] = float(np.mean([
      len(set(labels_G.tolist()) - {-1})
      for labels_G in answer_classes(graded)]))
  counts = responses.verdicts(graded)
  return found | {status: counts.get(status, 0) / valid_PG.size
                  for status in ('unparsable', 'timeout', 'crashed')}


def letters(graded: responses.Graded) -> dict[str, int]:
  """How often each letter was named in multiple choice; {} without any.

  A policy that names one letter whatever is asked is seen here.
  """
  named = collections.Counter(
      result.extracted or 'none'
      for i, result in enumerate(graded.results)
      if graded.records[i // graded.valid_PG.shape[1]]['verifier'] == 'choice')
  return dict(sorted(named.items()))


def examples(graded: responses.Graded, count: int) -> list[dict[str, str]]:
  """The first response to each of the first problems."""
  num_samples = graded.valid_PG.shape[1]
  return [dict(prompt=record['prompt'], response=graded.texts[p * num_samples],
               verdict=graded.results[p * num_samples].status)
          for p, record in enumerate(graded.records[:count])]


def problem_scores(results: list[dict], k: int = 1) -> np.ndarray:
  """pass@k, mean over seeds; NaN for a problem that some seed left out."""
  return np.mean([scores(
      r['problems'], k, least=max(point['k'] for point in r['pass_at_k']))
                  for r in results], axis=0)


def summary(results: list[dict]) -> dict:
  """One entry for all seeds: problems are resampled, seeds are averaged."""
  first = results[0]
  of = lambda score_P: interval(score_P, seed=0)
  score_P = problem_scores(results)
  accuracy = of(score_P)
  curve = [dict(k=point['k'], found=of(
      problem_scores(results, point['k']))) for point in first['pass_at_k']]
  average = lambda path: float(np.mean([path(r) for r in results]))
  return dict(
      accuracy=accuracy.estimate, interval=accuracy,
      entropy=average(lambda r: r['entropy']['estimate']),
      pass_at_k=[dict(k=point['k'], estimate=point['found'].estimate,
                      low=point['found'].low, high=point['found'].high)
                 for point in curve],
      maj_at_k=[dict(k=p['k'], estimate=average(
          lambda r, i=i: r['maj_at_k'][i]['estimate']))
                for i, p in enumerate(first['maj_at_k'])],
      by_domain=by_domain(
          first['problems'], lambda in_P: of(score_P[in_P])),
      response_length=average(lambda r: r['response_length']),
      num_problems=int(np.isfinite(score_P).sum()),
      ungraded=int((~np.isfinite(score_P)).sum()),
      num_samples=first['num_samples'])


def difference(before: list[dict], after: list[dict],
               in_P=...) -> intervals.Difference:
  """Paired over the problems that all could be measured on, seeds averaged."""
  before_P, after_P = (problem_scores(x)[in_P] for x in (before, after))
  both_P = np.isfinite(before_P) & np.isfinite(after_P)
  if both_P.sum() < 2:  # says nothing of other problems
    delta = (after_P - before_P)[both_P]
    mean = float(delta[0]) if len(delta) else float('nan')
    return intervals.Difference(intervals.Interval(mean, -1.0, 1.0), 1.0)
  return intervals.paired_difference(before_P[both_P], after_P[both_P], seed=0)


def text(interval) -> str:
  """An interval, as a plain dict, in the lines that a script prints."""
  return (f'{interval["estimate"]:.3f} [{interval["low"]:.3f}, '
          f'{interval["high"]:.3f}]')
