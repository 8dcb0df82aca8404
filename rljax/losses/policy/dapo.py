"""DAPO: clipped policy gradient averaged over tokens, clipped higher above.

  L = -(1/Σ_i ℓ_i) Σ_i Σ_t [min(ρ_it A_i, clip(ρ_it, 1-ε_low, 1+ε_high) A_i)
                            - β k3_it]

The wider upper bound lets unlikely tokens gain probability, which keeps the
entropy up. The rest of the method is no loss: groups that are all right or all
wrong are replaced before the step (`ops.advantages.informative_groups`), and
the soft penalty on overlong responses is part of the reward.

Reference: DAPO (arXiv 2503.14476), eqs. 8-12.

Differs from the paper: it has no KL term; `kl_coef` is 0 unless asked for.
"""
import jax

from rljax.ops import masking
from rljax.ops import surrogate
from rljax.types import PackedRows
from rljax.types import PolicyBatch


def token_weights(rows: PackedRows) -> jax.Array:
  """Weight 1 / (loss tokens of the step) on each of them."""
  return masking.uniform_weights(rows.mask_BT)


def loss(
    logp_BT: jax.Array,
    batch: PolicyBatch,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    kl_coef: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over micro-batches."""
  return surrogate.clipped_loss(
      logp_BT, batch.old_logp_BT, batch.ref_logp_BT, batch.advantage_BT,
      batch.weight_BT, clip_low=clip_low, clip_high=clip_high, kl_coef=kl_coef)
