"""Dr. GRPO: clipped policy gradient over a constant length, one per response.

  L = -(1/(R M)) Σ_i Σ_t [min(ρ_it A_i, clip(ρ_it, 1-ε, 1+ε) A_i) - β k3_it]

M is the largest length a response may have, a constant of the run, so a token
weighs the same in short and long responses. Its advantages are centred, not
normalised (`ops.advantages.group_centered`): dividing by the group's standard
deviation would favour prompts that are nearly all right or nearly all wrong.

Reference: Understanding R1-Zero-like training (arXiv 2503.20783), §3.2.

Differs from the paper:

           paper           frameworks            ours
  M        any constant    longest allowed       longest allowed response
                           response (verl)
  (1/R)    mean over G     mean over the batch   mean over the responses of
                                                 the step that are in the loss
"""
import jax
import jax.numpy as jnp

from rljax.ops import surrogate
from rljax.types import PackedRows
from rljax.types import PolicyBatch


def token_weights(rows: PackedRows) -> jax.Array:
  """Weight 1 / (responses · longest allowed response) on every loss token."""
  num_responses = jnp.asarray(rows.num_responses, jnp.float32)
  per_token = jnp.maximum(num_responses, 1.0) * rows.max_response_length
  return jnp.asarray(rows.mask_BT, jnp.float32) / per_token


def loss(
    logp_BT: jax.Array,
    batch: PolicyBatch,
    *,
    clip_eps: float = 0.2,
    kl_coef: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over micro-batches."""
  return surrogate.clipped_loss(
      logp_BT, batch.old_logp_BT, batch.ref_logp_BT, batch.advantage_BT,
      batch.weight_BT, clip_low=clip_eps, clip_high=clip_eps, kl_coef=kl_coef)
