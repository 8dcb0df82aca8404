"""Token log-probability, entropy, exact divergences, without the logits.

  z = h W / τ;  log p(y) = z_y - log Σ_v e^{z_v}
  H = -Σ_v p_v log p_v;  KL = Σ_v p_v (log p_v - log q_v)
  KL' = Σ_v q_v (log q_v - log p_v)

and, with a cotangent for each, what a chunk of tokens sends back:

  dz_v = g_p (1[v=y] - p_v) - g_H p_v (log p_v + H)
         + g_KL p_v (log p_v - log q_v - KL) + g_KL' (p_v - q_v)
  dh = dz Wᵀ / τ;  dW = hᵀ dz / τ

Logits exist for one block (so many tokens times so many ids) at a time and are
computed again for the gradient: all sums over the vocabulary are kept relative
to a running maximum, and dW is written block by block. Where the vocabulary is
split over devices, each one sums over its own ids and only a handful of numbers
per token travel.

If sampling cut the vocabulary, log p is normalised over what was left, the
drawn token among it: that it was drawn proves that it was there, whatever
rounding says here. Entropy and divergences are those of the whole vocabulary.

Hidden states at position t-1 predict token t; results stand at t, the token's
own position, so that masks, advantages and segments need no shifting.

Reference: online sums: Milakov and Gimelshein (arXiv 1805.02867); blocks and
recomputation: Cut Cross-Entropy (arXiv 2411.09009).
"""
from __future__ import annotations

import chex
from flax import struct
import jax
import jax.numpy as jnp

from rljax.ops import sampling
from rljax.ops import vocabulary

_BLOCK = (512, 2048)


@struct.dataclass
class TokenScores:
  """All float32, in nats; 0 where nothing predicts a token or asks for it."""
  logp_BT: jax.Array
  entropy_BT: jax.Array
  kl_BT: jax.Array | None  # policy ‖ reference; None without a reference
  ref_kl_BT: jax.Array | None = None  # reference ‖ policy


def score(
    policy: vocabulary.Projection,
    tokens_BT: jax.Array,
    segment_BT: jax.Array,
    params: sampling.SamplingParams | None = None,
    *,
    asked_BT: jax.Array | None = None,
    truncated: bool = True,
    reference: vocabulary.Projection | None = None,
    block: tuple[int, int] = _BLOCK,
) -> TokenScores:
  """Scores every token under the distribution that it was drawn from.

  Args:
    policy: hidden states and the head's weight; both get gradients.
    tokens_BT: int32 token ids.
    segment_BT: int32; a segment's first token has no prediction: all results
      are 0 there, and on padding.
    params: of the sampler; None is temperature 1 and the whole vocabulary.
      Temperature 0 leaves one possible token: all results are 0.
    asked_BT: bool; tokens to be scored: others get 0 and cost nothing. None
      stands for all.
    truncated: False is the caller's word that top_k, top_p and min_p are off,
      which saves looking.
    reference: of another model of the same vocabulary, at the same temperature
      and never truncated; it gets no gradient.
    block: tokens and ids of which logits exist at a time, on each device.

  Returns:
    Scores at the tokens' own positions.

  Raises:
    ValueError: vocabularies differ, or the mesh does not divide them.
  """
  chex.assert_equal_shape([tokens_BT, segment_BT])
  chex.assert_equal_shape_prefix([policy.hidden_BTD, tokens_BT], 2)
  sizes = [p.vocab_size for p in (policy, reference) if p is not None]
  if len(set(sizes)) > 1 or min(block) < 1:
    raise ValueError(
        'Expected one vocabulary and a block of at least one token and one id, '
        f'got vocabularies of {sizes} tokens and the block {block}. Take a '
        'reference of the same tokenizer and a positive block.')
  if params is None:
    params, truncated = sampling.make_params(), False
  plan = vocabulary.make_plan(policy, block, truncated)
  previous_BT = jnp.roll(segment_BT, 1, axis=1).at[:, 0].set(0)
  has_context_BT = (segment_BT == previous_BT) & (segment_BT > 0)
  counts_BT = has_context_BT & (jnp.asarray(params.temperature) > 0)
  if asked_BT is not None:
    counts_BT &= asked_BT
  # Shift what is small, not the hidden states: a slice would copy them.
  next_BT, asked_BT = (jnp.roll(x_BT, -1, axis=1)
                       for x_BT in (tokens_BT, counts_BT))
  found = vocabulary.sums(plan, policy, reference, next_BT, asked_BT, params)
  found = jax.tree.map(lambda x_BT: jnp.roll(x_BT, 1, axis=1), found)
  return TokenScores(found['logp'], found['entropy'], found.get('kl'),
                     found.get('ref_kl'))


def token_logprobs(
    logits_BTV: jax.Array,
    tokens_BT: jax.Array,
    segment_BT: jax.Array,
    temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """`score` of logits that are there already: logp_BT and entropy_BT."""
  chex.assert_type(logits_BTV, jnp.float32)
  params = sampling.make_params().replace(
      temperature=jnp.asarray(temperature, jnp.float32))
  out = score(vocabulary.Projection(logits_BTV), tokens_BT, segment_BT,
              params, truncated=False)
  return out.logp_BT, out.entropy_BT
