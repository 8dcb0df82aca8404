"""Which of two responses is better, asked of a judge, and what follows from it.

A judge says how much it would answer "A" and "B" for a pair as it is shown. It
may favour a place; every score here asks in both orders:

  q1 = softmax(z | 1 shown as A, 2 as B),  q2 = softmax(z | 2 as A, 1 as B)
  r_1 = (q1[A] + q2[B]) / 2,  r_2 = (q1[B] + q2[A]) / 2,  r_1 + r_2 = 1

Averaging logits instead gives σ of the mean gap: the same winner, and exactly
the true preference under a constant favour for a place, where the average of
probabilities shrinks towards 1/2. A judge has no score for a response alone.

| in the official code | here |
|---|---|
| demo: softmax over the orders | over the labels |
| knock-out; in an earlier version scores against an anchor | both |
| nothing ranks all responses | `round_robin`: mean share of wins, ours |
| PPO's reward is against a greedy answer | `against_reference` |

Reference: GRAM (arXiv 2506.14175) and its official code; the greedy reference
is ReMax's (arXiv 2310.10505).
"""
from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any
from typing import Protocol

import numpy as np

AVERAGES = ('probability', 'logit')


@dataclasses.dataclass(frozen=True)
class Pair:
  """What a judge is shown, in this order."""
  prompt: Any  # text, messages, or with pictures; the judge knows which
  first: str
  second: str

  @property
  def swapped(self) -> Pair:
    return Pair(self.prompt, self.second, self.first)


class PairJudge(Protocol):
  """The whole interface; a model of text and one of pictures have the same."""

  def __call__(self, pairs: Sequence[Pair]) -> np.ndarray:
    """logit_N2 of the labels A and B, each pair as it is shown.

    A constant added to both of a pair means nothing. NaN for a pair that the
    judge cannot be shown, for instance one that is too long.
    """


def scores(judge: PairJudge, pairs: Sequence[Pair], *,
           average: str = 'probability') -> np.ndarray:
  """r_N2 of both responses of each pair; all pairs in one call.

  Exchanging the responses exchanges their scores to the bit; a response against
  itself gets exactly 1/2. NaN where the judge could not be asked.

  Args:
    judge: who is asked.
    pairs: in whatever order.
    average: over the two orders; 'probability', or 'logit'.

  Raises:
    ValueError: another average, or a judge whose logits have another shape.
  """
  if average not in AVERAGES:
    raise ValueError(f'Expected average among {AVERAGES}, got {average!r}. '
                     'Correct it.')
  if not pairs:
    return np.zeros((0, 2))
  logit_N2 = np.asarray(
      judge([*pairs, *(pair.swapped for pair in pairs)]), np.float64)
  if logit_N2.shape != (2 * len(pairs), 2):
    raise ValueError(
        f'Expected two logits for each of {2 * len(pairs)} pairs, got an array '
        f'of shape {logit_N2.shape}. Correct the judge.')
  shown_N, swapped_N = logit_N2[:len(pairs)], logit_N2[len(pairs):]
  # Both are gaps in favour of the first response.
  gap_N = shown_N[:, 0] - shown_N[:, 1]
  other_N = swapped_N[:, 1] - swapped_N[:, 0]
  # tanh is odd to the bit: r_1 - r_2 changes its sign and nothing else.
  if average == 'logit':
    lead_N = np.tanh((gap_N + other_N) / 4) / 2
  else:
    lead_N = (np.tanh(gap_N / 2) + np.tanh(other_N / 2)) / 4
  return np.stack([0.5 + lead_N, 0.5 - lead_N], axis=1)


def knockout(judge: PairJudge, prompt: Any, responses: Sequence[str], *,
             average: str = 'probability') -> int:
  """Index of the best, by n - 1 comparisons; a tie keeps the incumbent.

  Raises:
    ValueError: no response, or a pair that the judge cannot be shown.
  """
  _check(responses, 1)
  best = 0
  for i in range(1, len(responses)):
    old, new = _scores(judge, [Pair(prompt, responses[best], responses[i])],
                       average)[0]
    if new > old:
      best = i
  return best


def anchor(judge: PairJudge, prompt: Any, responses: Sequence[str], *,
           anchor: int = 0, anchor_score: float = 0.0,
           average: str = 'probability') -> np.ndarray:
  """score_N by n - 1 comparisons with one of them: r_i - r_anchor + its score.

  Raises:
    ValueError: no such anchor, or a pair that the judge cannot be shown.
  """
  _check(responses, 1)
  if not 0 <= anchor < len(responses):
    raise ValueError(f'Expected an anchor below {len(responses)}, got '
                     f'{anchor}. Correct it.')
  others = [i for i in range(len(responses)) if i != anchor]
  found_N2 = _scores(judge, [
      Pair(prompt, responses[anchor], responses[i]) for i in others], average)
  score_N = np.full(len(responses), float(anchor_score))
  score_N[others] += found_N2[:, 1] - found_N2[:, 0]
  return score_N


def round_robin(judge: PairJudge, prompt: Any, responses: Sequence[str], *,
                average: str = 'probability') -> np.ndarray:
  """score_N: the mean of a response's scores over all its opponents.

  Raises:
    ValueError: fewer than two responses, or a pair that the judge cannot be
      shown.
  """
  _check(responses, 2)
  indices = np.array(list(itertools.combinations(range(len(responses)), 2)))
  found_N2 = _scores(judge, [Pair(prompt, responses[i], responses[j])
                             for i, j in indices], average)
  score_N = np.zeros(len(responses))
  np.add.at(score_N, indices, found_N2)
  return score_N / (len(responses) - 1)


def against_reference(judge: PairJudge, prompts: Sequence[Any],
                      references: Sequence[str], responses: Sequence[str], *,
                      average: str = 'probability') -> np.ndarray:
  """reward_N in (0, 1): of each response against its prompt's reference.

  With a greedy answer of the policy in training as reference, 1/2 means "as
  good as that". NaN where the judge could not be asked.
  """
  pairs = [Pair(*one) for one in zip(prompts, references, responses,
                                     strict=True)]
  return scores(judge, pairs, average=average)[:, 1]


def _scores(judge, pairs, average) -> np.ndarray:
  """As `scores`; a comparison that is missing would decide a ranking."""
  found_N2 = scores(judge, pairs, average=average)
  if np.isnan(found_N2).any():
    raise ValueError(
        f'Expected a score for each of {len(pairs)} pairs, got none for '
        f'{int(np.isnan(found_N2).any(axis=1).sum())}. Leave out responses '
        'that the judge cannot be shown.')
  return found_N2


def _check(responses, least: int):
  if len(responses) < least:
    raise ValueError(f'Expected at least {least} responses, got '
                     f'{len(responses)}. Sample more.')
