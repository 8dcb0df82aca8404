"""Benchmarks of reward models, read from local files.

Each is one JSON object a line; RM-Bench comes as one JSON list, which is read
too. A data set that is published as parquet becomes JSONL by its own library
(`dataset.to_json`). Columns that are not named here are ignored; a missing or
wrong one is an error with file, line and field.

  name            columns read
  reward_bench    id, prompt, chosen, rejected, subset;
                  chosen_model, rejected_model if there
  reward_bench_2  id, prompt, chosen[], rejected[], subset;
                  num_correct, total_completions if there
  judge_bench     pair_id, source, question, response_A, response_B, label
  rm_bench        id, prompt, chosen[3], rejected[3], domain
  vl_reward_bench id, query, response[2], human_ranking[2], image_path;
                  models[2] if there
  best_of_n       ours: id, prompt, responses[], gold[]

Confirmed in published files or code: the columns of RewardBench (data card of
allenai/reward-bench) and RewardBench 2 (allenai/reward-bench
`scripts/run_v2.py`; that the responses of ties are named ref:<n> and tied:<n>),
JudgeBench and RM-Bench (their READMEs), VL-RewardBench (its `data.jsonl`, and
`cal.py` for the groups of its folders). Rank 0 is the better response there, by
`inference_hf.py`. Not confirmed: that RM-Bench pools its two kinds of safety
prompts into one domain, as we do; other people's code does.
"""
from __future__ import annotations

from collections.abc import Callable
import dataclasses
import json
import math
import pathlib
from typing import Any

from rljax.data.builders import lines

# Items by subset, as RewardBench weighs them. There are 447 of math-prm: it
# shall weigh as much as the six sets of code together.
_CHAT = {'alpacaeval-easy': 100, 'alpacaeval-length': 95,
         'alpacaeval-hard': 95, 'mt-bench-easy': 28, 'mt-bench-med': 40}
_CHAT_HARD = {'mt-bench-hard': 37, 'llmbar-natural': 100,
              'llmbar-adver-neighbor': 134, 'llmbar-adver-GPTInst': 92,
              'llmbar-adver-GPTOut': 47, 'llmbar-adver-manual': 46}
_SAFETY = {'refusals-dangerous': 100, 'refusals-offensive': 100,
           'xstest-should-refuse': 250, 'xstest-should-respond': 154,
           'donotanswer': 136}
_REASONING = {'math-prm': 984} | dict.fromkeys(
    ('hep-cpp', 'hep-go', 'hep-java', 'hep-js', 'hep-python', 'hep-rust'), 164)
SECTIONS: dict[str, dict[str, int]] = {
    'Chat': _CHAT, 'Chat Hard': _CHAT_HARD, 'Safety': _SAFETY,
    'Reasoning': _REASONING}
_JUDGE_GROUPS = {'mmlu-pro': 'knowledge', 'livebench-reasoning': 'reasoning',
                 'livebench-math': 'math', 'livecodebench': 'coding'}
_RM_DOMAINS = {'chat': 'chat', 'code': 'code', 'math': 'math',
               'safety-refuse': 'safety', 'safety-response': 'safety'}
_VL_GROUPS = {'vlfeedback': 'general', 'wildvision-battle': 'general',
              'povid': 'hallucination', 'rlaif-v': 'hallucination',
              'rlhf-v': 'hallucination', 'reasoning_tasks': 'reasoning'}


@dataclasses.dataclass(frozen=True)
class Item:
  """A prompt and its responses, the right ones first."""
  name: str                    # its id, unique in the file
  prompt: str
  responses: tuple[str, ...]
  num_right: int
  group: str                   # what the scores are averaged by
  models: tuple[str, ...] = ()  # who wrote the responses; (): not said
  image: str = ''              # its path beside the data; nobody is shown it
  gold: tuple[float, ...] = ()  # of best_of_n: the true reward of each


def read(name: str, path: str | pathlib.Path) -> list[Item]:
  """The items of a benchmark, in the order of the file.

  Raises:
    ValueError: an unknown benchmark, a bad line, or an id that stands twice.
  """
  if name not in READERS:
    raise ValueError(f'Expected a benchmark among {sorted(READERS)}, got '
                     f'{name!r}. Correct the name.')
  items, lines_of = [], {}
  for where, row in _rows(pathlib.Path(path).expanduser()):
    item = READERS[name](_Row(row, where))
    if item.name in lines_of:
      raise ValueError(f'Expected an id of its own in {where}, got '
                       f'{item.name!r} of {lines_of[item.name]} again. Remove '
                       'one of them.')
    lines_of[item.name] = where
    items.append(item)
  return items


def _rows(path: pathlib.Path) -> list[tuple[str, dict[str, Any]]]:
  if path.suffix != '.json':
    return [(f'{path}, line {number}', row)
            for number, row in lines.objects(path)]
  try:
    rows = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise ValueError(f'Expected a JSON list in {path}, got what cannot be read '
                     f'({error}). Repair it, or name another.') from error
  if not isinstance(rows, list) or not rows or not all(
      isinstance(row, dict) for row in rows):
    raise ValueError(f'Expected a JSON list of objects in {path}, got '
                     f'{type(rows).__name__}. One object a line is JSONL: name '
                     'such a file .jsonl.')
  return [(f'{path}, entry {i}', row) for i, row in enumerate(rows)]


class _Row:
  """Fields of an object, each checked when it is taken."""

  def __init__(self, row: dict[str, Any], where: str):
    self.row, self.where = row, where

  def take(self, field: str, what: str, test: Callable[[Any], bool]):
    if field not in self.row:
      raise ValueError(f'Expected the field {field!r} in {self.where}, got '
                       f'{sorted(self.row)}. Add it.')
    value = self.row[field]
    if not test(value):
      raise ValueError(f'Expected {what} in the field {field!r} of '
                       f'{self.where}, got {value!r:.200}. Correct it.')
    return value

  def text(self, field: str) -> str:
    """Not stripped; an empty response is a response."""
    return self.take(field, 'text', lambda x: isinstance(x, str))

  def name(self, field: str) -> str:
    return str(self.take(field, 'a name or a number', lambda x: isinstance(
        x, str | int) and not isinstance(x, bool) and x != ''))

  def texts(self, field: str, length: int | None = None) -> tuple[str, ...]:
    what = f'a list of {length or "some"} texts'
    return tuple(self.take(field, what, lambda x: isinstance(x, list)
                           and all(isinstance(text, str) for text in x)
                           and (len(x) == length if length else bool(x))))

  def among(self, field: str, known) -> str:
    return self.take(field, f'one of {sorted(known)}',
                     lambda x: isinstance(x, str) and x in known)

  def agrees(self, field: str, value: int):
    """Checks a number that the lists say too; it may be missing."""
    if field in self.row:
      self.take(field, f'{value}, as the lists have it,', lambda x: x == value)


def _reward_bench(row: _Row) -> Item:
  known = [str(row.row[name]) for name in ('chosen_model', 'rejected_model')
           if row.row.get(name)]
  return Item(f'{row.name("id")}', row.text('prompt'),
              (row.text('chosen'), row.text('rejected')), 1,
              row.among('subset', set().union(*SECTIONS.values())),
              models=tuple(known) if len(known) == 2 else ())


def _reward_bench_2(row: _Row) -> Item:
  name, group = row.name('id'), row.name('subset')
  right, wrong = row.texts('chosen'), row.texts('rejected')
  row.agrees('num_correct', len(right))
  row.agrees('total_completions', len(right + wrong))
  if group.lower() == 'ties':
    kind, _, number = name.partition(':')
    row.take('id', 'ref:<number> or tied:<number>, as it is of ties,',
             lambda _: kind in ('ref', 'tied') and number.isdigit())
  elif len(right) != 1:
    row.take('chosen', 'one text outside of ties', lambda _: False)
  return Item(name, row.text('prompt'), right + wrong, len(right), group)


def _judge_bench(row: _Row) -> Item:
  both = (row.text('response_A'), row.text('response_B'))
  if row.among('label', ('A>B', 'B>A')) == 'B>A':
    both = both[::-1]
  source = row.take(
      'source', f'what begins with one of {sorted(_JUDGE_GROUPS)}',
      lambda x: isinstance(x, str) and x.startswith(tuple(_JUDGE_GROUPS)))
  group = next(group for start, group in _JUDGE_GROUPS.items()
               if source.startswith(start))
  return Item(row.name('pair_id'), row.text('question'), both, 1, group)


def _rm_bench(row: _Row) -> Item:
  return Item(row.name('id'), row.text('prompt'),
              row.texts('chosen', 3) + row.texts('rejected', 3), 3,
              _RM_DOMAINS[row.among('domain', _RM_DOMAINS)])


def _vl_reward_bench(row: _Row) -> Item:
  both = row.texts('response', 2)
  models = row.texts('models', 2) if row.row.get('models') else ()
  if row.take('human_ranking', '[0, 1] or [1, 0]',
              lambda x: x in ([0, 1], [1, 0])) == [1, 0]:
    both, models = both[::-1], models[::-1]
  image = row.text('image_path')
  folder = pathlib.PurePosixPath(image).parent.name
  row.take('image_path', f'a path in one of the folders {sorted(_VL_GROUPS)}',
           lambda _: folder in _VL_GROUPS)
  return Item(row.name('id'), row.text('query'), both, 1, _VL_GROUPS[folder],
              models=models, image=image)


def _best_of_n(row: _Row) -> Item:
  responses = row.texts('responses')
  number = lambda x: (isinstance(x, int | float) and not isinstance(x, bool)
                      and math.isfinite(x))
  gold = row.take('gold', f'a list of {len(responses)} numbers',
                  lambda x: isinstance(x, list) and len(x) == len(responses)
                  and all(map(number, x)))
  return Item(row.name('id'), row.text('prompt'), responses, 0, 'all',
              gold=tuple(map(float, gold)))


READERS = dict(reward_bench=_reward_bench, reward_bench_2=_reward_bench_2,
               judge_bench=_judge_bench, rm_bench=_rm_bench,
               vl_reward_bench=_vl_reward_bench, best_of_n=_best_of_n)
