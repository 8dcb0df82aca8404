"""A language model that says what it was told to, and nothing else.

For tests and demonstrations. A token of it is one character.
"""
from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from rljax.agents import language_model


def make(
    script: Mapping[str, Sequence[str]],
    key: Callable[[tuple[language_model.Message, ...]], str] | None = None,
) -> language_model.LanguageModel:
  """Builds the model.

  Args:
    script: the samples of each prompt, by index.
    key: from messages to the prompt's name in the script; None takes the
      content of the last message.
  """
  script = {name: _as_samples(name, texts) for name, texts in script.items()}
  key = key or (lambda messages: messages[-1]['content'])

  def model(requests, *, on_reply=None):
    replies = []
    for i, request in enumerate(requests):
      replies.append(_reply(script, key(request.messages), request, i))
      if on_reply is not None:
        on_reply(i, replies[-1])
    return replies

  return model


def _reply(script, name, request, index) -> language_model.Reply:
  if name not in script:
    raise ValueError(
        f'Expected a prompt of the script, {sorted(script)}, got {name!r} in '
        f'request {index}. Add it, or mend the code that asks.')
  texts = script[name]
  if request.num_samples > len(texts):
    raise ValueError(
        f'Expected at most {len(texts)} samples of {name!r}, which is what the '
        f'script holds, got {request.num_samples} in request {index}. Add '
        'more.')
  if request.logprobs:
    raise ValueError(
        f'Expected no wish for logprobs, got one in request {index}: a script '
        'has no probabilities. Use a model that has.')
  responses = tuple(_response(text, request)
                    for text in texts[:request.num_samples])
  return language_model.Reply(
      responses,
      prompt_tokens=sum(len(m['content']) for m in request.messages),
      response_tokens=sum(len(response.text) for response in responses))


def _response(text, request) -> language_model.Response:
  is_short = request.max_tokens is None or len(text) <= request.max_tokens
  text, stopped = language_model.cut_at_stop(
      text if is_short else text[:request.max_tokens], request.stop)
  return language_model.Response(
      text, 'stop' if is_short or stopped else 'length')


def _as_samples(name, texts) -> tuple[str, ...]:
  if isinstance(texts, str) or not texts:
    raise ValueError(f'Expected a list of samples for {name!r}, got {texts!r}. '
                     'Put them into a list.')
  return tuple(texts)
