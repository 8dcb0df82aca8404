"""The rules of benchmarks for reward models and judges, and their averages.

What a model says of two responses is a preference: the probability that the
right one is better, 1 or 0 of a plain verdict, 1/2 of a tie, NaN of a reply
without a verdict. With both orders there are two, `preference_I2`: the right
response shown first, and second; in both it is the right one's.

A rule makes credits of preferences or scores, one per item, and says how they
are averaged: a `Tally`. Where ties and missing verdicts can be counted in two
ways the rule takes both, and the first of the names below is the official one:

  reward_bench     a scalar's tie: wrong, half; no verdict of a judge: half,
                   wrong; of a judge one order, drawn by the seed
  reward_bench_2   the best score shared by m: 1/m, wrong
  judge_bench      two orders, each +1 if right and -1 if wrong: right if the
                   sum is above 0; both must be right
  rm_bench         3 x 3 styles, a tie: wrong, half
  vl_reward_bench  majority of k; items with a vote that has no verdict: left
                   out, wrong as far as they lack a majority of all k

`swap_average` is GRAM's way for any pairs: the mean of both orders above 1/2.

Differs:
  | what | official code | here |
  | reward_bench, order for a judge | not seeded | by the seed |
  | reward_bench, no item of a section | the section scores 0 | left out |
  | reward_bench_2 by a pair judge | four at once, or ratings | a ranking of
    `agents.pair_judge`: ours |
  | vl_reward_bench, order of the votes | shuffled | as given |

Reference: allenai/reward-bench (`constants.py`, `utils.py`), arXiv 2403.13787,
2506.01937; JudgeBench (`metrics.py`), arXiv 2410.12784; RM-Bench (README),
arXiv 2410.16184; VL-RewardBench (`cal.py`), arXiv 2411.17451; GRAM
(`gram_eval.py`), arXiv 2506.14175.
"""
from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

import numpy as np

from rljax.evaluation import intervals


@dataclasses.dataclass(frozen=True)
class Tally:
  """Credits of items, and the averages that are made of them."""
  credit_I: np.ndarray   # in [0, 1]; NaN where the rule leaves an item out
  stratum_I: np.ndarray  # what an average may weigh items by
  averages: Mapping[str, Mapping[str, float] | None]  # weight of each stratum;
  # None: every item alike


def credit(preference, *, undecided: float) -> np.ndarray:
  """1 if the right response is preferred, 0 if not; ties and NaN as told."""
  preference = np.asarray(preference, np.float64)
  if np.any((preference < 0) | (preference > 1)):
    raise ValueError('Expected preferences in [0, 1] or NaN, got '
                     f'{np.nanmin(preference)} to {np.nanmax(preference)}. '
                     'Compare scores with `of_scores` first.')
  return np.where(preference > 0.5, 1.0,
                  np.where(preference < 0.5, 0.0, undecided))


def of_scores(right, wrong) -> np.ndarray:
  """Preferences of a scalar model: 1, 0, and 1/2 of equal scores."""
  right, wrong = np.asarray(right), np.asarray(wrong)
  return np.where(right > wrong, 1.0, np.where(right < wrong, 0.0, 0.5))


def swap_average(preference_I2, group_I) -> Tally:
  """GRAM's accuracy: strictly more than half over both orders; no verdict in
  one of them is wrong.
  """
  mean_I = np.mean(_two_orders(preference_I2), axis=1)
  return _by_group(credit(mean_I, undecided=0.0), group_I)


def one_order(preference_I2, seed: int) -> np.ndarray:
  """preference_I of one order for each item, drawn by the seed."""
  preference_I2 = _two_orders(preference_I2)
  order_I = np.random.default_rng(seed).integers(2, size=len(preference_I2))
  return np.take_along_axis(preference_I2, order_I[:, None], axis=1)[:, 0]


def reward_bench(preference_I, subset_I, sections, *,
                 undecided: float) -> Tally:
  """RewardBench: sections weigh their subsets, the headline sections alike.

  Args:
    preference_I: of each pair; of a judge in `one_order`.
    subset_I: of each pair.
    sections: section -> subset -> weight, `data.reward_benchmarks.SECTIONS`.
    undecided: what ties and missing verdicts earn.
  """
  present = set(subset_I)
  found = {name: {subset: weight for subset, weight in some.items()
                  if subset in present} for name, some in sections.items()}
  found = {name: some for name, some in found.items() if some}
  unknown = sorted(present - set().union(*found.values()))
  if unknown:
    raise ValueError(f'Expected subsets of RewardBench, got {unknown}. Correct '
                     'them, or leave these items out.')
  headline = {subset: weight / sum(some.values())
              for some in found.values() for subset, weight in some.items()}
  return Tally(credit(preference_I, undecided=undecided),
               np.asarray(subset_I), {'overall': headline} | found)


def reward_bench_2(names: Sequence[str], scores: Sequence[Sequence[float]],
                   num_right: Sequence[int], subset_I, *,
                   shared: bool = True) -> Tally:
  """RewardBench 2: the best of four, and the score of ties.

  Args:
    names: of the items; of ties 'ref:<n>' and 'tied:<n>'.
    scores: of all responses of each item, the right ones first; NaN: none.
    num_right: how many of them are right.
    subset_I: of each item.
    shared: m responses with the best score get 1/m each, and all of an item
      with a missing score; or none anything.

  Returns:
    Items are those outside of ties, in their order, then the pairs of ties.
  """
  subset_I = np.asarray(subset_I)
  is_tie_I = np.array([name.lower() == 'ties' for name in subset_I], bool)
  credits, strata = [], []
  for i in np.flatnonzero(~is_tie_I):
    credits.append(_best_of(np.asarray(scores[i], np.float64), shared))
    strata.append(str(subset_I[i]))
  ties = [(names[i], scores[i], num_right[i]) for i in np.flatnonzero(is_tie_I)]
  pairs = ties_scores(*zip(*ties, strict=True)) if ties else []
  return _by_group([*credits, *pairs], [*strata, *['Ties'] * len(pairs)],
                   micro=False)


def _best_of(score_G, shared: bool) -> float:
  """Credit of the first response; a missing score is a guess, or wrong."""
  best_G = score_G == score_G.max()
  if np.isnan(score_G).any():
    best_G = np.ones_like(best_G)
  return float(best_G[0] / best_G.sum()) if shared or best_G.sum() == 1 else 0.0


def ties_scores(names: Sequence[str], scores: Sequence[Sequence[float]],
                num_right: Sequence[int]) -> np.ndarray:
  """The score of each prompt with many right answers, and its reference.

    0.3 [tied is right] + 0.3 [reference is right] + 0.2 [g_tied > spread]
    + 0.2 [min(g_tied, g_ref) > spread] + 0.01 tanh(min(..)/spread - 1)

  g is the worst right score minus the best wrong one, spread the best right one
  minus the worst; right means g > 0. 0/0 counts as 0, and so does what lacks a
  score. The score of the subset is their mean, which may be 0.01 above 1 or
  below 0.

  Raises:
    ValueError: a prompt without its reference, or one right answer alone.
  """
  gaps, spreads = {}, {}
  for name, some, count in zip(names, scores, num_right, strict=True):
    score_G = np.asarray(some, np.float64)
    gaps[name] = score_G[:count].min() - score_G[count:].max()
    spreads[name] = np.ptp(score_G[:count])
  numbers = [name.partition(':')[2] for name in gaps if name.startswith('tied')]
  lonely = {f'{kind}:{n}' for n in numbers for kind in ('ref', 'tied')}
  lonely ^= set(gaps)
  alone = [name for name, count in zip(names, num_right, strict=True)
           if name.startswith('tied') and count < 2]
  if lonely or alone:
    raise ValueError(
        'Expected a prompt ref:<n> for each tied:<n>, with two right answers '
        f'or more, got {sorted(lonely)} alone and {alone} with one. Take the '
        'whole subset.')
  tied_I, ref_I, spread_I = (np.array([found[f'{kind}:{n}'] for n in numbers])
                             for found, kind in ((gaps, 'tied'), (gaps, 'ref'),
                                                 (spreads, 'tied')))
  least_I = np.minimum(tied_I, ref_I)
  with np.errstate(divide='ignore', invalid='ignore'):
    extra_I = np.nan_to_num(np.tanh(least_I / spread_I - 1), nan=0.0)
  return (0.3 * (tied_I > 0) + 0.3 * (ref_I > 0) + 0.2 * (tied_I > spread_I)
          + 0.2 * (least_I > spread_I) + 0.01 * extra_I)


def judge_bench(preference_I2, group_I, *, both: bool = False) -> Tally:
  """JudgeBench: right if the two orders say so on balance, or `both` do."""
  preference_I2 = _two_orders(preference_I2)
  right_I2 = credit(preference_I2, undecided=0.5) * 2 - 1
  found_I = np.all(right_I2 > 0, axis=1) if both else right_I2.sum(axis=1) > 0
  return _by_group(found_I.astype(np.float64), group_I)


def rm_bench(preference_ICC, domain_I, *,
             undecided: float = 0.0) -> dict[str, Tally]:
  """RM-Bench: easy, normal, hard and overall, as means over the domains.

  Args:
    preference_ICC: row: style of the right response (concise, detailed,
      detailed with markup); column: that of the wrong one.
    domain_I: of each item; the headline weighs domains alike.
    undecided: what a tie earns.
  """
  credit_ICC = credit(preference_ICC, undecided=undecided)
  if credit_ICC.shape[1:] != (3, 3):
    raise ValueError('Expected preferences as [items, 3, 3], got shape '
                     f'{list(credit_ICC.shape)}.')
  row, column = np.indices((3, 3))
  cells = dict(overall=row >= 0, easy=row > column, normal=row == column,
               hard=row < column)
  return {name: _by_group(credit_ICC[:, chosen].mean(axis=1), domain_I)
          for name, chosen in cells.items()}


def vl_reward_bench(preference_IK, group_I, k: int, *,
                    strict: bool = False) -> Tally:
  """VL-RewardBench: the majority of the first k votes on each item.

  Args:
    preference_IK: of each vote, whatever order it saw; NaN or 1/2: no verdict.
    group_I: general, hallucination, reasoning.
    k: odd, at most K.
    strict: keep items with a vote that has no verdict; they are right if more
      than k/2 of all votes are.
  """
  preference_IK = np.asarray(preference_IK, np.float64)
  if preference_IK.ndim != 2 or not 1 <= k <= preference_IK.shape[1] or (
      k % 2 == 0):
    raise ValueError(f'Expected an odd k up to the number of votes, got k={k} '
                     f'and votes of shape {list(preference_IK.shape)}.')
  vote_IK = credit(preference_IK[:, :k], undecided=np.nan)
  right_I = (np.nansum(vote_IK, axis=1) > k / 2).astype(np.float64)
  silent_I = np.any(np.isnan(vote_IK), axis=1)
  return _by_group(right_I if strict else np.where(silent_I, np.nan, right_I),
                   group_I)


def summarize(tally: Tally, seed: int) -> dict[str, intervals.Interval | None]:
  """Every average with its interval over items; None without two items."""
  found = {}
  for name, weights in tally.averages.items():
    credit_I, stratum_I = _chosen(tally, weights, np.isfinite(tally.credit_I))
    if len(credit_I) < 2:
      found[name] = None
    elif weights is None:
      found[name] = intervals.bootstrap(credit_I, seed=seed)
    else:
      found[name] = intervals.grouped_bootstrap(
          credit_I, stratum_I, seed=seed, weights=weights)
  return found


def difference(a: Tally, b: Tally,
               seed: int) -> dict[str, intervals.Difference | None]:
  """b - a for every average, over the items that neither leaves out.

  Raises:
    ValueError: they are not of the same items.
  """
  if a.stratum_I.tolist() != b.stratum_I.tolist() or a.averages != b.averages:
    raise ValueError(
        f'Expected tallies of the same items and rule, got {len(a.stratum_I)} '
        f'and {len(b.stratum_I)} items, or other groups. Evaluate both models '
        'on the same file.')
  kept_I = np.isfinite(a.credit_I) & np.isfinite(b.credit_I)
  found = {}
  for name, weights in a.averages.items():
    (a_I, stratum_I), (b_I, _) = (_chosen(x, weights, kept_I) for x in (a, b))
    if len(a_I) < 2:
      found[name] = None
    elif weights is None:
      found[name] = intervals.paired_difference(a_I, b_I, seed=seed)
    else:
      found[name] = intervals.grouped_difference(
          a_I, b_I, stratum_I, seed=seed, weights=weights)
  return found


def _chosen(tally, weights, kept_I):
  """Credits and strata of the kept items that an average counts."""
  if weights is not None:
    kept_I = kept_I & np.isin(tally.stratum_I, list(weights))
  return tally.credit_I[kept_I], tally.stratum_I[kept_I]


def _by_group(credit_I, group_I, micro: bool = True) -> Tally:
  """Items alike (micro), groups alike (macro), and each group."""
  group_I = np.asarray(group_I)
  names = np.unique(group_I).tolist()
  averages = {'micro': None} if micro else {}
  return Tally(np.asarray(credit_I, np.float64), group_I, averages | {
      'macro': dict.fromkeys(names, 1.0)} | {
          name: {name: 1.0} for name in names})


def _two_orders(preference_I2) -> np.ndarray:
  preference_I2 = np.asarray(preference_I2, np.float64)
  if preference_I2.ndim != 2 or preference_I2.shape[1] != 2:
    raise ValueError('Expected preferences of both orders as [items, 2], got '
                     f'shape {list(preference_I2.shape)}. Show each pair both '
                     'ways.')
  return preference_I2
