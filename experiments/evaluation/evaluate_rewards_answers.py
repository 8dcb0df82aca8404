"""What a reward model or a judge says of benchmark items, asked once and kept.

An answer is either a score for each response, or votes on pairs as they were
shown. `answers.jsonl` holds a line for each:

  {"model": "a", "benchmark": "rm_bench", "id": "7", "scores": [0.3, ...]}
  {"model": "b", "benchmark": "judge_bench", "id": "u",
   "votes": [[0, 1, 0, 0.8], ...]}

A vote is [response shown first, shown second, number of the call, preference
for the first: 1, 0, 0.5 for a tie, any probability, null without a verdict]. A
score is null where the text is too long for the model.
Responses are counted as `data.reward_benchmarks` lists them, right ones first.
Lists are asked for the pairs that `config.ranking` compares, in both orders.
A run that was stopped goes on from its file, which may hold several models. To
`evaluate_rewards_recorded` the file of a run, or of another program, must hold
the answers of one; its name may then be missing.
"""
from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import hashlib
import itertools
import json
import math
import pathlib

import numpy as np
import tqdm

from experiments.evaluation import evaluate_rewards_rankings as rankings
from rljax import journal
from rljax.agents import pair_judge
from rljax.data import reward_benchmarks as files

FILE = 'answers.jsonl'
LISTS = ('reward_bench_2', 'best_of_n')  # a judge ranks what it is shown


@dataclasses.dataclass(frozen=True)
class Answer:
  """Of one item: scores, or votes."""
  scores: tuple[float, ...] | None = None
  votes: tuple[rankings.Vote, ...] = ()

  def preference(self, i: int, j: int) -> list[float]:
    """Of response i over j: with i shown first, and with j shown first."""
    if self.scores is not None:
      a, b = self.scores[i], self.scores[j]
      if math.isnan(a) or math.isnan(b):
        return [math.nan] * 2
      return [1.0 if a > b else 0.0 if a < b else 0.5] * 2
    by_place = {vote[:2]: vote[3] for vote in self.votes}
    return [by_place[i, j], 1 - by_place[j, i]]


@dataclasses.dataclass(frozen=True)
class Model:
  """Who is asked: exactly one of the two callables."""
  name: str   # stands in the journal; another model, another name
  scorer: Callable[[Sequence[tuple[str, str]]], np.ndarray] | None = None
  # (pairs as they are shown, numbers of the calls) -> preference_N
  judge: Callable[[Sequence[pair_judge.Pair], Sequence[int]],
                  np.ndarray] | None = None


def votes_wanted(benchmark: str, index: int, *, num_votes: int,
                 seed: int) -> list[tuple[int, int, int]]:
  """What a judge is asked of an item of pairs: (shown first, second, call).

  All pairs in both orders that the rule of the benchmark compares. VL-
  RewardBench takes `num_votes` calls instead, each in an order that is drawn.
  """
  both = lambda pairs: [(*shown, 0) for i, j in pairs
                        for shown in ((i, j), (j, i))]
  if benchmark == 'vl_reward_bench':
    rng = np.random.default_rng([seed, index])
    return [(*((0, 1) if rng.random() < 0.5 else (1, 0)), call)
            for call in range(num_votes)]
  if benchmark == 'rm_bench':
    return both(itertools.product(range(3), range(3, 6)))
  return both([(0, 1)])


def ranked(answer: Answer, item: files.Item, ranking: str, seed: int,
           where: str = 'memory') -> np.ndarray:
  """score_G of an item of LISTS; of a judge as `rankings.scores`."""
  if answer.scores is not None:
    return np.array(answer.scores)
  return rankings.scores(answer.votes, item, ranking, seed, where)


def ask(model: Model, benchmark: str, items: Sequence[files.Item],
        path: pathlib.Path, *, num_votes: int, seed: int, chunk: int,
        ranking: str) -> list[Answer]:
  """Answers to all items; those in the file are not asked for again.

  Args:
    model: who is asked.
    benchmark: decides what is asked.
    items: of it.
    path: the journal.
    num_votes: see `votes_wanted`.
    seed: of the orders that are drawn.
    chunk: items between two additions to the journal.
    ranking: how a judge ranks LISTS.

  Raises:
    ValueError: scores of another shape, or infinite ones.
  """
  is_list = benchmark in LISTS
  find = _scored if model.scorer else _ranked if is_list else _judged

  def questions(i, item):
    if model.scorer:
      return []
    if is_list:
      return [ranking, rankings.order(item, ranking, seed)]
    return votes_wanted(benchmark, i, num_votes=num_votes, seed=seed)

  wanted = [questions(*one) for one in enumerate(items)]
  keys = [_key(model.name, benchmark, *both)
          for both in zip(items, wanted, strict=True)]
  found = _kept(path)
  missing = [i for i, key in enumerate(keys) if key not in found]
  with tqdm.tqdm(total=len(items), initial=len(items) - len(missing),
                 desc=benchmark, unit='item') as bar:
    for start in range(0, len(missing), chunk):
      part = missing[start:start + chunk]
      answers = find(
          model, [items[i] for i in part], [wanted[i] for i in part])
      journal.append(path, [
          _line(model.name, benchmark, items[i], answer) | {'key': keys[i]}
          for i, answer in zip(part, answers, strict=True)])
      found |= dict(zip((keys[i] for i in part), answers, strict=True))
      bar.update(len(part))
  return [found[key] for key in keys]


def from_line(row: dict) -> Answer:
  """The answer of a line of the file."""
  if row.get('scores') is not None:
    return Answer(scores=tuple(map(_nan, row['scores'])))
  return Answer(votes=tuple(
      (*map(int, vote[:3]), _nan(vote[3])) for vote in row['votes']))


def _scored(model, items, wanted) -> list[Answer]:
  del wanted
  texts = [(item.prompt, response) for item in items
           for response in item.responses]
  score_N = np.asarray(model.scorer(texts), np.float64)
  if score_N.shape != (len(texts),) or np.any(np.isinf(score_N)):
    raise ValueError(
        f'Expected a score for each of {len(texts)} texts, NaN where there is '
        f'none, got shape {list(score_N.shape)} with '
        f'{np.sum(np.isinf(score_N))} infinite ones. Correct the model.')
  ends = np.cumsum([len(item.responses) for item in items])[:-1]
  return [Answer(scores=tuple(map(float, part)))
          for part in np.split(score_N, ends)]


def _judged(model, items, wanted) -> list[Answer]:
  asked = [(item, vote) for item, votes in zip(items, wanted, strict=True)
           for vote in votes]
  found = iter(np.asarray(model.judge(
      [pair_judge.Pair(item.prompt, item.responses[i], item.responses[j])
       for item, (i, j, _) in asked], [call for _, (_, _, call) in asked]),
                          np.float64))
  return [Answer(votes=tuple((*vote, float(next(found))) for vote in votes))
          for votes in wanted]


def _ranked(model, items, wanted) -> list[Answer]:
  (ranking, _), *_ = wanted
  return [Answer(votes=tuple(votes)) for votes in rankings.ask(
      model.judge, items, [order for _, order in wanted], ranking)]


def _line(model: str, benchmark: str, item: files.Item,
          answer: Answer) -> dict:
  row = dict(model=model, benchmark=benchmark, id=item.name)
  if answer.scores is not None:
    return row | dict(scores=list(map(_null, answer.scores)))
  return row | dict(votes=[
      [*vote[:3], _null(vote[3])] for vote in answer.votes])


def _null(number: float) -> float | None:
  """NaN is no JSON."""
  return None if math.isnan(number) else number


def _nan(number: float | None) -> float:
  return math.nan if number is None else float(number)


def _kept(path: pathlib.Path) -> dict[str, Answer]:
  if not path.exists():
    return {}
  found = {}
  for line in path.read_text().splitlines():
    try:
      row = json.loads(line)
    except json.JSONDecodeError:  # the line that was cut
      continue
    found[row['key']] = from_line(row)
  return found


def _key(name: str, benchmark: str, item: files.Item, wanted) -> str:
  """Another text, another model or other questions are asked anew."""
  text = json.dumps([name, benchmark, item.name, item.prompt, item.responses,
                     wanted])
  return hashlib.sha256(text.encode()).hexdigest()[:24]

