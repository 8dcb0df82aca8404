"""Draws tokens at a temperature, from a truncated vocabulary if asked.

  z = logits / τ;  y = argmax over the support of z_v + g_v,  g ~ Gumbel(0, 1)

Gumbel-max needs one key per row and no normaliser, so a row's draw depends on
its own logits and key alone. The support is what is left after, in this order:

  top-k  the k most likely tokens
  top-p  of those, renormalised, the fewest whose probabilities sum to >= p
  min-p  of those, the ones at least min_p times as likely as the likeliest

Among equals the lower id counts as the likelier. All four numbers are traced:
changing one compiles nothing.

Temperature 0 stands for the limit τ -> 0, the argmax: the distribution sampled
from has one token, so its log-probability and the entropy are both 0.

Reference: top-p: Holtzman et al. (arXiv 1904.09751); min-p: arXiv 2407.01082.
"""
from __future__ import annotations

import chex
from flax import struct
import jax
import jax.numpy as jnp
import numpy as np


@struct.dataclass
class SamplingParams:
  """What shapes the distribution; scalars, traced."""
  temperature: jax.Array  # float32; 0 = greedy
  top_k: jax.Array        # int32; off if <= 0 or >= the vocabulary
  top_p: jax.Array        # float32; off at 1
  min_p: jax.Array        # float32; off at 0


def make_params(temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
                min_p: float = 0.0) -> SamplingParams:
  """Checks the numbers and gives them the types that compiled code expects.

  Raises:
    ValueError: a number out of its range.
  """
  rules = [
      (np.isfinite(temperature) and temperature >= 0,
       f'a finite temperature >= 0 (0 is greedy), got {temperature}'),
      (top_k >= 0 and int(top_k) == top_k,
       f'an integer top_k >= 0 (0 is off), got {top_k}'),
      (0 < top_p <= 1, f'top_p in (0, 1] (1 is off), got {top_p}'),
      (0 <= min_p <= 1, f'min_p in [0, 1] (0 is off), got {min_p}'),
  ]
  for holds, message in rules:
    if not holds:
      raise ValueError(f'Expected {message}. Change the sampling settings.')
  return SamplingParams(
      np.float32(temperature), np.int32(min(top_k, np.iinfo(np.int32).max)),
      np.float32(top_p), np.float32(min_p))


def sample(
    logits_BV: jax.Array, key_B: jax.Array, params: SamplingParams
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Draws one token per row.

  Args:
    logits_BV: float32.
    key_B: typed keys, one per row.
    params: temperature and truncation.

  Returns:
    token_B int32; logp_B float32, under the distribution that was sampled from;
    entropy_B float32 in nats, at the temperature but before truncation.
  """
  chex.assert_type(logits_BV, jnp.float32)
  chex.assert_rank([logits_BV, key_B], [2, 1])
  chex.assert_equal_shape_prefix([logits_BV, key_B], 1)
  width = logits_BV.shape[1]
  is_greedy = params.temperature <= 0
  z_BV = scale(logits_BV, params.temperature)
  kept_BV = truncate(z_BV, params)

  gumbel = lambda key: jax.random.gumbel(key, (width,), jnp.float32)
  noise_BV = jax.vmap(gumbel)(key_B) * jnp.where(is_greedy, 0.0, 1.0)
  token_B = jnp.argmax(kept_BV + noise_BV, axis=-1).astype(jnp.int32)

  chosen_B = jnp.take_along_axis(z_BV, token_B[:, None], axis=-1)[:, 0]
  logp_B = chosen_B - jax.nn.logsumexp(kept_BV, axis=-1)
  log_p_BV = jax.nn.log_softmax(z_BV, axis=-1)
  p_BV = jnp.exp(log_p_BV)  # 0 · log 0 counts as 0
  entropy_B = -jnp.sum(
      jnp.where(p_BV > 0, p_BV * log_p_BV, 0.0), axis=-1)
  limit = lambda x_B: jnp.where(is_greedy, 0.0, x_B)
  return token_B, limit(logp_B), limit(entropy_B)


def scale(logits_BV: jax.Array, temperature: jax.Array) -> jax.Array:
  """logits / τ; unchanged at τ = 0, where only their order matters."""
  return logits_BV / jnp.where(temperature > 0, temperature, 1.0)


def truncate(z_BV: jax.Array, params: SamplingParams) -> jax.Array:
  """Minus infinity outside the support; the sort is skipped if all is off."""
  width = z_BV.shape[1]
  has_top_k = (params.top_k > 0) & (params.top_k < width)
  is_on = has_top_k | (params.top_p < 1) | (params.min_p > 0)
  return jax.lax.cond(is_on, _truncate, lambda z_BV, _: z_BV, z_BV, params)


def _truncate(z_BV, params: SamplingParams):
  rows, width = z_BV.shape
  id_BV = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), (rows, width))
  # Descending and stable: equals stay in the order of their ids.
  down_BV, order_BV = jax.lax.sort((-z_BV, id_BV), num_keys=1, is_stable=True)
  sorted_BV = -down_BV
  top_k = jnp.where(params.top_k > 0, params.top_k, width)
  p_BV = jax.nn.softmax(jnp.where(id_BV < top_k, sorted_BV, -jnp.inf), axis=-1)
  before_BV = jnp.cumsum(p_BV, axis=-1) - p_BV
  # Rounding may bring the sum to 1 early; top_p = 1 must cut nothing.
  inside_p_BV = (before_BV < params.top_p) | (params.top_p >= 1)
  kept_BV = (id_BV < top_k) & inside_p_BV & (
      p_BV >= params.min_p * p_BV[:, :1])
  # Each of the three keeps a prefix, so the last one kept tells all.
  last_B1 = jnp.maximum(
      jnp.sum(kept_BV, axis=-1, dtype=jnp.int32, keepdims=True) - 1, 0)
  least_B1 = jnp.take_along_axis(sorted_BV, last_B1, axis=-1)
  least_id_B1 = jnp.take_along_axis(order_BV, last_B1, axis=-1)
  inside_BV = (z_BV > least_B1) | (
      (z_BV == least_B1) & (id_BV <= least_id_B1))
  return jnp.where(inside_BV, z_BV, -jnp.inf)
