"""Text to token ids and back: an embedded byte tokenizer, or one by path.

Ids 0-255 are the bytes themselves, so any text survives the round trip; the
special tokens stand above them and no text can produce one. A Hugging Face
tokenizer is read from a local folder behind the same small interface, and
nothing is ever downloaded.
"""
from __future__ import annotations

import json
import pathlib
import re
from typing import Protocol
from typing import Sequence

Message = dict[str, str]  # {'role': ..., 'content': ...}
_GENERATION_TAG = re.compile(r'\{%-?\s*generation\s*-?%\}')


class Tokenizer(Protocol):
  """What the rest of the code may ask of a tokenizer."""
  vocab_size: int             # rows of the embedding table
  pad_id: int                 # a filler; masks say what is padding, not this
  stop_ids: tuple[int, ...]   # any of them ends a response
  special_ids: frozenset[int]  # not of text: ends of turns, headers, padding

  def encode(self, text: str) -> list[int]:
    """Ids of a text, with no special token added."""

  def decode(self, ids: Sequence[int]) -> str:
    """Text of ids, special tokens left out."""

  def apply_chat_template(
      self, messages: Sequence[Message], add_generation_prompt: bool
  ) -> list[int]:
    """Ids of a whole conversation, special tokens included."""

  def with_answer(self, messages: Sequence[Message], answer: str) -> list[int]:
    """Ids of a prompt and what is written behind it, made in one go."""


class ByteTokenizer:
  """256 bytes and a few special tokens; the vocabulary is padded to 272."""
  pad_id = 256
  bos_id = 257
  eos_id = 258  # ends a message, so it also ends a response
  role_ids = {'system': 259, 'user': 260, 'assistant': 261, 'tool': 262}
  vocab_size = 272  # a multiple of 16: shards and tiles evenly
  stop_ids = (eos_id,)
  special_ids = frozenset(range(pad_id, 263))

  def encode(self, text: str) -> list[int]:
    return list(text.encode('utf-8'))

  def decode(self, ids: Sequence[int]) -> str:
    outside = [int(i) for i in ids if not 0 <= int(i) < self.vocab_size]
    if outside:
      raise ValueError(
          f'Expected token ids in [0, {self.vocab_size}), got {outside[:5]}; '
          'decode with the tokenizer that made them.')
    raw = bytes(int(i) for i in ids if int(i) < 256)
    return raw.decode('utf-8', errors='replace')

  def apply_chat_template(
      self, messages: Sequence[Message], add_generation_prompt: bool
  ) -> list[int]:
    ids = [self.bos_id]
    for message in messages:
      ids.append(self._role_id(message['role']))
      ids.extend(self.encode(message['content']))
      ids.append(self.eos_id)
    if add_generation_prompt:
      ids.append(self.role_ids['assistant'])
    return ids

  def with_answer(self, messages: Sequence[Message], answer: str) -> list[int]:
    return [*self.apply_chat_template(messages, True), *self.encode(answer)]

  def _role_id(self, role: str) -> int:
    if role not in self.role_ids:
      raise ValueError(f'Expected a role among {sorted(self.role_ids)}, got '
                       f'{role!r}; rename the role of the message.')
    return self.role_ids[role]


class HuggingFaceTokenizer:
  """A tokenizer of the transformers library behind the same interface."""

  def __init__(self, inner, extra_stop_ids: Sequence[int] = ()):
    if inner.eos_token_id is None and not extra_stop_ids:
      raise ValueError(
          f'Expected an end-of-text token in {inner.name_or_path!r}, got none; '
          'set eos_token in its tokenizer_config.json.')
    eos = () if inner.eos_token_id is None else (inner.eos_token_id,)
    self.inner = inner
    self.vocab_size = len(inner)
    self.stop_ids = tuple(dict.fromkeys((*eos, *extra_stop_ids)))
    has_pad = inner.pad_token_id is not None
    self.pad_id = inner.pad_token_id if has_pad else self.stop_ids[0]
    # The unknown token stands for words, unless it ends a text as well.
    special = {i for i, token in inner.added_tokens_decoder.items()
               if token.special} | set(inner.all_special_ids)
    self.special_ids = frozenset(
        special - {inner.unk_token_id} | set(self.stop_ids))

  def encode(self, text: str) -> list[int]:
    return list(self.inner.encode(text, add_special_tokens=False))

  def decode(self, ids: Sequence[int]) -> str:
    return self.inner.decode([int(i) for i in ids], skip_special_tokens=True)

  def apply_chat_template(
      self, messages: Sequence[Message], add_generation_prompt: bool
  ) -> list[int]:
    return self._template(messages, add_generation_prompt)['input_ids']

  def with_answer(self, messages: Sequence[Message], answer: str) -> list[int]:
    self._chat_template()
    prompt = self.inner.apply_chat_template(
        list(messages), add_generation_prompt=True, tokenize=False)
    return self.encode(prompt + answer)

  def marks_assistant_tokens(self) -> bool:
    """Whether the template says by itself which tokens the assistant wrote."""
    return bool(_GENERATION_TAG.search(self._chat_template()))

  def assistant_tokens(
      self, messages: Sequence[Message]
  ) -> tuple[list[int], list[int]]:
    """Ids and the template's own 0/1 mask of what the assistant wrote."""
    out = self._template(messages, False, return_assistant_tokens_mask=True)
    return out['input_ids'], out['assistant_masks']

  def _template(self, messages, add_generation_prompt, **kwargs):
    self._chat_template()
    return self.inner.apply_chat_template(
        list(messages), add_generation_prompt=add_generation_prompt,
        tokenize=True, return_dict=True, **kwargs)

  def _chat_template(self) -> str:
    if not self.inner.chat_template:
      raise ValueError(
          f'Expected a chat template in {self.inner.name_or_path!r}, got none; '
          'add chat_template.jinja to the folder.')
    return str(self.inner.get_chat_template())


def differences(one: Tokenizer, other: Tokenizer) -> list[str]:
  """In what two tokenizers differ that decides what an id means."""
  vocabulary = lambda found: found.inner.get_vocab() if isinstance(
      found, HuggingFaceTokenizer) else 'bytes'
  facts = {
      'number of ids': lambda found: found.vocab_size,
      'stop tokens': lambda found: sorted(found.stop_ids)}
  found = [f'{what}: {fact(one)} and {fact(other)}'
           for what, fact in facts.items() if fact(one) != fact(other)]
  if not found and vocabulary(one) != vocabulary(other):
    found.append('the words of the ids')
  return found


def load(name_or_path: str) -> Tokenizer:
  """Returns the byte tokenizer for 'byte', else the one in a local folder."""
  if name_or_path == 'byte':
    return ByteTokenizer()
  folder = pathlib.Path(name_or_path)
  if not folder.is_dir():
    raise ValueError(
        f"Expected 'byte' or a local folder with a Hugging Face tokenizer, got "
        f'{name_or_path!r}, which is not a folder; download it first and give '
        'its path.')
  try:
    import transformers
  except ImportError as error:
    raise ImportError(
        f'Reading the tokenizer in {name_or_path!r} needs transformers, which '
        "is not installed; run `pip install 'rljax[text]'`.") from error
  inner = transformers.AutoTokenizer.from_pretrained(
      str(folder), local_files_only=True)
  return HuggingFaceTokenizer(inner, _generation_stop_ids(folder))


def _generation_stop_ids(folder: pathlib.Path) -> tuple[int, ...]:
  """End-of-turn ids; chat models list them here and not as eos_token."""
  path = folder / 'generation_config.json'
  if not path.exists():
    return ()
  ids = json.loads(path.read_text(encoding='utf-8')).get('eos_token_id')
  if ids is None:
    return ()
  return tuple(ids) if isinstance(ids, list) else (ids,)
