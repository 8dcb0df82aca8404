"""From the answers of a model to the numbers of a benchmark.

Every benchmark has its official rule first, and beside it the other way to
count ties and missing verdicts; a judge also has GRAM's swap average. Pairs of
one right and one wrong response are measured for calibration and biases too.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.evaluation import evaluate_rewards_answers as answers_lib
from rljax.agents import pair_judge
from rljax.data import reward_benchmarks as files
from rljax.evaluation import calibration
from rljax.evaluation import over_optimisation
from rljax.evaluation import reward_benchmarks as rules
from rljax.evaluation import reward_bias

PAIRS = ('reward_bench', 'judge_bench')
_VOTES = (1, 3, 5, 7, 9)

Items = Sequence[files.Item]
Answers = Sequence[answers_lib.Answer]


def tallies(benchmark: str, items: Items, answers: Answers, *, seed: int,
            ranking: str) -> dict[str, rules.Tally]:
  """Rule -> credits; the official rule is the first.

  Args:
    benchmark: any but best_of_n, which has no right responses.
    items: of it.
    answers: one for each item.
    seed: of the orders that a judge of RewardBench is shown.
    ranking: how a judge has ranked the lists of RewardBench 2.
  """
  group_I = [item.group for item in items]
  if benchmark == 'reward_bench_2':
    return _reward_bench_2(items, answers, group_I, ranking, seed)
  scalar = answers[0].scores is not None
  find = dict(reward_bench=_reward_bench, judge_bench=_judge_bench,
              rm_bench=_rm_bench, vl_reward_bench=_vl_reward_bench)[benchmark]
  return find(items, answers, group_I, scalar, seed)


def pair_preferences(answers: Answers) -> np.ndarray:
  """preference_I2 of the right response, shown first and shown second."""
  return np.array([answer.preference(0, 1) for answer in answers])


def counts(items: Items, answers: Answers) -> dict[str, int]:
  """Items, ties, votes and scores that are missing, and what a judge cost."""
  ties, silent = 0, 0
  for item, answer in zip(items, answers, strict=True):
    if answer.scores is None:
      said = np.array([vote[3] for vote in answer.votes])
      silent += int(np.isnan(said).sum())
      ties += int(np.sum(said == 0.5))
      continue
    silent += int(np.isnan(answer.scores).sum())
    if item.num_right:
      right, wrong = (np.array(part) for part in (
          answer.scores[:item.num_right], answer.scores[item.num_right:]))
      ties += int(np.sum(right[:, None] == wrong))
  return dict(items=len(items), ties=ties, unparsed=silent,
              judge_calls=sum(len(answer.votes) for answer in answers))


def calibrations(answers: Answers, *, seed: int,
                 num_bins: int) -> dict | None:
  """Before and after a temperature; None for verdicts, which predict nothing.

  None also of too few pairs, or if those to fit a temperature on are all ties.
  Pairs without a preference are left out and counted.
  """
  if answers[0].scores is not None:
    margin_I = np.array([answer.scores[0] - answer.scores[1]
                         for answer in answers])
  else:
    said_I2 = pair_preferences(answers)
    if np.all(np.isnan(said_I2) | np.isin(said_I2, (0, 0.5, 1))):
      return None
    margin_I = calibration.logit(said_I2.mean(axis=1))
  kept_I = np.isfinite(margin_I)
  if kept_I.sum() < 4:
    return None
  halves = calibration.before_and_after(
      margin_I[kept_I], seed=seed, num_bins=num_bins)
  if halves is None:
    return None
  before, after = halves
  return dict(left_out=int(np.sum(~kept_I)), before=before, after=after)


def biases(items: Items, answers: Answers, *, seed: int) -> dict:
  """Length in characters, position (of judges), and policies (where named)."""
  preference_I2 = pair_preferences(answers)
  mean_I = preference_I2.mean(axis=1)
  length = lambda k: [len(item.responses[k]) for item in items]
  named = [i for i, item in enumerate(items) if item.models]
  policies = lambda k: [items[i].models[k] for i in named]
  return dict(
      length=reward_bias.length_bias(mean_I, length(0), length(1), seed=seed),
      position=None if answers[0].scores is not None else (
          reward_bias.position_bias(preference_I2, seed=seed)),
      policies=reward_bias.policy_bias(mean_I[named], policies(0), policies(1),
                                       seed=seed) if named else [])


def check_sizes(items: Items):
  """Refuses prompts of best_of_n with different numbers of responses."""
  sizes = sorted({len(item.responses) for item in items})
  if len(sizes) != 1 or len(items) < 2:
    raise ValueError(
        'Expected two prompts or more of best_of_n with as many responses each,'
        f' got {len(items)} with {sizes}. Cut them to {sizes[0]}.')


def check_ranking(benchmark: str, items: Items, ranking: str):
  """Refuses a knockout where all responses are scored: it finds the best.

  Raises:
    ValueError: best_of_n, whose curve needs an order, or items of ties.
  """
  if ranking not in pair_judge.RANKINGS:
    raise ValueError(f'Expected ranking among {pair_judge.RANKINGS}, got '
                     f'{ranking!r}. Correct it.')
  ties = benchmark == 'reward_bench_2' and any(
      item.group.lower() == 'ties' for item in items)
  if ranking == 'knockout' and (ties or benchmark == 'best_of_n'):
    raise ValueError(
        "Expected ranking='round_robin' or 'anchor' with "
        f'{"ties of reward_bench_2" if ties else "best_of_n"}, which need a '
        "score for each response, got 'knockout'. Change it, or leave them "
        'out.')


def best_of_n(items: Items, answers: Answers, *, seed: int,
              ranking: str) -> over_optimisation.Curve:
  """The curve of gold and proxy.

  Raises:
    ValueError: a response without a score: it could not be ordered.
  """
  check_sizes(items)
  proxy_PG = np.array(_scores(items, answers, ranking, seed))
  gold_PG = np.array([item.gold for item in items])
  return over_optimisation.curve(proxy_PG, gold_PG, seed=seed)


def _scores(items, answers, ranking, seed) -> list[np.ndarray]:
  return [answers_lib.ranked(answer, item, ranking, seed)
          for item, answer in zip(items, answers, strict=True)]


def _reward_bench(items, answers, group_I, scalar, seed):
  preference_I2 = pair_preferences(answers)
  make = lambda preference_I, undecided: rules.reward_bench(
      preference_I, group_I, files.SECTIONS, undecided=undecided)
  if scalar:
    return {'official': make(preference_I2[:, 0], 0.0),
            'ties half': make(preference_I2[:, 0], 0.5)}
  one_I = rules.one_order(preference_I2, seed)
  return {'official': make(one_I, 0.5), 'undecided wrong': make(one_I, 0.0),
          'swap average': make(preference_I2.mean(axis=1), 0.0)}


def _reward_bench_2(items, answers, group_I, ranking, seed):
  names, right = zip(*((item.name, item.num_right) for item in items),
                     strict=True)
  scores = _scores(items, answers, ranking, seed)
  return {label: rules.reward_bench_2(names, scores, right, group_I,
                                      shared=shared)
          for label, shared in (('official', True), ('ties wrong', False))}


def _judge_bench(items, answers, group_I, scalar, seed):
  del items, scalar, seed
  preference_I2 = pair_preferences(answers)
  return {'official': rules.judge_bench(preference_I2, group_I),
          'both orders right': rules.judge_bench(preference_I2, group_I,
                                                 both=True),
          'swap average': rules.swap_average(preference_I2, group_I)}


def _rm_bench(items, answers, group_I, scalar, seed):
  del items, scalar, seed
  preference_ICC = np.array([
      [[np.mean(answer.preference(i, 3 + j)) for j in range(3)]
       for i in range(3)] for answer in answers])
  official, half = (rules.rm_bench(preference_ICC, group_I, undecided=undecided)
                    for undecided in (0.0, 0.5))
  return ({'official': official['overall'], 'ties half': half['overall']}
          | {name: official[name] for name in ('easy', 'normal', 'hard')})


def _vl_reward_bench(items, answers, group_I, scalar, seed):
  del items, seed
  if scalar:
    preference_IK = pair_preferences(answers)[:, :1]
  else:
    preference_IK = np.array([
        [vote[3] if vote[0] == 0 else 1 - vote[3]
         for vote in sorted(answer.votes, key=lambda vote: vote[2])]
        for answer in answers])
  found = {}
  for k in _VOTES[::-1]:  # the most votes first
    if k <= preference_IK.shape[1]:
      found[f'official, k={k}'] = rules.vl_reward_bench(
          preference_IK, group_I, k)
      found[f'strict, k={k}'] = rules.vl_reward_bench(
          preference_IK, group_I, k, strict=True)
  return found
