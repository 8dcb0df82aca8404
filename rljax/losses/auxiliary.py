"""Terms added to a policy loss: entropy bonus, router balance, router z-loss.

  entropy   -α Σ_t w_t H_t
  balance    α mean_l Σ_i load_li · P_li
  z          α mean_l Σ_t share_t (log Σ_j exp z_ltj)²

P is the mean of the full router softmax and carries the gradient. The load is
a count of choices, scaled to mean 1, and carries none. Balance is 1 for a
uniform router and num_experts / top_k when all tokens share their experts.

Reference: Ring-lite (arXiv 2506.14731), eqs. 4-6.

Differs from the paper:

             paper                 official code   ours
  entropy    L + α H, "to          not public      L - α H;
             encourage exploration"                `literal_sign` gives + α H
  balance    (1/N) Σ P F N, F a    not public      F scaled to mean 1, mean
             count: the N cancel                   over layers
  tokens     unsaid                not public      `share_BT`: all but padding
"""
import chex
import jax
import jax.numpy as jnp

from rljax.ops import masking
from rljax.types import RouterStats


def entropy_bonus(
    entropy_BT: jax.Array,
    weight_BT: jax.Array,
    *,
    entropy_coef: float,
    literal_sign: bool = False,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Term to add to the loss, and the entropy under the policy's own weights.

  Args:
    entropy_BT: entropy of the distribution each token was drawn from, nats.
    weight_BT: the weights of the policy loss.
    entropy_coef: α.
    literal_sign: eq. 6 as printed, which lowers the entropy. For study only.
  """
  chex.assert_equal_shape([entropy_BT, weight_BT])
  chex.assert_type([entropy_BT, weight_BT], jnp.float32)
  entropy = masking.weighted_sum(weight_BT, entropy_BT)
  coef = entropy_coef if literal_sign else -entropy_coef
  return coef * entropy, {'entropy': entropy}


def router_balance(
    stats: RouterStats,
    load_LE: jax.Array | None = None,
    *,
    balance_coef: float,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Term to add to the loss, and the balance itself (1 = uniform).

  Args:
    stats: routing sums of these rows.
    load_LE: the load of the whole step. None takes that of these rows, which is
      right only if they are the whole step: a product of two sums over
      micro-batches is not a sum over micro-batches.
    balance_coef: α.
  """
  load_LE = stats.load_LE if load_LE is None else load_LE
  chex.assert_rank(stats.mean_prob_LE, 2)
  chex.assert_equal_shape([stats.mean_prob_LE, load_LE])
  chex.assert_type([stats.mean_prob_LE, load_LE], jnp.float32)
  num_layers = load_LE.shape[0]
  balance = (
      jnp.sum(jax.lax.stop_gradient(load_LE) * stats.mean_prob_LE) / num_layers
  )
  return balance_coef * balance, {'router_balance': balance}


def router_z(
    stats: RouterStats, *, z_coef: float
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Term to add to the loss, and the mean over layers of the squared lse."""
  chex.assert_rank(stats.z_L, 1)
  chex.assert_type(stats.z_L, jnp.float32)
  z = jnp.sum(stats.z_L) / stats.z_L.shape[0]
  return z_coef * z, {'router_z': z}
