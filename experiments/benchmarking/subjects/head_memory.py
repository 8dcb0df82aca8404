"""The head of a large vocabulary, with gradients and entropy.

Sums block by block against whole logits under plain differentiation: temporary
memory, as XLA reports it, and time. Both give equal gradients, checked first.
"""
from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from rljax.ops import logprobs
from rljax.ops import vocabulary
from rljax.training import program


def run(interleaved, smoke: bool, team) -> list[dict]:
  del team  # all in this process
  sizes = dict(vocab_size=151_936, num_tokens=1_024, width=128)
  return measure(interleaved, **dict(
      vocab_size=9_000, num_tokens=64, width=8) if smoke else sizes)


def measure(interleaved, vocab_size: int, num_tokens: int,
            width: int) -> list[dict]:
  """Megabytes and milliseconds, fp32."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  head = vocabulary.Projection(draw(1, num_tokens, width),
                               draw(width, vocab_size) * width ** -0.5)
  tokens_BT = jnp.asarray(rng.integers(0, vocab_size, (1, num_tokens)),
                          jnp.int32)
  compiled = {
      name: jax.jit(jax.value_and_grad(loss)).lower(head, tokens_BT).compile()
      for name, loss in (('rljax', blockwise), ('dense', dense))}
  call = lambda name: lambda: compiled[name](head, tokens_BT)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(
      a, b, rtol=1e-3, atol=1e-5), call('rljax')(), call('dense')())
  megabytes = {name: program.memory(found)['temporary'] / 1e6
               for name, found in compiled.items()}
  milliseconds = {name: 1e3 * seconds for name, seconds in interleaved(
      {name: call(name) for name in compiled}, rounds=5).items()}
  of = (f'{num_tokens} tokens by {width} x {vocab_size}, log-probability, '
        'entropy and gradients')
  return [dict(row='head_memory', higher_is_better=False,
               metric=f'{unit}, {of}', rljax=found['rljax'],
               peers={'dense': found['dense']})
          for unit, found in (('MB of temporary memory', megabytes),
                              ('ms', milliseconds))]


def blockwise(head, tokens_BT):
  found = logprobs.score(head, tokens_BT, jnp.ones_like(tokens_BT))
  return -jnp.mean(found.logp_BT + 0.1 * found.entropy_BT)


def dense(head, tokens_BT):
  """The same loss, from logits that are all there."""
  logits_BTV = head.logits_BTV[:, :-1]
  log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
  p_BTV = jnp.exp(logits_BTV - log_z_BT[..., None])
  entropy_BT = log_z_BT - jnp.sum(p_BTV * logits_BTV, axis=-1)
  chosen_BT = jnp.take_along_axis(
      logits_BTV, tokens_BT[:, 1:, None], axis=-1)[..., 0]
  return -jnp.sum(
      chosen_BT - log_z_BT + 0.1 * entropy_BT) / tokens_BT.size
