"""Token log-probabilities and entropies from logits, float32.

  log p(y_t) = z_t[y_t] - logsumexp(z_t);   H_t = logsumexp(z_t) - Σ_v p_v z_v

Logits at position t-1 predict token t; results stand at t, the token's own
position, so that masks, advantages and segments need no shifting.
"""
from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def token_logprobs(
    logits_BTV: jax.Array,
    tokens_BT: jax.Array,
    segment_BT: jax.Array,
    temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """Log-probability of every token, and entropy where it was drawn from.

  Args:
    logits_BTV: float32; position t predicts token t + 1.
    tokens_BT: int32 token ids.
    segment_BT: int32; a segment's first token has no prediction: both results
      are 0 there, and on padding.
    temperature: divides the logits; that of the sampler.

  Returns:
    logp_BT and entropy_BT in nats, float32.
  """
  chex.assert_type(logits_BTV, jnp.float32)
  chex.assert_equal_shape([tokens_BT, segment_BT])
  chex.assert_equal_shape_prefix([logits_BTV, tokens_BT], 2)
  logits_BTV = logits_BTV / jnp.float32(temperature)
  # Shift the small results, not the logits: a slice would copy them.
  next_BT = jnp.roll(tokens_BT, -1, axis=1)
  log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
  chosen_BT = jnp.take_along_axis(
      logits_BTV, next_BT[..., None], axis=-1)[..., 0]
  p_BTV = jnp.exp(logits_BTV - log_z_BT[..., None])
  entropy_BT = log_z_BT - jnp.sum(p_BTV * logits_BTV, axis=-1)

  previous_BT = jnp.roll(segment_BT, 1, axis=1).at[:, 0].set(0)
  has_context_BT = (segment_BT == previous_BT) & (segment_BT > 0)
  at_token = lambda x_BT: jnp.where(
      has_context_BT, jnp.roll(x_BT, 1, axis=1), 0.0)
  return at_token(chosen_BT - log_z_BT), at_token(entropy_BT)
