"""The forms in which preferences are published, one parser for each.

A parser takes a line's object and gives a record without its `file_line`, and
without an id where the line has none. What it cannot read is a ValueError that
names file, line and field; what cannot be learnt from is `Unfit`.
"""
from __future__ import annotations

import dataclasses
import re
import zlib

import numpy as np

from rljax.data import preference_fields as fields

Row = fields.Row
REASONS = (
    'identical',         # both responses say the same
    'empty_response',    # one says nothing
    'no_common_prompt',  # the responses are not to the same prompt
    'contradicted',      # the file's own scores say the opposite
    'tied',              # they say that neither is better
    'too_few',           # responses to compare
)
# Side of a pair -> field that says whether the response ends where its text
# does, or was cut off; it ends where nothing is said.
ENDS = {'chosen': 'chosen_ends', 'rejected': 'rejected_ends'}
_TURN = re.compile(r'\n\n(Human|Assistant):')
_ROLES = {'Human': 'user', 'Assistant': 'assistant'}


@dataclasses.dataclass(frozen=True)
class Options:
  """Of the forms from which a pair has to be picked."""
  seed: int
  other: str
  score: str


class Unfit(Exception):
  """A line that is well written but teaches nothing, or the wrong thing."""

  def __init__(self, reason: str, text: str):
    super().__init__(text)
    self.reason = reason


def hh_rlhf(row: Row, where: str, options: Options) -> Row:
  """Two dialogues that differ in the assistant's last turn alone."""
  del options
  fields.check_fields(row, where, ('chosen', 'rejected'))
  sides = [_dialogue(fields.text(row, side, where), side, where)
           for side in ('chosen', 'rejected')]
  (prompt, chosen), (other, rejected) = ((side[:-1], side[-1])
                                         for side in sides)
  if prompt != other or not prompt:
    raise Unfit('no_common_prompt',
                "expected 'chosen' and 'rejected' to differ in the last turn "
                f'alone, got turns {_first_difference(prompt, other)} apart')
  return _pair(prompt, chosen['content'], rejected['content'], None, 'hh_rlhf')


def ultrafeedback(row: Row, where: str, options: Options) -> Row:
  """The binarised form: lists of messages, with or without scores."""
  del options
  fields.check_fields(row, where, ('chosen', 'rejected'),
          ('prompt', 'prompt_id', 'messages', 'score_chosen', 'score_rejected',
           'source', 'margin'))
  sides = [fields.messages(row[side], side, where)
           for side in ('chosen', 'rejected')]
  for name, side in zip(('chosen', 'rejected'), sides, strict=True):
    fields.check_role(side, 'assistant', name, where)
  (prompt, chosen), (other, rejected) = ((side[:-1], side[-1])
                                         for side in sides)
  if prompt != other or not prompt:
    raise Unfit('no_common_prompt', "expected 'chosen' and 'rejected' to "
                'differ in the last message alone, got messages '
                f'{_first_difference(prompt, other)} apart')
  margin = _margin(row, where)
  # The same prompt may come with several pairs, so its id is not the line's.
  return _pair(prompt, chosen['content'], rejected['content'], margin,
               row.get('source', 'ultrafeedback'))


def ultrafeedback_raw(row: Row, where: str, options: Options) -> Row:
  """The best completion against another that scores less."""
  for field in ('instruction', 'completions'):
    fields.check_has(row, field, where)
  prompt = fields.prompt(row['instruction'], 'instruction', where)
  scored = [_completion(one, f"{where}, field 'completions[{i}]'", options)
            for i, one in enumerate(fields.list_of(row, 'completions', where))]
  if len(scored) < 2:
    raise Unfit('too_few', "expected two or more 'completions', got "
                f'{len(scored)}')
  best = max(range(len(scored)), key=lambda i: scored[i][1])
  less = [i for i, (_, value) in enumerate(scored) if value < scored[best][1]]
  if not less:
    raise Unfit('tied', f"expected 'completions' of different "
                f'{options.score!r}, got {scored[best][1]} for all')
  if options.other == 'random':
    rng = np.random.default_rng(
        [options.seed, zlib.crc32(row['instruction'].encode())])
    picked = less[int(rng.integers(len(less)))]
  else:
    picked = min(less, key=lambda i: scored[i][1])
  return _pair(prompt, scored[best][0], scored[picked][0],
               scored[best][1] - scored[picked][1],
               row.get('source', 'ultrafeedback'))


def reward_bench(row: Row, where: str, options: Options) -> Row:
  """A test pair; its subset is the domain."""
  del options
  fields.check_fields(
      row, where, ('prompt', 'chosen', 'rejected', 'subset', 'id'),
      ('chosen_model', 'rejected_model'))
  record = _pair(fields.prompt(row['prompt'], 'prompt', where),
                 fields.response(row, 'chosen', where),
                 fields.response(row, 'rejected', where), None,
                 fields.text(row, 'subset', where))
  return record | {'id': str(row['id'])}


def jsonl(row: Row, where: str, options: Options) -> Row:
  """A user's own pairs, and those that `experiments.make_pairs` writes."""
  del options
  fields.check_fields(row, where, ('prompt', 'chosen', 'rejected'),
          ('id', 'margin', 'domain', 'score_chosen', 'score_rejected',
           'provenance', *ENDS.values()))
  record = _pair(fields.prompt(row['prompt'], 'prompt', where),
                 fields.response(row, 'chosen', where),
                 fields.response(row, 'rejected', where), _margin(row, where),
                 fields.domain(row, where))
  return record | fields.own_id(row, where) | {
      field: fields.flag(row, field, where) for field in ENDS.values()
      if field in row}


def steps(row: Row, where: str, options: Options) -> Row:
  """The next step, right or wrong, of an answer that the prompt begins."""
  fields.check_has(row, 'prompt', where)
  prompt, begun = fields.begun(row['prompt'], 'prompt', where)
  return jsonl(row | {'prompt': prompt}, where, options) | {'steps': begun}


def labels(row: Row, where: str, options: Options) -> Row:
  """One response, and whether it is good: a pair without its other side."""
  del options
  fields.check_fields(row, where, ('prompt', 'response', 'label'),
                      ('id', 'domain'))
  response = fields.response(row, 'response', where)
  _check_texts([response], ['response'])
  good = fields.flag(row, 'label', where)
  return {'prompt': fields.prompt(row['prompt'], 'prompt', where),
          'chosen': response if good else '',
          'rejected': '' if good else response, 'margin': None,
          'domain': fields.domain(row, where), **fields.own_id(row, where)}


def ranked(row: Row, where: str, options: Options) -> Row:
  """A list of responses, best first."""
  del options
  return _responses(row, where)


def unlabeled(row: Row, where: str, options: Options) -> Row:
  """Two responses of which nobody has said which is better."""
  del options
  record = _responses(row, where)
  if len(record['responses']) != 2:
    raise ValueError(
        f"Expected two texts in the field 'responses' of {where}, got "
        f"{len(record['responses'])}; write two, or read the file as 'ranked'.")
  return record


PARSERS = {parser.__name__: parser for parser in (
    hh_rlhf, ultrafeedback, ultrafeedback_raw, reward_bench, jsonl, steps,
    labels, ranked, unlabeled)}


def _pair(prompt, chosen, rejected, margin, domain) -> Row:
  _check_texts([chosen, rejected], ['chosen', 'rejected'])
  return {'prompt': prompt, 'chosen': chosen, 'rejected': rejected,
          'margin': margin, 'domain': domain}


def _responses(row, where) -> Row:
  fields.check_fields(row, where, ('prompt', 'responses'), ('id', 'domain'))
  texts = fields.list_of(row, 'responses', where)
  for i, text in enumerate(texts):
    fields.as_text(text, f'responses[{i}]', where)
  if len(texts) < 2:
    raise Unfit('too_few', f"expected two or more 'responses', got "
                f'{len(texts)}')
  _check_texts(texts, [f'responses[{i}]' for i in range(len(texts))])
  return {'prompt': fields.prompt(row['prompt'], 'prompt', where),
          'responses': texts, 'domain': fields.domain(row, where),
          **fields.own_id(row, where)}


def _check_texts(texts, names):
  plain = [' '.join(text.split()) for text in texts]
  if not all(plain):
    raise Unfit('empty_response', f'expected text in {names[plain.index("")]}'
                ', got none')
  if len(set(plain)) < len(plain):
    raise Unfit('identical', f'expected different texts in {names}, got '
                'the same twice')


def _margin(row, where) -> float | None:
  """By how much the chosen one is better; refuses what says the opposite."""
  has = [field in row for field in ('score_chosen', 'score_rejected')]
  if any(has) and not all(has):
    raise ValueError(f"Expected both of 'score_chosen' and 'score_rejected' in "
                     f'{where}, got one; add the other or remove it.')
  margins = {}
  if all(has):
    margins['scores'] = (fields.number(row, 'score_chosen', where)
                         - fields.number(row, 'score_rejected', where))
  if row.get('margin') is not None:
    margins['margin'] = fields.number(row, 'margin', where)
  for name, value in margins.items():
    if value < 0:
      raise Unfit('contradicted', f"expected the chosen response to be the "
                  f'better one, got {name} that differ by {value}: the columns '
                  'may be swapped')
    if value == 0:
      raise Unfit('tied', f'expected different {name}, got no difference')
  return margins.get('margin', margins.get('scores'))


def _dialogue(text, field, where) -> list[Row]:
  """'\\n\\nHuman: ...\\n\\nAssistant: ...' as messages."""
  before, *pieces = _TURN.split(text)
  messages = [{'role': _ROLES[who], 'content': said.strip()}
              for who, said in zip(pieces[::2], pieces[1::2], strict=True)]
  if before.strip() or not messages or messages[0]['role'] != 'user':
    raise ValueError(
        f"Expected a dialogue that begins with '\\n\\nHuman:' in the field "
        f'{field!r} of {where}, got {text[:60]!r}; correct the line.')
  if messages[-1]['role'] != 'assistant':
    raise Unfit('empty_response', f"expected {field!r} to end with a turn of "
                f'the assistant, got {text[-60:]!r}')
  return messages


def _first_difference(a, b) -> str:
  shorter = min(len(a), len(b))
  same = next((i for i in range(shorter) if a[i] != b[i]), shorter)
  return f'from number {same} of {len(a) + 1} and {len(b) + 1}'


def _completion(one, where, options) -> tuple[str, float]:
  if not isinstance(one, dict):
    raise ValueError(f'Expected an object in {where}, got '
                     f'{type(one).__name__}; correct the line.')
  fields.check_has(one, 'response', where)
  fields.check_has(one, options.score, where)
  return (fields.as_text(one['response'], 'response', where),
          fields.number(one, options.score, where))
