"""C3PO: clipped policy gradient over a fixed number of tokens.

  L = -(1/Φ) Σ_{t∈Ψ} [min(ρ_t A_t, clip(ρ_t, 1-ε, 1+ε) A_t) - β k3_t], |Ψ| = Φ

Dividing by the constant Φ, not by the tokens that happened to survive, keeps
the gradient's scale independent of response length. Advantages come from
complete groups; tokens are dropped afterwards, never before. Which tokens make
up Ψ is decided in `packing.budget`.

Reference: Ring-lite (arXiv 2506.14731), eqs. 2-3.

Differs from the paper:

             paper              official code   ours
  Φ          409,600; whether   not public      loss tokens of one optimiser
             per rank unsaid                    step, over all ranks
  |Ψ| < Φ    cannot happen      not public      still divides by Φ;
                                                `budget_fill` says how full
  KL         estimator unsaid   not public      k3
"""
import jax
import jax.numpy as jnp

from rljax.ops import surrogate
from rljax.types import PackedRows
from rljax.types import PolicyBatch


def token_weights(rows: PackedRows) -> jax.Array:
  """Weight 1/Φ on every selected token, however long its response."""
  return jnp.asarray(rows.mask_BT, jnp.float32) / rows.token_budget


def loss(
    logp_BT: jax.Array,
    batch: PolicyBatch,
    *,
    clip_eps: float = 0.2,
    kl_coef: float = 1e-3,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over micro-batches."""
  total, metrics = surrogate.clipped_loss(
      logp_BT, batch.old_logp_BT, batch.ref_logp_BT, batch.advantage_BT,
      batch.weight_BT, clip_low=clip_eps, clip_high=clip_eps, kl_coef=kl_coef)
  return total, metrics | {'budget_fill': jnp.sum(batch.weight_BT)}
