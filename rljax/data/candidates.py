"""Compared responses as token ids, each behind its prompt, for reward heads.

Responses that do not fit are cut at their ends, all to the same number of
tokens, so that length cannot say which was preferred. A prompt is never cut.
Responses with a special token written out in them are left out, as those of
pairs are that have a stop token inside: nobody could have sampled them.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from typing import Callable

import numpy as np

from rljax.data import chat
from rljax.data import preference_forms as forms
from rljax.data import preference_tokens
from rljax.data.preference import Record
from rljax.data.tokenizer import Tokenizer
from rljax.types import ComparedTexts

# What becomes of a record; all but the first two leave it out.
STATUSES = ('whole', 'cut', 'no_room', 'same_after_cut',
            'special_token_inside')


def ranked(record: Record) -> tuple[list[str], list[int]]:
  """The responses of a pair or of a list, best first, and their ranks."""
  responses = record['responses'] if 'responses' in record else [
      record['chosen'], record['rejected']]
  return list(responses), list(range(len(responses)))


def texts(tokenizer: Tokenizer, record: Record,
          max_length: int) -> tuple[ComparedTexts | None, str]:
  """The candidates of a record within so many tokens together, and a status.

  Args:
    tokenizer: with a chat template.
    record: a pair, or a list with its best response first.
    max_length: of all texts together, the prompt counted once, as it is stored.
  """
  responses, ranks = ranked(record)
  if any(chat.has_special(tokenizer, response, may_end=True)
         for response in responses):
    return None, 'special_token_inside'
  # A list says nothing of where its responses end.
  ends = [True] * len(responses) if 'responses' in record else [
      record.get(field, True) for field in forms.ENDS.values()]
  pairs = [preference_tokens.prompt_and_response(
      tokenizer, record['prompt'], response, ends=end)
           for response, end in zip(responses, ends, strict=True)]
  prompt = pairs[0][0]
  answers = [answer for _, answer in pairs]
  most = preference_tokens.equal_budget(
      [len(answer) for answer in answers],
      max_length - len(prompt))
  if most < 1:
    return None, 'no_room'
  cut = [answer[:most] for answer in answers]
  if len({answer.tobytes() for answer in cut}) < len(cut):
    return None, 'same_after_cut'
  margin = record.get('margin')
  found = ComparedTexts(
      tuple(np.concatenate([prompt, answer]) for answer in cut), tuple(ranks),
      0.0 if margin is None else float(margin))
  return found, 'whole' if most >= max(map(len, answers)) else 'cut'


def all_of(records: Iterable[Record],
           make: Callable[[Record], tuple[Any | None, str]]
           ) -> tuple[list[Any], dict[str, int]]:
  """What `make` gives for each record, without those left out, and counts."""
  kept, counts = [], dict.fromkeys(STATUSES, 0)
  for record in records:
    found, status = make(record)
    counts[status] += 1
    if found is not None:
      kept.append(found)
  return kept, counts
