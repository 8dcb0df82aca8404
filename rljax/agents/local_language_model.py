"""Our own sampler as a language model.

Requests of the same options make one call of the sampler, which fills its
slots with them; requests of a seed of their own each go one after the other.
Equal requests are sampled once.

Log-probabilities are those of the distribution sampled from, at its temperature
and on its support.
"""
from __future__ import annotations

import bisect
from collections.abc import Callable

import jax
import numpy as np

from rljax.agents import language_model


def make(sample: Callable, params, tokenizer) -> language_model.LanguageModel:
  """Builds the model.

  Args:
    sample: from `rollout.make_sampler`, with the tokenizer's stop ids.
    params: of the sampler's model; update the policy, and make it anew.
    tokenizer: with `apply_chat_template`, `decode` and `stop_ids`.

  Returns:
    A language model. It raises ValueError, as the sampler does, for prompts
    and responses over the lengths that the sampler was built for.
  """

  def model(requests, *, on_reply=None):
    replies = [None] * len(requests)
    prompts = [tuple(tokenizer.apply_chat_template(request.messages, True))
               for request in requests]
    for options, indices in _by_options(requests).items():
      found = _sample(sample, params, options, prompts, indices)
      for i in indices:
        replies[i] = _reply(tokenizer, requests[i], *found[prompts[i]])
        if on_reply is not None:
          on_reply(i, replies[i])
    return replies

  return model


def _by_options(requests) -> dict[tuple, list[int]]:
  """Indices of the requests that the sampler can serve in one call."""
  groups = {}
  for i, r in enumerate(requests):
    options = r.seed, r.num_samples, r.temperature, r.top_p, r.max_tokens
    groups.setdefault(options, []).append(i)
  return groups


def _sample(sample, params, options, prompts, indices) -> dict:
  """For each prompt: its length, and (tokens, logp, stopped) of its samples."""
  seed, num_samples, temperature, top_p, max_tokens = options
  first = {prompts[i]: i for i in reversed(indices)}  # a prompt's first request
  asked = sorted(first, key=first.get)
  try:
    out = sample(params, asked, jax.random.key(seed),
                 samples_per_prompt=num_samples, temperature=temperature,
                 top_p=top_p, max_new_tokens=max_tokens)
  except ValueError as error:
    error.add_note('The prompts of this sampler call are those of requests '
                   f'{[first[prompt] for prompt in asked]}, in this order.')
    raise
  found = {}
  for p, prompt in enumerate(asked):
    samples = []
    for g in range(num_samples):
      inside = slice(int(out.length_PG[p, g]))
      samples.append((out.tokens_PGT[p, g, inside], out.logp_PGT[p, g, inside],
                      bool(out.stopped_PG[p, g])))
    found[prompt] = len(prompt), samples
  return found


def _reply(tokenizer, request, prompt_tokens, samples) -> language_model.Reply:
  responses, num_tokens = [], 0
  for tokens_T, logp_T, stopped in samples:
    text, length, cut = _text(tokenizer, tokens_T, stopped, request.stop)
    num_tokens += length
    responses.append(language_model.Response(
        text, 'stop' if stopped or cut else 'length',
        tuple(logp_T[:length].tolist()) if request.logprobs else None))
  return language_model.Reply(tuple(responses), prompt_tokens, num_tokens)


def _text(tokenizer, tokens_T: np.ndarray, stopped: bool, stop):
  """Text, how many tokens it took, and whether a stop string ended it."""
  def decoded(length):
    # A stop id may be a byte of text to the tokenizer; it is none here.
    ended = stopped and length == len(tokens_T)
    return tokenizer.decode(tokens_T[:length - ended].tolist())

  def has_stop(length):
    return language_model.cut_at_stop(decoded(length), stop)[1]

  length = len(tokens_T)
  text, cut = language_model.cut_at_stop(decoded(length), stop)
  if cut:  # the fewest tokens that hold the stop string
    length = bisect.bisect_left(range(length), True, key=has_stop)
  return text, length, cut
