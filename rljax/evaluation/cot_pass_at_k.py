"""What k samples achieve if the reasoning must be right, not the answer alone.

Of n samples of a problem C have the right answer, D of them right reasoning:

  Pass@K     = 1 - C(n-C, K) / C(n, K)       P(CA)    = C / n
  CoT-Pass@K = 1 - C(n-D, K) / C(n, K)       P(CC|CA) = D / C

Reasoning is judged several times. Verdicts are 1 (yes), 0 (no) and -1 (none,
or none that could be read); how they become one is a rule:

  any        some verdict is yes
  majority   more are yes than no
  all        all calls said yes

A missing verdict is never a yes: it fails `all`, and abstains from the others
or, on request, is a no. Of a tie `majority` makes a no.

A judge errs. With the rates of its errors on labelled data, the share of right
reasoning is estimated from the share that it approves (Rogan and Gladen):

  D_hat = (D - C FPR) / (TPR - FPR), clipped to [0, C]

How far the calls agree beyond chance is Fleiss' kappa.

Reference: CoT-Pass@K (arXiv 2506.14245), eqs. 1-3 and appendix A.3; Rogan and
Gladen (Am. J. Epidemiology 1978); Fleiss (Psychol. Bull. 1971). What of
unreadable verdicts is not in the paper: a public fork of the authors' tool
approves samples without any, ours does not.
"""
from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np
from scipy import stats

from rljax.evaluation import intervals
from rljax.evaluation import sample_metrics

YES, NO, INVALID = 1, 0, -1
RULES = ('any', 'majority', 'all')
MISSING = ('abstains', 'no')  # what a missing verdict is


@dataclasses.dataclass(frozen=True)
class Summary:
  """A set of problems under one rule."""
  rule: str
  pass_at_k: list[dict[str, float]]      # k, estimate, low, high
  cot_pass_at_k: list[dict[str, float]]
  gap: list[dict[str, float]]            # pass@k - cot_pass@k, paired
  answer_right: float                    # P(CA), mean over problems
  reasoning_right: float | None          # P(CC|CA), over problems with a C
  never_right: int                       # problems without a right answer
  unjudged: int                          # right answers without any verdict
  # P(CC|CA) and CoT-Pass@1 less what the judge gets wrong, if that is known.
  corrected: dict[str, intervals.Interval] | None


def aggregate(verdict_PGV, rule: str, missing: str = 'abstains') -> np.ndarray:
  """bool_PG: the reasoning counts as right.

  Args:
    verdict_PGV: 1, 0 or -1 of each of V calls; their order does not matter.
    rule: one of `RULES`.
    missing: one of `MISSING`.

  Raises:
    ValueError: another rule, or another verdict.
  """
  if missing not in MISSING:
    raise ValueError(f'Expected of a missing verdict one of {MISSING}, got '
                     f'{missing!r}. Correct it.')
  verdict_PGV = np.asarray(verdict_PGV)
  if verdict_PGV.ndim != 3 or not verdict_PGV.shape[-1] or not np.all(
      np.isin(verdict_PGV, (YES, NO, INVALID))):
    raise ValueError(
        'Expected verdicts of 1, 0 or -1 as [problems, samples, calls], got '
        f'shape {list(verdict_PGV.shape)} with '
        f'{np.unique(verdict_PGV)[:5].tolist()}. Parse them first.')
  yes_PG = np.sum(verdict_PGV == YES, axis=-1)
  no_PG = np.sum((verdict_PGV == NO) | (
      (verdict_PGV == INVALID) & (missing == 'no')), axis=-1)
  if rule == 'any':
    return yes_PG > 0
  if rule == 'majority':
    return yes_PG > no_PG
  if rule == 'all':
    return yes_PG == verdict_PGV.shape[-1]
  raise ValueError(f'Expected a rule among {RULES}, got {rule!r}. Correct it.')


def at_least(verdict_PGV, num_yes: int) -> np.ndarray:
  """bool_PG: so many calls said yes."""
  return np.sum(np.asarray(verdict_PGV) == YES, axis=-1) >= num_yes


def counts(correct_PG, reasoning_PG) -> tuple[np.ndarray, np.ndarray]:
  """C and D of each problem: right answers, and those with right reasoning."""
  correct_PG = np.asarray(correct_PG, bool)
  reasoning_PG = np.asarray(reasoning_PG, bool)
  if correct_PG.shape != reasoning_PG.shape or correct_PG.ndim != 2:
    raise ValueError(
        'Expected answers and reasoning as [problems, samples], got shapes '
        f'{list(correct_PG.shape)} and {list(reasoning_PG.shape)}.')
  return correct_PG.sum(1), (correct_PG & reasoning_PG).sum(1)


def cot_pass_at_k(correct_PG, reasoning_PG, k: int) -> np.ndarray:
  """Probability, per problem, that some of k samples is right throughout."""
  _, both_P = counts(correct_PG, reasoning_PG)
  return sample_metrics.pass_at_k(np.asarray(correct_PG).shape[1], both_P, k)


def reasoning_given_answer(correct_PG, reasoning_PG) -> np.ndarray:
  """P(CC|CA) of each problem; NaN where no answer is right."""
  right_P, both_P = counts(correct_PG, reasoning_PG)
  return np.where(right_P > 0, both_P / np.maximum(right_P, 1), np.nan)


def rogan_gladen(num_correct, num_approved, *, fpr: float,
                 tpr: float) -> np.ndarray:
  """The number with right reasoning, from the number that a judge approves.

  Args:
    num_correct: C, judged samples.
    num_approved: D, those with a yes under the rule in use.
    fpr: share of wrong reasoning that this rule approves.
    tpr: share of right reasoning that it approves.

  Raises:
    ValueError: a judge no better than chance says nothing.
  """
  _check_rates(fpr, tpr)
  right, approved = (np.asarray(x, np.float64)
                     for x in (num_correct, num_approved))
  return np.clip((approved - right * fpr) / (tpr - fpr), 0, right)


def rates_of_rule(rule: str, num_calls: int, *, fpr: float,
                  tpr: float) -> tuple[float, float]:
  """(FPR, TPR) of a rule, if the calls err independently at these rates."""
  if rule not in RULES or num_calls < 1:
    raise ValueError(f'Expected a rule among {RULES} and num_calls >= 1, got '
                     f'{rule!r} and {num_calls}.')
  least = {'any': 1, 'majority': num_calls // 2 + 1, 'all': num_calls}[rule]
  at = lambda p: float(stats.binom.sf(least - 1, num_calls, p))
  return at(fpr), at(tpr)


def corrected(correct_PG, reasoning_PG, *, fpr: float, tpr: float,
              seed: int) -> dict[str, intervals.Interval] | None:
  """P(CC|CA) and CoT-Pass@1 with the judge's errors taken out; None without C.

  Means are clipped, not problems: of a few samples D_hat is often outside of
  [0, C], and clipping each would be one-sided.

  Args:
    correct_PG: bool; the answer is right.
    reasoning_PG: bool; what the judge approves under the rule in use.
    fpr: share of wrong reasoning that this rule approves.
    tpr: share of right reasoning that it approves.
    seed: of the resampling of problems.
  """
  _check_rates(fpr, tpr)
  right_P, both_P = counts(correct_PG, reasoning_PG)
  some_P = right_P > 0
  if some_P.sum() < 2:
    return None
  hat_P = (both_P - right_P * fpr) / (tpr - fpr)
  samples = np.asarray(correct_PG).shape[1]

  def mean(score_P, most):
    found = intervals.bootstrap(score_P, seed=seed)
    return intervals.Interval(
        *(float(np.clip(x, 0, most))
          for x in (found.estimate, found.low, found.high)), found.level)

  return {'reasoning_right': mean(hat_P[some_P] / right_P[some_P], 1.0),
          'cot_pass_at_1': mean(hat_P / samples, np.mean(right_P / samples))}


def agreement(verdict_PGV) -> float | None:
  """Fleiss' kappa of the calls, over samples with a verdict of each.

  1 is perfect, 0 what chance would do. None where it is not defined: a single
  call, or all verdicts alike.
  """
  verdict_NV = np.asarray(verdict_PGV).reshape(-1, np.shape(verdict_PGV)[-1])
  verdict_NV = verdict_NV[np.all(verdict_NV != INVALID, axis=-1)]
  num_calls = verdict_NV.shape[1]
  if num_calls < 2 or not len(verdict_NV):
    return None
  yes_N = np.sum(verdict_NV == YES, axis=-1)
  no_N = num_calls - yes_N
  pairs = np.mean((yes_N * (yes_N - 1) + no_N * (no_N - 1)) / (
      num_calls * (num_calls - 1)))
  share = yes_N.mean() / num_calls
  chance = share**2 + (1 - share)**2
  return None if chance == 1 else float((pairs - chance) / (1 - chance))


def summarize(correct_PG, verdict_PGV, *, ks: Sequence[int], rule: str,
              seed: int, missing: str = 'abstains',
              call_rates: tuple[float, float] | None = None) -> Summary:
  """The curves with bands over problems, and what was left out.

  Args:
    correct_PG: bool; the answer is right.
    verdict_PGV: as in `aggregate`; read where the answer is right.
    ks: of the curves.
    rule: one of `RULES`.
    seed: of the resampling of problems.
    missing: one of `MISSING`.
    call_rates: FPR and TPR of a single call on labelled data, if known.
  """
  correct_PG = np.asarray(correct_PG, bool)
  reasoning_PG = aggregate(verdict_PGV, rule, missing)
  right_P, _ = counts(correct_PG, reasoning_PG)
  samples = correct_PG.shape[1]
  plain = {k: sample_metrics.pass_at_k(samples, right_P, k) for k in ks}
  strict = {k: cot_pass_at_k(correct_PG, reasoning_PG, k) for k in ks}
  curve = lambda scores: [
      dict(k=k, estimate=i.estimate, low=i.low, high=i.high)
      for k, i in ((k, intervals.bootstrap(scores[k], seed=seed)) for k in ks)]
  share_P = reasoning_given_answer(correct_PG, reasoning_PG)
  known_P = np.isfinite(share_P)
  silent_PG = np.all(np.asarray(verdict_PGV) == INVALID, axis=-1)
  fixed = None
  if call_rates is not None:
    fpr, tpr = rates_of_rule(rule, np.shape(verdict_PGV)[-1],
                             fpr=call_rates[0], tpr=call_rates[1])
    fixed = corrected(correct_PG, reasoning_PG, fpr=fpr, tpr=tpr, seed=seed)
  return Summary(
      rule=rule, pass_at_k=curve(plain), cot_pass_at_k=curve(strict),
      gap=curve({k: plain[k] - strict[k] for k in ks}),
      answer_right=float(np.mean(right_P / samples)),
      reasoning_right=float(share_P[known_P].mean()) if known_P.any() else None,
      never_right=int((~known_P).sum()),
      unjudged=int((silent_PG & correct_PG).sum()), corrected=fixed)


def _check_rates(fpr: float, tpr: float):
  if not 0 <= fpr < tpr <= 1:
    raise ValueError(f'Expected 0 <= fpr < tpr <= 1, got {fpr} and {tpr}: such '
                     'a judge tells nothing apart. Take another one.')
