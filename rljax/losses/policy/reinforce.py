"""REINFORCE: the plain policy gradient, averaged over the tokens of the step.

  L = -(1/Σ_i ℓ_i) Σ_i Σ_t [A_i log π(y_it) - β k3_it]

No ratio and no clipping: right for one update per rollout, where the policy is
the one that sampled. There the clipped losses have the same gradient, which
makes this the yardstick for them.

Reference: Simple statistical gradient-following algorithms for connectionist
reinforcement learning (Machine Learning 8, 1992), theorem 1; token
mean as in DAPO (arXiv 2503.14476), eq. 8.
"""
import chex
import jax
import jax.numpy as jnp

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
    kl_coef: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over micro-batches."""
  chex.assert_equal_shape([logp_BT, batch.advantage_BT, batch.weight_BT])
  chex.assert_type([logp_BT, batch.advantage_BT, batch.weight_BT], jnp.float32)
  gain = masking.weighted_sum(batch.weight_BT, batch.advantage_BT * logp_BT)
  penalty, metrics = surrogate.kl_penalty(
      logp_BT, batch.ref_logp_BT, batch.weight_BT, kl_coef=kl_coef)
  return penalty - gain, metrics | {'surrogate': gain}
