"""What every language model is here: a callable from requests to replies.

A judge, a user simulator or an overseer takes a `LanguageModel` and does not
know which: a sampler of our own (`local_language_model`), a server
(`http_language_model`) or a script (`scripted_language_model`).

A sample is named by (options, messages, index): to ask for the same twice is
to get the same twice, in one call or in two, and the first samples of many are
those of few. Whoever wants others changes the seed. A server may not keep this
promise; see there.
"""
from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import math
from typing import Protocol

Message = dict[str, str]  # {'role': ..., 'content': ...}


@dataclasses.dataclass(frozen=True)
class Request:
  """A conversation, and how to sample what comes next in it."""
  messages: tuple[Message, ...]
  num_samples: int = 1
  temperature: float = 1.0   # 0 is greedy
  top_p: float = 1.0
  max_tokens: int | None = None  # of a response; None: as many as there may be
  stop: tuple[str, ...] = ()  # a response ends before any of these
  seed: int = 0
  logprobs: bool = False

  def __post_init__(self):
    # A list would let the request change after it was sent.
    object.__setattr__(self, 'messages', tuple(self.messages))
    object.__setattr__(self, 'stop', _as_strings(self.stop))
    _check_messages(self.messages)
    rules = {
        'num_samples >= 1': self.num_samples >= 1,
        'a finite temperature >= 0': 0 <= self.temperature < math.inf,
        'top_p in (0, 1]': 0 < self.top_p <= 1,
        'max_tokens >= 1 or None': (
            self.max_tokens is None or self.max_tokens >= 1),
        'stop strings with characters': all(self.stop),
        'seed in 0..2**31 - 1': 0 <= self.seed < 2 ** 31}
    for rule, holds in rules.items():
      if not holds:
        options = {name: value for name, value in vars(self).items()
                   if name != 'messages'}
        raise ValueError(f'Expected {rule}, got {options}. Change the request.')


@dataclasses.dataclass(frozen=True)
class Response:
  """One sample."""
  text: str            # up to the stop string, which is left out
  finish_reason: str   # 'stop', 'length' or, from servers, 'content_filter'
  logprobs: tuple[float, ...] | None = None  # per token, if asked for


@dataclasses.dataclass(frozen=True)
class Reply:
  """All samples of a request, by index, and what they were made of."""
  responses: tuple[Response, ...]
  prompt_tokens: int
  response_tokens: int  # of all samples together


class LanguageModel(Protocol):
  """The whole interface."""

  def __call__(
      self,
      requests: Sequence[Request],
      *,
      on_reply: Callable[[int, Reply], None] | None = None,
  ) -> list[Reply]:
    """Answers all requests, in their order.

    Args:
      requests: answered together, as far as the model can.
      on_reply: told (index of the request, reply) as soon as there is one, in
        any order: for a progress bar, or to keep what an error later in the
        same call would lose.

    Raises:
      ValueError: a request that this model cannot serve.
      LanguageModelError: no usable reply came.
    """


class LanguageModelError(RuntimeError):
  """No usable reply; `reason` is one of `REASONS`, for counting."""
  REASONS = ('rate_limited', 'server_error', 'rejected', 'timeout',
             'no_connection', 'malformed')

  def __init__(self, reason: str, message: str):
    super().__init__(message)
    assert reason in self.REASONS, reason
    self.reason = reason


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
  """Text before the first stop string, and whether there was one."""
  found = [at for at in map(text.find, stop) if at >= 0]
  return (text[:min(found)], True) if found else (text, False)


def _as_strings(stop) -> tuple[str, ...]:
  if isinstance(stop, str):  # a string is a sequence of strings, too
    raise ValueError(f'Expected a tuple of stop strings, got {stop!r}. Write '
                     f'({stop!r},).')
  return tuple(stop)


def _check_messages(messages):
  if not messages:
    raise ValueError('Expected at least one message, got none. Begin with what '
                     'the user says.')
  for i, message in enumerate(messages):
    if set(message) != {'role', 'content'} or not all(
        isinstance(value, str) for value in message.values()):
      kinds = {name: type(value).__name__ for name, value in message.items()}
      raise ValueError(
          "Expected messages of 'role' and 'content', both strings, got "
          f'{kinds} in message {i}. Rename or add the fields.')
