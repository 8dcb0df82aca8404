"""Answers to benchmark items that a run or another program has recorded.

The file is that of `evaluate_rewards_answers`. It holds the answers of one
model: two would be measured as one that does not exist.
"""
from __future__ import annotations

from collections.abc import Sequence
import math
import pathlib

from experiments.evaluation import evaluate_rewards_answers as answers_lib
from rljax.data import reward_benchmarks as files
from rljax.data.builders import lines

Answer = answers_lib.Answer


def read(path: str | pathlib.Path, benchmark: str, items: Sequence[files.Item],
         *, num_votes: int, seed: int, ranking: str) -> list[Answer]:
  """Answers to all items, from the journal of a run or of another program.

  Args:
    path: of the file.
    benchmark: whose lines are read.
    items: of it.
    num_votes: as in `answers_lib.votes_wanted`.
    seed: of the orders that are drawn.
    ranking: how a judge ranks LISTS.

  Raises:
    ValueError: several models, two answers to an item or none, or a line that
      does not fit its item, or not the lines of the other items.
  """
  rows, answers, first = _rows(path), [], None
  for i, item in enumerate(items):
    if (benchmark, item.name) not in rows:
      raise ValueError(f'Expected an answer to item {item.name!r} of '
                       f'{benchmark} in {path}, got none. Record it, or leave '
                       'the benchmark out.')
    row, where = rows[benchmark, item.name]
    is_list = benchmark in answers_lib.LISTS
    answers.append(_checked(
        row, where, item, [] if is_list else answers_lib.votes_wanted(
            benchmark, i, num_votes=num_votes, seed=seed), benchmark))
    if is_list:
      answers_lib.ranked(answers[-1], item, ranking, seed, where)
    kind = _kind(benchmark, answers[-1])
    first = first or (kind, where)
    if kind != first[0]:
      raise ValueError(f'Expected {first[0]} in {where}, as in {first[1]}, got '
                       f'{kind}. Correct one of them.')
  return answers


def _rows(path) -> dict[tuple[str, str], tuple[dict, str]]:
  """(benchmark, id) -> (line, where it stands), of one model."""
  rows, begins = {}, {}
  for number, row in lines.objects(path):
    where = f'{path}, line {number}'
    for field in ('benchmark', 'id', *(row.keys() & {'model'})):
      if not isinstance(row.get(field), str):
        raise ValueError(f'Expected text in the field {field!r} of {where}, '
                         f'got {row.get(field)!r}. Correct it.')
    # Two of one model are an error too, but two models are named first.
    begins.setdefault(row.get('model'), number)
    rows.setdefault((row['benchmark'], row['id']), []).append((row, where))
  if len(begins) > 1:
    found = ', '.join(f'{"no name" if name is None else repr(name)} from line '
                      f'{number}' for name, number in begins.items())
    raise ValueError(
        f'Expected the answers of one model in {path}, got {found}. Copy the '
        "lines of one, by their field 'model', to a file of their own, and "
        'name that.')
  for (benchmark, name), found in rows.items():
    if len(found) > 1:
      raise ValueError(
          f'Expected one answer to item {name!r} of {benchmark}, got '
          f'{found[0][1]} and {found[1][1]}. Keep one of the lines: a run that '
          'asks in another way, by another ranking for instance, adds its own.')
  return {key: found for key, (found,) in rows.items()}


def _kind(benchmark: str, answer: Answer) -> str:
  """What must be the same for all items: the rules take them as one array."""
  if answer.scores is not None:
    return 'scores'
  return (f'{len(answer.votes)} votes' if benchmark == 'vl_reward_bench' else
          'votes')


def _checked(row, where: str, item: files.Item, wanted, benchmark) -> Answer:
  """An answer of the file, checked against what is asked of the item."""
  number = lambda x: isinstance(x, int | float) and math.isfinite(x)
  scores, votes = row.get('scores'), row.get('votes')
  if scores is not None:
    if not isinstance(scores, list) or len(scores) != len(
        item.responses) or not all(x is None or number(x) for x in scores):
      raise ValueError(
          f'Expected {len(item.responses)} numbers in the field \'scores\' of '
          f'{where}, one for each response, got {scores!r:.200}. Correct it.')
    return answers_lib.from_line(row)
  if not isinstance(votes, list) or not all(
      isinstance(vote, list) and len(vote) == 4 and all(map(number, vote[:3]))
      and (vote[3] is None or number(vote[3]) and 0 <= vote[3] <= 1)
      for vote in votes):
    raise ValueError(
        "Expected 'scores', or 'votes' as lists [first, second, call, "
        f'preference], in {where}, got {votes!r:.200}. Correct it.')
  places = range(len(item.responses))
  asked = [tuple(vote[:3]) for vote in votes]
  for i, vote in enumerate(asked):
    if not all(isinstance(x, int) for x in vote) or vote in asked[:i] or (
        vote[0] == vote[1] or not {*vote[:2]} <= {*places}):
      raise ValueError(
          "Expected votes [first, second, call, preference] in the field "
          f"'votes' of {where}, first and second two of the places "
          f'0 to {places[-1]}, each three once, got {votes[i]}. Correct it.')
  answer = answers_lib.from_line(row)
  # Votes in orders that somebody else has drawn are as good as ours.
  what = slice(2, 3) if benchmark == 'vl_reward_bench' else slice(3)
  lack = {vote[what] for vote in wanted} - {vote[what] for vote in answer.votes}
  if lack:
    raise ValueError(
        f"Expected votes {sorted(lack)[:4]} in the field 'votes' of {where}, "
        'got others. Ask for every pair in both orders.')
  return answer
