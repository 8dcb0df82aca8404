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
| labels ' A' or 'A', by the settings | the token that 'A' is behind a prompt |

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
  """The token of each label where it stands: behind the prompt of a judge.

  By itself a label may be another one, as a tokenizer that marks beginnings of
  words has '▁A' for the text 'A' and 'A' behind the header of an answer. All
  prompts end alike, so any of them says what a label adds to it.

  Raises:
    ValueError: a label that adds more or less than a token, or that changes the
      prompt's own tokens, or one token for both labels.
  """
  messages = asked('?', '1', '2')
  before = chat.render(tokenizer, messages, add_generation_prompt=True)
  found = []
  for label in LABELS:
    whole = np.asarray(tokenizer.with_answer(messages, label), np.int32)
    if not np.array_equal(before, whole[:len(before)]):
      raise ValueError(
          'Expected a judge prompt to keep its tokens with a label behind it, '
          f'got {before[-4:].tolist()} at its end and, with {label!r}, '
          f'{whole[max(len(before) - 4, 0):].tolist()}: no token of the prompt '
          'predicts the label. Use a chat template whose generation prompt '
          'ends where a token ends whatever follows.')
    found.append(whole[len(before):].tolist())
    if len(found[-1]) != 1:
      raise ValueError(
          f'Expected a judge label to be one token behind the prompt, got '
          f'{found[-1]} for {label!r}: a judge label of more than one token '
          'has no logit of its own. Use a tokenizer that knows single letters.')
  (first,), (second,) = found
  if first == second:
    raise ValueError(
        f'Expected a token of its own for each of the labels {LABELS}, got '
        f'{first} for both: it cannot say which response is better. Use a '
        'tokenizer that knows single letters.')
  return first, second


def question(prompt: Sequence[Message]) -> str:
  """A conversation as the judge reads it; one message is its own text."""
  if len(prompt) == 1:
    return prompt[0]['content']
  return '\n'.join(f'{m["role"]}: {m["content"]}' for m in prompt)


def asked(request: str, first: str, second: str) -> list[Message]:
  """What the judge is told, the responses in the order of showing."""
  return [{'role': 'user', 'content': prompts.load('gram_judge').substitute(
      question=request, pair=_pair(first, second))}]


def prompt_tokens(tokenizer: Tokenizer, prompt: Sequence[Message], first: str,
                  second: str, max_length: int
                  ) -> tuple[np.ndarray | None, str]:
  """Token ids up to where the label is predicted, and a status of STATUSES.

  A pair with a special token written out in it is not shown: the token would
  end the turn of who asks, and what is behind it could give the verdict itself.
  """
  def render(first, second):
    return chat.render(tokenizer, asked(question(prompt), first, second), True)
  if any(chat.has_special(tokenizer, text)
         for text in (question(prompt), first, second)):
    return None, 'special_token_inside'
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

  if any(chat.has_special(tokenizer, text)
         for text in (question(record['prompt']), first, second)):
    return None, 'special_token_inside'
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
