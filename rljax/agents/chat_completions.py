"""The chat completions format of OpenAI, vLLM and SGLang: requests, replies.

What a reply lacks is an error with the place of it, never a default: a judge
whose verdict went missing must not look like one that said nothing.
"""
from __future__ import annotations

from collections.abc import Mapping
import math
from typing import Any

from rljax.agents import language_model

FINISH_REASONS = ('stop', 'length', 'content_filter')


def body(
    request: language_model.Request,
    model: str,
    max_tokens_field: str,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
  """The JSON object to post.

  Args:
    request: fields that are off are left out; not all servers know them.
    model: as the server calls it.
    max_tokens_field: older servers know 'max_tokens' alone, newer models of
      OpenAI 'max_completion_tokens' alone.
    extra: fields of this server, such as top_k; none that the request sets.
  """
  fields = dict(
      model=model, messages=list(request.messages), n=request.num_samples,
      temperature=request.temperature, top_p=request.top_p, seed=request.seed)
  if request.max_tokens is not None:
    fields[max_tokens_field] = request.max_tokens
  if request.stop:
    fields['stop'] = list(request.stop)
  if request.logprobs:
    fields['logprobs'] = True
  twice = sorted(set(extra) & {*fields, 'stop', 'logprobs', 'stream',
                               max_tokens_field})
  if twice:
    raise ValueError(f'Expected extra fields that a request does not set, got '
                     f'{twice}. Set them in the request.')
  return fields | dict(extra)


def parse(
    reply: Any, request: language_model.Request
) -> language_model.Reply:
  """The reply, checked.

  Args:
    reply: decoded JSON.
    request: that it replies to.

  Raises:
    LanguageModelError: 'malformed', with the field that is not as it must be.
  """
  choices = _field(reply, 'reply', 'choices', list)
  order = [_field(choice, f'choices[{i}]', 'index', int)
           for i, choice in enumerate(choices)]
  if sorted(order) != list(range(request.num_samples)):
    raise malformed(f'choices of index 0..{request.num_samples - 1}, one for '
                    'each sample', order)
  by_index = [choices[order.index(i)] for i in range(len(order))]
  usage = _field(reply, 'reply', 'usage', dict)
  return language_model.Reply(
      tuple(_response(choice, f'choices[index={i}]', request.logprobs)
            for i, choice in enumerate(by_index)),
      prompt_tokens=_count(usage, 'prompt_tokens'),
      response_tokens=_count(usage, 'completion_tokens'))


def malformed(expected: str, got: Any) -> language_model.LanguageModelError:
  """An error to raise."""
  return language_model.LanguageModelError(
      'malformed', f'Expected {expected}, got {shorten(repr(got))}. Check that '
      'the address is one of a chat completions server.')


def shorten(text: str, limit: int = 300) -> str:
  """Of what a server says, enough to know it by."""
  return text if len(text) <= limit else f'{text[:limit]}...'


def _response(choice, place, with_logprobs) -> language_model.Response:
  reason = _field(choice, place, 'finish_reason', str)
  if reason not in FINISH_REASONS:
    raise malformed(f'{place}.finish_reason in {FINISH_REASONS}', reason)
  message = _field(choice, place, 'message', dict)
  # Cut short before it said anything, a server may leave the text out.
  is_empty = reason != 'stop' and message.get('content', '') is None
  text = '' if is_empty else _field(message, f'{place}.message', 'content', str)
  logprobs = None
  if with_logprobs:
    inner = _field(choice, place, 'logprobs', dict)
    tokens = _field(inner, f'{place}.logprobs', 'content', list)
    logprobs = tuple(
        _field(token, f'{place}.logprobs.content[{t}]', 'logprob', float)
        for t, token in enumerate(tokens))
  return language_model.Response(text, reason, logprobs)


def _field(record, place: str, name: str, kind: type):
  if not isinstance(record, dict):
    raise malformed(f'an object at {place}', record)
  value = record.get(name)
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  if kind is float and is_number and math.isfinite(value):
    return float(value)
  if kind is float or not isinstance(value, kind) or isinstance(value, bool):
    raise malformed(f'{place}.{name} to be of type {kind.__name__}', record)
  return value


def _count(usage, name: str) -> int:
  value = _field(usage, 'usage', name, int)
  if value < 0:
    raise malformed(f'usage.{name} >= 0', value)
  return value
