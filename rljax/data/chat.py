"""Conversations as token ids, with a mask of the tokens to be learnt.

A model is trained on what it must write itself: the content of each message of
a trained role and the token that ends it. Role headers are given to the model
at generation, so they are never targets.
"""
from __future__ import annotations

from typing import Sequence

import numpy as np

from rljax.data.tokenizer import HuggingFaceTokenizer
from rljax.data.tokenizer import Message
from rljax.data.tokenizer import Tokenizer


def render(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    add_generation_prompt: bool,
) -> np.ndarray:
  """Token ids of a conversation, int32."""
  _check_messages(messages)
  ids = tokenizer.apply_chat_template(messages, add_generation_prompt)
  return np.asarray(ids, np.int32)


def prompt_tokens(
    tokenizer: Tokenizer, prompt: str, system: str | None = None
) -> np.ndarray:
  """Token ids from which a response to `prompt` is to be generated."""
  first = [] if system is None else [{'role': 'system', 'content': system}]
  messages = [*first, {'role': 'user', 'content': prompt}]
  return render(tokenizer, messages, add_generation_prompt=True)


def has_special(tokenizer: Tokenizer, text: str, *,
                may_end: bool = False) -> bool:
  """Whether a special token is written out in a text.

  In a conversation it would be read as what it says, the end of a turn or the
  beginning of another one, and not as somebody's words.

  Args:
    tokenizer: that reads the text.
    text: of one message, or of a part of it.
    may_end: whether stop tokens at its end, where they belong, do not count.
  """
  ids = tokenizer.encode(text)
  while may_end and ids and ids[-1] in tokenizer.stop_ids:
    ids = ids[:-1]
  return not tokenizer.special_ids.isdisjoint(ids)


def training_example(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    train_roles: Sequence[str] = ('assistant',),
) -> tuple[np.ndarray, np.ndarray]:
  """Returns token ids (int32) and the mask of those to be learnt (bool)."""
  _check_messages(messages)
  roles = [message['role'] for message in messages]
  if not set(roles) & set(train_roles):
    raise ValueError(
        f'Expected a message of a role in {tuple(train_roles)}, got {roles}; '
        'an example without targets teaches nothing.')
  own_mask = (isinstance(tokenizer, HuggingFaceTokenizer)
              and tuple(train_roles) == ('assistant',)
              and tokenizer.marks_assistant_tokens())
  if own_mask:
    ids, mask = tokenizer.assistant_tokens(messages)
    mask = np.asarray(mask, bool)
    if not mask.any():
      raise ValueError(
          'Expected the chat template to mark the assistant tokens, got an '
          'empty mask; a fast tokenizer is needed for generation tags.')
    tokens = np.asarray(ids, np.int32)
    # A template may close its tag before the end token; without that token
    # among the targets the model never learns to stop.
    mask[1:] |= mask[:-1] & np.isin(tokens[1:], tokenizer.stop_ids)
    return tokens, mask
  return _mask_by_prefixes(tokenizer, messages, train_roles)


def _mask_by_prefixes(tokenizer, messages, train_roles):
  """Targets are what a message adds to the rendering of those before it."""
  tokens = render(tokenizer, messages, add_generation_prompt=False)
  mask = np.zeros(len(tokens), bool)
  for i, message in enumerate(messages):
    if message['role'] not in train_roles:
      continue
    before = _before(tokenizer, messages, i)
    upto = render(tokenizer, messages[:i + 1], add_generation_prompt=False)
    _check_prefix(before, tokens, i)
    _check_prefix(upto, tokens, i)
    stop = _end_of_message(tokenizer, upto, len(before))
    mask[len(before):stop] = True
  return tokens, mask


def _before(tokenizer, messages, i):
  """Rendering up to where the content of message i begins."""
  if messages[i]['role'] == 'assistant':
    return render(tokenizer, messages[:i], add_generation_prompt=True)
  # Only the assistant has a generation prompt; for other roles the header is
  # what two different contents have in common.
  versions = [
      render(tokenizer, [*messages[:i], dict(messages[i], content=content)],
             add_generation_prompt=False) for content in ('0', '1')]
  length = min(len(version) for version in versions)
  differs = versions[0][:length] != versions[1][:length]
  return versions[0][:int(np.argmax(differs))]


def _end_of_message(tokenizer, upto, start):
  """Just after the last stop token: templates may add a newline behind it."""
  stops = np.flatnonzero(np.isin(upto[start:], tokenizer.stop_ids))
  return start + int(stops[-1]) + 1 if len(stops) else len(upto)


def _check_prefix(prefix, tokens, i):
  if len(prefix) <= len(tokens) and np.array_equal(
      prefix, tokens[:len(prefix)]):
    return
  raise ValueError(
      f'Expected the conversation up to message {i} to be rendered as a prefix '
      'of the whole, got different tokens: this chat template rewrites earlier '
      'turns. Use a template with {% generation %} tags, or split the '
      'conversation into one example per answer.')


def _check_messages(messages):
  for i, message in enumerate(messages):
    if set(message) != {'role', 'content'}:
      raise ValueError(
          f"Expected each message to have 'role' and 'content', got message "
          f'{i} with {sorted(message)}; rename or add the fields.')
