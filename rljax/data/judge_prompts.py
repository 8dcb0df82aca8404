"""What a judge of pairs reads: one template for training and for every use.

  request, response A, response B, cue   ->   the label of the better one

Before it is trained on labels, it may learn to write both responses in the same
form, where the marks of the two stages are the same text. A pair that is too
long loses the ends of its responses, both at the same number of tokens; the cue
and the marks stay.

| in the official code | here |
|---|---|
| three templates, with and without the cue | one |
| a long pair loses its end, cue included | the ends of both responses |
| labels ' A' or 'A', by the settings | 'A', checked against the tokenizer |

Reference: GRAM (arXiv 2506.14175), its official code and data cards; the words
are ours.
"""
from __future__ import annotations

from typing import Callable
from typing import Sequence

import numpy as np

from rljax import prompts
from rljax.data import candidates
from rljax.data import chat
from rljax.data import preference
from rljax.data import preference_tokens
from rljax.data.preference import Record
from rljax.data.tokenizer import Message
from rljax.data.tokenizer import Tokenizer
from rljax.types import ComparedTexts

LABELS = ('A', 'B')


def label_ids(tokenizer: Tokenizer) -> tuple[int, int]:
  """The token of each label.

  Raises:
    ValueError: a label that is not one token of this tokenizer.
  """
  found = [tokenizer.encode(label) for label in LABELS]
  for label, ids in zip(LABELS, found, strict=True):
    if len(ids) != 1:
      raise ValueError(
          f'Expected a judge label to be one token, got {ids} for {label!r}: a '
          'judge label of more than one token has no logit of its own. Use a '
          'tokenizer that knows single letters.')
  return found[0][0], found[1][0]


def question(prompt: Sequence[Message]) -> str:
  """A conversation as the judge reads it; one message is its own text."""
  if len(prompt) == 1:
    return prompt[0]['content']
  return '\n'.join(f'{m["role"]}: {m["content"]}' for m in prompt)


def prompt_tokens(tokenizer: Tokenizer, prompt: Sequence[Message], first: str,
                  second: str, max_length: int
                  ) -> tuple[np.ndarray | None, str]:
  """Token ids up to where the label is predicted, and a status of STATUSES."""
  def render(first, second):
    return chat.prompt_tokens(tokenizer, prompts.load('gram_judge').substitute(
        question=question(prompt), pair=_pair(first, second)))
  return _fitted(tokenizer, render, first, second, max_length)


def comparison(tokenizer: Tokenizer, record: Record, max_length: int,
               seed: int) -> tuple[ComparedTexts | None, str]:
  """A labelled pair as the judge is trained on it, and a status of STATUSES.

  Which response is shown first is a coin of (seed, id).
  """
  first, second, is_first = preference.in_order(record, seed)
  tokens, status = prompt_tokens(tokenizer, record['prompt'], first, second,
                                 max_length)
  if tokens is None:
    return None, status
  return ComparedTexts((tokens,), (0, 1) if is_first else (1, 0)), status


def pretraining_example(tokenizer: Tokenizer, record: Record, max_length: int,
                        seed: int
                        ) -> tuple[tuple[np.ndarray, np.ndarray] | None, str]:
  """(token ids, targets) of both responses in a row, and a status of STATUSES.

  No label is looked at: which response comes first is a coin of (seed, id).
  """
  responses, _ = candidates.ranked(record)
  first, second = responses[:2] if preference.chosen_first(
      record['id'], seed) else responses[1::-1]

  def messages(first, second):
    asked = prompts.load('gram_pretraining').substitute(
        question=question(record['prompt']))
    return [{'role': 'user', 'content': asked},
            {'role': 'assistant', 'content': _pair(first, second)}]

  def render(first, second):
    return chat.render(tokenizer, messages(first, second), False)

  tokens, status = _fitted(tokenizer, render, first, second, max_length)
  if tokens is None:
    return None, status
  if status == 'cut':
    first, second = _cut(tokenizer, render, first, second, max_length)
  return chat.training_example(tokenizer, messages(first, second)), status


def _pair(first: str, second: str) -> str:
  return prompts.load('gram_pair').substitute(first=first, second=second)


def _fitted(tokenizer, render: Callable, first, second, max_length):
  whole = render(first, second)
  if len(whole) <= max_length:
    return whole, 'whole'
  texts = _cut(tokenizer, render, first, second, max_length)
  if texts is None:
    return None, 'no_room'
  if texts[0] == texts[1] and first != second:
    return None, 'same_after_cut'
  return render(*texts), 'cut'


def _cut(tokenizer, render, first, second, max_length):
  """Both texts to one number of tokens, or None where nothing fits."""
  ids = [list(tokenizer.encode(text)) for text in (first, second)]
  around = len(render(first, second)) - sum(map(len, ids))
  budget = preference_tokens.equal_budget(
      [len(x) for x in ids], max_length - around)
  # A text cut within a character, or at a merge, may take a token more.
  for size in range(budget, 0, -1):
    texts = [tokenizer.decode(x[:size]) for x in ids]
    if len(render(*texts)) <= max_length:
      return texts
  return None
