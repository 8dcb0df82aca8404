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
| knock-out; in an earlier version scores against an anchor | both, in `rank` |
| nothing ranks all responses | round robin: mean share of wins, ours |
| a list at a time | many lists side by side |
| PPO's reward is against a greedy answer | `against_reference` |

Reference: GRAM (arXiv 2506.14175) and its official code; the greedy reference
is ReMax's (arXiv 2310.10505).
"""
from __future__ import annotations

from collections.abc import Generator
from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any
from typing import Protocol

import numpy as np

AVERAGES = ('probability', 'logit')
RANKINGS = ('round_robin', 'anchor', 'knockout')


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


def rank(judge: PairJudge, prompts: Sequence[Any],
         lists: Sequence[Sequence[str]], ranking: str, *,
         average: str = 'probability') -> list[np.ndarray]:
  """score_N of each list, the more the better, by one of RANKINGS.

  round_robin: the mean of a response's scores over all its opponents.
  anchor: r_i - r_0 by n - 1 comparisons with the first, whose score is 0.
  knockout: the best by n - 1 comparisons, and no more: 1 for it, 0 for all
    others; a tie keeps the incumbent.

  All lists are asked for side by side: a judge is called no more often than for
  the longest of them. NaN for the whole of a list of which the judge could not
  be shown a pair: what is missing might have decided it.

  Args:
    judge: who is asked.
    prompts: one for each list.
    lists: of responses.
    ranking: which comparisons are made.
    average: as in `scores`.

  Raises:
    ValueError: another ranking, or too few responses.
  """
  if ranking not in RANKINGS:
    raise ValueError(f'Expected a ranking among {RANKINGS}, got {ranking!r}. '
                     'Correct it.')
  games = dict(round_robin=_round_robin, anchor=_anchor,
               knockout=_knockout)[ranking]
  found = _play(judge, prompts, lists, [games(len(one)) for one in lists],
                average)
  missing = lambda one: np.full(len(one), np.nan)
  if ranking == 'knockout':
    return [missing(one) if best is None else np.eye(len(one))[best]
            for one, best in zip(lists, found, strict=True)]
  return [missing(one) if score_N is None else score_N
          for one, score_N in zip(lists, found, strict=True)]


def num_calls(ranking: str, count: int) -> int:
  """Pairs that a judge is shown for a list of so many, in both orders."""
  return count * (count - 1) if ranking == 'round_robin' else 2 * (count - 1)


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


# A game yields the pairs of places that it wants to be compared, is sent their
# r_N2, and returns what came of it.
_Game = Generator[list[tuple[int, int]], np.ndarray, Any]


def _knockout(count: int) -> _Game:
  _check(count, 1)
  best = 0
  for i in range(1, count):
    ((old, new),) = yield [(best, i)]
    if new > old:
      best = i
  return best


def _anchor(count: int) -> _Game:
  _check(count, 1)
  found_N2 = yield [(0, i) for i in range(1, count)]
  return np.concatenate([[0.0], found_N2[:, 1] - found_N2[:, 0]])


def _round_robin(count: int) -> _Game:
  _check(count, 2)
  pairs = list(itertools.combinations(range(count), 2))
  found_N2 = yield pairs
  score_N = np.zeros(count)
  np.add.at(score_N, np.array(pairs), found_N2)
  return score_N / (count - 1)


def _play(judge, prompts, lists, games, average) -> list[Any]:
  """What came of each game; None where a comparison could not be made."""
  results, answers = [None] * len(games), dict.fromkeys(range(len(games)))
  lacking = set()
  while answers:
    wanted = {}
    for k, answer in answers.items():
      try:
        wanted[k] = games[k].send(answer)
      except StopIteration as end:
        results[k] = None if k in lacking else end.value
    found_N2 = scores(judge, [
        Pair(prompts[k], lists[k][i], lists[k][j])
        for k, pairs in wanted.items() for i, j in pairs], average=average)
    *parts, _ = np.split(
        found_N2, np.cumsum([len(pairs) for pairs in wanted.values()]))
    answers = dict(zip(wanted, parts, strict=True))
    lacking |= {k for k, r_N2 in answers.items() if np.isnan(r_N2).any()}
  return results


def _check(count: int, least: int):
  if count < least:
    raise ValueError(f'Expected at least {least} responses, got {count}. '
                     'Sample more.')
