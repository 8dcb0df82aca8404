"""Preferences as token ids: a prompt, two responses, and which tokens count.

Prompt and response are rendered together by the chat template, and the prompt
alone; the one must begin with the other, else the model would be asked for
tokens that it never predicts from this prompt. A response ends with one stop
token, which is learnt; what a template writes behind it is left out, since
nothing is generated there. A step of an answer has none: the prompt goes up to
the end of the steps before it.

A pair that does not fit is cut at the end of its responses, both to the same
number of tokens, so that length cannot say which was chosen. A prompt is never
cut: a pair whose prompt leaves no room is left out. Both are counted.
"""
from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import hashlib

import numpy as np

from rljax.data import chat
from rljax.data import preference_forms as forms
from rljax.data.preference import Record
from rljax.data.tokenizer import HuggingFaceTokenizer
from rljax.data.tokenizer import Message
from rljax.data.tokenizer import Tokenizer
from rljax.types import TokenPair

COUNTS = ('pairs', 'cut_pairs', 'cut_tokens_chosen', 'cut_tokens_rejected',
          'dropped_long_prompt', 'dropped_no_room', 'dropped_same_after_cut',
          'dropped_stop_token_inside', 'dropped_special_token_inside')


@dataclasses.dataclass(frozen=True)
class Limits:
  """How long what may be, in tokens."""
  max_prompt_length: int
  max_response_length: int  # of either response, its stop token included
  max_pair_length: int      # all that a pair stores, with one copy of its
                            # prompt or two
  prompt_copies: int = 1

  def __post_init__(self):
    if min(self.max_prompt_length, self.max_response_length,
           self.max_pair_length) < 1 or self.prompt_copies not in (1, 2):
      raise ValueError(f'Expected lengths of a token or more and 1 or 2 copies '
                       f'of the prompt, got {self}. Correct config.data.')


def prompt_and_response(
    tokenizer: Tokenizer,
    prompt: Sequence[Message],
    response: str,
    *,
    steps: str = '',
    ends: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
  """Token ids, int32, of a prompt up to where the answer begins, and of it.

  Args:
    tokenizer: with a chat template.
    prompt: messages.
    response: of the assistant.
    steps: with which its answer has begun; they are of the prompt.
    ends: False for a part of an answer, a step: no stop token is added.

  Raises:
    ValueError: the template writes another prompt once there is an answer,
      doubles its start token, or ends an answer without a stop token; or steps
      before an answer that ends.
  """
  if steps and ends:
    raise ValueError(
        f'Expected a response that does not end behind the steps of an answer, '
        f'got the steps {steps[:40]!r} and a stop token to be learnt. Set '
        'data.ends=False.')
  if steps:
    before = np.concatenate(
        prompt_and_response(tokenizer, prompt, steps, ends=False))
  else:
    before = chat.render(tokenizer, prompt, add_generation_prompt=True)
  whole = chat.render(tokenizer, [*prompt, {
      'role': 'assistant', 'content': steps + response}], False)
  _check_start(tokenizer, before)
  if len(whole) <= len(before) or not np.array_equal(
      before, whole[:len(before)]):
    if steps:
      raise ValueError(
          'Expected a step that begins where a token ends, got '
          f'{steps[-20:]!r} and {response[:20]!r}, which the tokenizer joins. '
          'Move the white space between them to the beginning of the response.')
    raise ValueError(
        'Expected the rendered prompt to be the beginning of prompt and '
        f'response, got {before[-8:].tolist()} at its end and '
        f'{whole[max(len(before) - 8, 0):len(before)].tolist()} in the whole '
        f'(response {response[:40]!r}): this chat template, or the tokenizer '
        'where they meet, changes one by the other. Use a template whose '
        'generation prompt is the beginning of an answer.')
  answer = whole[len(before):]
  stops = np.isin(answer, tokenizer.stop_ids)
  if not stops.any():
    if ends:
      raise ValueError(
          'Expected the chat template to end an answer with a stop token '
          f'({list(tokenizer.stop_ids)}), got {answer[-4:].tolist()}: the '
          'model would never learn to stop. Correct the template, or the stop '
          'tokens in generation_config.json.')
    return before, answer
  end = _first_of_last_run(stops)
  return before, answer[:end + 1 if ends else end]


def tokenize(tokenizer: Tokenizer, record: Record, *,
             ends: bool = True) -> TokenPair:
  """A pair's tokens, uncut; every response token counts."""
  steps = record.get('steps', '')
  found = {side: prompt_and_response(
      tokenizer, record['prompt'], record[side], steps=steps,
      ends=ends and record.get(field, True))
           for side, field in forms.ENDS.items() if record[side]}
  prompt = next(iter(found.values()))[0]
  # A label stands alone: its other side is not there, stop token and all.
  chosen, rejected = (found[side][1] if side in found else prompt[:0]
                      for side in forms.ENDS)
  return TokenPair(record['id'], prompt, chosen, rejected,
                   np.ones(len(chosen), bool), np.ones(len(rejected), bool),
                   record['margin'], record['domain'])


def cut(pair: TokenPair, limits: Limits) -> TokenPair | None:
  """The pair with both responses to one budget; None: there is no room."""
  prompt = len(pair.prompt)
  # One copy still repeats its last token: each response is predicted from it.
  stored = prompt + 1 if limits.prompt_copies == 1 else 2 * prompt
  budget = min(limits.max_response_length, equal_budget(
      [len(pair.chosen), len(pair.rejected)], limits.max_pair_length - stored))
  if budget < 1:
    return None
  return dataclasses.replace(pair, **{
      name: getattr(pair, name)[:budget] for name in (
          'chosen', 'rejected', 'chosen_mask', 'rejected_mask')})


def equal_budget(lengths: Sequence[int], room: int) -> int:
  """The most tokens of any one, such that all fit; below 1 nothing does."""
  if sum(lengths) <= room:
    return max(lengths)
  budget, left = 0, list(lengths)
  while left:
    budget = room // len(left)
    short = [length for length in left if length <= budget]
    if not short:
      return budget
    room -= sum(short)
    left = [length for length in left if length > budget]
  return budget


def tokenize_all(
    tokenizer: Tokenizer,
    records: Iterable[Record],
    limits: Limits,
    *,
    ends: bool = True,
) -> tuple[list[TokenPair], dict[str, int]]:
  """All pairs that fit, and COUNTS of what was cut and what was left out."""
  pairs, counts = [], dict.fromkeys(COUNTS, 0)
  for record in records:
    try:
      whole = tokenize(tokenizer, record, ends=ends)
    except ValueError as error:
      where = record['file_line'] or f'pair {record["id"]!r}'
      raise ValueError(f'{where}: {error}') from error
    reason, pair = _fitted(tokenizer, record, whole, limits)
    if reason:
      counts[f'dropped_{reason}'] += 1
      continue
    lost = {side: len(getattr(whole, side)) - len(getattr(pair, side))
            for side in ('chosen', 'rejected')}
    counts['pairs'] += 1
    counts['cut_pairs'] += any(lost.values())
    for side, tokens in lost.items():
      counts[f'cut_tokens_{side}'] += tokens
    pairs.append(pair)
  return pairs, counts


def digest(pairs: Iterable[TokenPair]) -> str:
  """Equal for pairs of equal ids, tokens and masks in equal order."""
  found = hashlib.sha256()
  for pair in pairs:
    found.update(f'{pair.id!r} {len(pair.prompt)} {len(pair.chosen)} '.encode())
    for part in (pair.prompt, pair.chosen, pair.rejected, pair.chosen_mask,
                 pair.rejected_mask):
      found.update(np.ascontiguousarray(part).tobytes())
  return found.hexdigest()[:16]


def _fitted(tokenizer, record, whole, limits):
  """(why the pair cannot be used, or '', what is left of it)."""
  if len(whole.prompt) > limits.max_prompt_length:
    return 'long_prompt', None
  pair = cut(whole, limits)
  if pair is None:
    return 'no_room', None
  sides = [getattr(whole, side) for side in ('chosen', 'rejected')]
  if any(np.isin(side[:-1], tokenizer.stop_ids).any() for side in sides):
    return 'stop_token_inside', None  # it would be taught to go on after it
  if any(chat.has_special(tokenizer, record[side], may_end=True)
         for side in ('chosen', 'rejected')):
    return 'special_token_inside', None  # it would be taught another's words
  if np.array_equal(pair.chosen, pair.rejected):
    return 'same_after_cut', None
  return '', pair


def _first_of_last_run(stops: np.ndarray) -> int:
  """Where the stop tokens that end an answer begin."""
  last = int(np.flatnonzero(stops)[-1])
  while last and stops[last - 1]:
    last -= 1
  return last


def _check_start(tokenizer, tokens):
  """Refuses a start token that template and tokenizer have both written."""
  start = tokenizer.inner.bos_token_id if isinstance(
      tokenizer, HuggingFaceTokenizer) else tokenizer.bos_id
  if start is not None and list(tokens[:2]) == [start, start]:
    raise ValueError(
        f'Expected one start token ({start}) before a prompt, got two: the '
        'chat template and the tokenizer both write it. Take it out of one.')
