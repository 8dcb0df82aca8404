"""Useful tokens per second where responses end at very different lengths.

The refilling sampler against one that goes in lock-step: a batch of responses
begins together, and the next begins when the longest has ended. Both run the
same model with the same keys, so they draw the same tokens, which is checked;
tokens after the end of a response count for neither.

An untrained model draws all tokens alike, so with one stop id in m tokens the
lengths are geometric, mean m: the longest of 16 is 3.4 times as long as the
mean. The lock-step sampler gets what it can have without a refill: one compiled
loop per batch, and one prefill per prompt for the samples in it.
"""
from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from rljax import models
from rljax import rollout
from rljax import sharding
from rljax.models import attention
from rljax.ops import sampling


@dataclasses.dataclass(frozen=True)
class Mix:
  """The work; its lengths are the model's."""
  num_slots: int = 16
  num_prompts: int = 32
  samples_per_prompt: int = 8
  prompt_length: int = 32
  mean_length: int = 32      # of responses, if all tokens are equally likely
  max_new_tokens: int = 256

  def __post_init__(self):
    if self.num_slots % self.samples_per_prompt or (
        self.num_prompts * self.samples_per_prompt % self.num_slots):
      raise ValueError(
          'Expected slots for the samples of some prompts, and responses for '
          f'full batches of them, got {self}. Round the numbers.')


def run(interleaved, smoke: bool, team) -> list[dict]:
  """The row of the benchmark."""
  del interleaved, team  # both samplers take turns in this process, below
  sizes = dict(vocab_size=272) if smoke else dict(
      vocab_size=32_000, num_layers=4, model_dim=256, num_heads=8,
      num_kv_heads=4, head_dim=32, num_experts=8, top_k=2, expert_dim=512)
  model = models.create('tiny', **sizes)
  tokens_BT = jnp.zeros((1, 8), jnp.int32)
  params = sharding.unbox(model.init(
      jax.random.key(0), tokens_BT, tokens_BT, tokens_BT)['params'])
  params['head']['kernel'] = jnp.zeros_like(params['head']['kernel'])
  mix = Mix(num_prompts=8, max_new_tokens=64) if smoke else Mix()
  found = decode_skewed(model, params, mix, rounds=1 if smoke else 5)
  return [dict(row='decode_skewed', **found)]


def decode_skewed(model, params, mix: Mix = Mix(), *, rounds: int = 5,
                  seed: int = 0) -> dict[str, Any]:
  """Times both samplers, turn by turn, after a round that does not count.

  Returns:
    Tokens per second (medians over rounds) of both, the median over rounds of
    their ratio, model calls, lengths, and the share of slots in use.

  Raises:
    ValueError: the samplers do not draw the same.
  """
  vocab = model.config.vocab_size
  rng = np.random.default_rng(seed)
  prompts = rng.integers(0, vocab, (mix.num_prompts, mix.prompt_length),
                         dtype=np.int32)
  stop_ids = tuple(range(max(vocab // mix.mean_length, 1)))
  sample = rollout.make_sampler(
      model, num_slots=mix.num_slots, max_prompt_length=mix.prompt_length,
      max_new_tokens=mix.max_new_tokens, stop_ids=stop_ids)
  lock_step = make_lock_step(model, mix, stop_ids)
  key = jax.random.key(seed)

  def refilling():
    return sample.counted(params, prompts, key,
                          samples_per_prompt=mix.samples_per_prompt)

  (found, counts), (length_PG, calls, tokens_PGT) = refilling(), lock_step(
      params, prompts, key)
  _check_same(found, length_PG, tokens_PGT)
  times = [(_seconds(refilling),
            _seconds(lambda: lock_step(params, prompts, key)))
           for _ in range(rounds)]
  ours, theirs = (statistics.median(counts.tokens / t for t in column)
                  for column in zip(*times, strict=True))
  return dict(
      metric='useful tokens per second', higher_is_better=True, rljax=ours,
      peers={'lock_step': theirs}, limit=None, occupancy=counts.occupancy,
      ratio_to_best_peer=statistics.median(t[1] / t[0] for t in times),
      model_calls=dict(rljax=counts.decode_steps, lock_step=calls),
      tokens=counts.tokens, mean_length=float(length_PG.mean()),
      max_length=int(length_PG.max()), rounds=times)


def make_lock_step(model, mix: Mix, stop_ids: tuple[int, ...]):
  """Builds `generate(params, prompts, key) -> (length_PG, calls, tokens_PGT)`.

  The keys are those of the refilling sampler; `calls` counts model calls of
  one token per slot.
  """
  compiled = jax.jit(lambda *arguments: _lock_step(
      model, mix, jnp.asarray(stop_ids, jnp.int32), *arguments))
  per_batch = mix.num_slots // mix.samples_per_prompt

  def generate(params, prompts, key):
    out = []
    for start in range(0, len(prompts), per_batch):
      tokens_PT = prompts[start:start + per_batch]
      hash_P = np.array([zlib.crc32(prompt.astype('<i4').tobytes())
                         for prompt in tokens_PT], np.uint32)
      out.append(jax.device_get(compiled(params, tokens_PT, hash_P, key)))
    length_JB, calls_J, tokens_JBT = map(np.stack, zip(*out, strict=True))
    shape = len(prompts), mix.samples_per_prompt
    return (length_JB.reshape(shape), int(calls_J.sum()),
            tokens_JBT.reshape(*shape, -1))

  return generate


def _lock_step(model, mix: Mix, stop_C, params, tokens_PT, hash_P, key):
  """One batch, from its prompts to the end of its longest response."""
  copies, start = mix.samples_per_prompt, mix.prompt_length - 1
  num_slots, length = mix.num_slots, mix.prompt_length + mix.max_new_tokens

  position_PT = jnp.broadcast_to(jnp.arange(start), (len(tokens_PT), start))
  cache = model.apply(
      {'params': params}, tokens_PT[:, :-1], position_PT,
      jnp.ones_like(position_PT),
      cache=attention.init_cache(model.config, len(tokens_PT), length)).cache
  cache = jax.tree.map(lambda x: jnp.repeat(x, copies, axis=1), cache)
  key_B = jax.vmap(lambda h, g: jax.random.fold_in(
      jax.random.fold_in(key, h), g))(
          jnp.repeat(hash_P, copies), jnp.arange(num_slots) % copies)
  settings, segment_B1 = sampling.make_params(), jnp.ones((num_slots, 1), int)

  def is_running(carry):
    t, active_B = carry[:2]
    return jnp.any(active_B) & (t < mix.max_new_tokens)

  def step(carry):
    t, active_B, newest_B, cache, tokens_BT, length_B = carry
    position_B1 = jnp.full((num_slots, 1), start + t)
    out = model.apply({'params': params}, newest_B[:, None], position_B1,
                      segment_B1, cache=cache)
    token_B, _, _ = sampling.sample(
        out.logits_BTV[:, 0], jax.vmap(jax.random.fold_in, (0, None))(key_B, t),
        settings)
    stops_B = jnp.any(token_B[:, None] == stop_C[None], axis=-1)
    return (t + 1, active_B & ~stops_B, token_B, out.cache,
            tokens_BT.at[:, t].set(token_B), length_B + active_B)

  t, _, _, _, tokens_BT, length_B = jax.lax.while_loop(is_running, step, (
      jnp.int32(0), jnp.ones(num_slots, bool),
      jnp.repeat(tokens_PT[:, -1], copies), cache,
      jnp.zeros((num_slots, mix.max_new_tokens), jnp.int32),
      jnp.zeros(num_slots, jnp.int32)))
  return length_B, t, tokens_BT


def _check_same(found, length_PG, tokens_PGT):
  """At near ties rounding may move a draw, so a few responses may differ."""
  same_PG = found.length_PG == length_PG
  for p, g in np.ndindex(same_PG.shape):
    inside = slice(length_PG[p, g])
    same_PG[p, g] &= np.array_equal(found.tokens_PGT[p, g, inside],
                                    tokens_PGT[p, g, inside])
  if same_PG.mean() < 0.95:
    raise ValueError(
        'Expected the same responses of both samplers, got only '
        f'{same_PG.mean():.0%} equal. One of the two is wrong: find out which.')


def _seconds(run) -> float:
  begin = time.perf_counter()
  run()
  return time.perf_counter() - begin
