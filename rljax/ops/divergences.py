"""Estimators of KL(policy ‖ reference) per token, from log-probabilities.

With y drawn from the policy and d = log π(y) - log π_ref(y):

  k1 = d                      unbiased; takes both signs, high variance
  k2 = d² / 2                 biased; never negative
  k3 = exp(-d) - 1 + d        unbiased; never negative; what GRPO adds

As *losses* they rank differently from what they do as estimates: on samples of
the policy, the expected gradient of k1 is zero, that of k2 is the gradient of
KL(policy ‖ reference), that of k3 is the gradient of KL(reference ‖ policy).

Reference: GRPO (DeepSeekMath, arXiv 2402.03300), eq. 4, for k3.
"""
import jax
import jax.numpy as jnp

from rljax.ops import masking


def k1(
    logp_BT: jax.Array, ref_logp_BT: jax.Array, inside_BT: jax.Array
) -> jax.Array:
  """log π - log π_ref, 0 outside."""
  return masking.masked_difference(logp_BT, ref_logp_BT, inside_BT)


def k2(
    logp_BT: jax.Array, ref_logp_BT: jax.Array, inside_BT: jax.Array
) -> jax.Array:
  """Half the squared log-ratio, 0 outside."""
  return jnp.square(k1(logp_BT, ref_logp_BT, inside_BT)) / 2


def k3(
    logp_BT: jax.Array, ref_logp_BT: jax.Array, inside_BT: jax.Array
) -> jax.Array:
  """ρ - 1 - log ρ with ρ = π_ref / π, 0 outside."""
  log_ratio_BT = masking.masked_difference(ref_logp_BT, logp_BT, inside_BT)
  # expm1 keeps the digits that exp(x) - 1 cancels near the reference.
  return jnp.expm1(log_ratio_BT) - log_ratio_BT
