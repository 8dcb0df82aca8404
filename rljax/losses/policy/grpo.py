"""GRPO: clipped policy gradient, averaged in each response, then over them.

  L = -(1/R) Σ_i (1/ℓ_i) Σ_t [min(ρ_it A_i, clip(ρ_it, 1-ε, 1+ε) A_i) - β k3_it]

Every response weighs the same, so a token of a short response weighs more than
one of a long response; ℓ_i counts the tokens of response i in the loss.

Reference: DeepSeekMath (arXiv 2402.03300), eqs. 3-4.

Differs from the paper:

         paper                 frameworks              ours
  ε      not given             0.2 (verl)              0.2
  (1/R)  mean over G, then     mean over a             mean over the responses
         over prompts          micro-batch (some)      of the step in the loss
"""
import jax
import jax.numpy as jnp

from rljax.ops import segments
from rljax.ops import surrogate
from rljax.types import PackedRows
from rljax.types import PolicyBatch


def token_weights(rows: PackedRows) -> jax.Array:
  """Weight 1 / (responses · tokens of this response in the loss)."""
  mask_BT = jnp.asarray(rows.mask_BT, jnp.float32)
  length_BT = segments.segment_sum(mask_BT, rows.segment_BT)
  num_responses = jnp.asarray(rows.num_responses, jnp.float32)
  # Where the mask is on both counts are at least 1.
  return mask_BT / jnp.maximum(num_responses * length_BT, 1.0)


def loss(
    logp_BT: jax.Array,
    batch: PolicyBatch,
    *,
    clip_eps: float = 0.2,
    kl_coef: float = 0.04,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over micro-batches."""
  return surrogate.clipped_loss(
      logp_BT, batch.old_logp_BT, batch.ref_logp_BT, batch.advantage_BT,
      batch.weight_BT, clip_low=clip_eps, clip_high=clip_eps, kl_coef=kl_coef)
