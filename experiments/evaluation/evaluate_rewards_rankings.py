"""Lists of responses ranked by a judge, by what it has said of pairs of them.

`pair_judge.rank` says which pairs are compared; here it asks once, for places
in a list, and is gone through again with the votes that were kept. A comparison
without a verdict is a tie. Ours: the benchmarks score by ratings, or by a judge
that sees all responses at once.
"""
from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import zlib

import numpy as np

from rljax.agents import pair_judge
from rljax.data import reward_benchmarks as files

Vote = tuple[int, int, int, float]  # first, second, call, preference or NaN


def order(item: files.Item, ranking: str, seed: int) -> list[int]:
  """Places of the responses as they are ranked.

  A knockout keeps the first of equals, and right responses are listed first: by
  that order a judge that says nothing would be right. So it is drawn.
  """
  count = len(item.responses)
  if ranking != 'knockout':
    return list(range(count))
  return np.random.default_rng(
      [seed, zlib.crc32(item.name.encode())]).permutation(count).tolist()


def ask(judge: Callable, items: Sequence[files.Item],
        orders: Sequence[Sequence[int]], ranking: str) -> list[list[Vote]]:
  """Votes of each item as the ranking asks for them, all items side by side.

  Args:
    judge: (pairs as they are shown, numbers of the calls) -> preference_N.
    items: to be ranked.
    orders: of each, from `order`.
    ranking: of `pair_judge.RANKINGS`.
  """
  votes = [[] for _ in items]

  def of_places(pairs):  # so that equal responses are not mixed up
    shown = [(items[k], i, j) for k, i, j in (
        (pair.prompt, pair.first, pair.second) for pair in pairs)]
    found_N = np.asarray(judge(
        [pair_judge.Pair(item.prompt, item.responses[i], item.responses[j])
         for item, i, j in shown], [0] * len(pairs)), np.float64)
    for pair, said in zip(pairs, found_N, strict=True):
      votes[pair.prompt].append((pair.first, pair.second, 0, float(said)))
    return _logits(found_N)

  pair_judge.rank(of_places, range(len(items)), orders, ranking)
  return votes


def scores(votes: Sequence[Vote], item: files.Item, ranking: str, seed: int,
           where: str) -> np.ndarray:
  """score_G of the responses, by votes that were kept.

  Args:
    votes: on the pairs that the ranking compares, or on more.
    item: that they are of.
    ranking: of `pair_judge.RANKINGS`.
    seed: of the order of a knockout.
    where: the votes stand, for the error.

  Raises:
    ValueError: a vote is missing that this ranking needs.
  """
  said = {vote[:2]: vote[3] for vote in votes}

  def judge(pairs):
    shown = [(pair.first, pair.second) for pair in pairs]
    lack = [places for places in shown if places not in said]
    if lack:
      raise ValueError(
          f"Expected votes on {lack[:4]} in the field 'votes' of {where}, as "
          f'ranking={ranking!r} compares with seed={seed}, got others. Ask for '
          'every pair in both orders, or name those that were asked for.')
    return _logits([said[places] for places in shown])

  places = order(item, ranking, seed)
  score_G, = pair_judge.rank(judge, [None], [places], ranking)
  return score_G[np.argsort(places)]


def _logits(preference_N) -> np.ndarray:
  """logit_N2 of a judge with these preferences; NaN is a tie."""
  half_N = np.nan_to_num(np.asarray(preference_N, np.float64), nan=0.5)
  with np.errstate(divide='ignore'):  # a verdict has no end
    return np.stack([np.log(half_N), np.log1p(-half_N)], axis=1)
