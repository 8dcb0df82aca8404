"""A loss that was found by search: logistic and exponential, blended.

  L = (1 - s) (-log σ(x)) + s e^{-x},  x = β (ρ_w - ρ_l),  s = σ(x / τ)

Reference: DiscoPOP (arXiv 2406.08414).
"""
import jax
import jax.numpy as jnp

from rljax.ops import pairs
from rljax.types import PreferenceBatch

READS = ('ref_logp_BT',)

_LARGEST = 80.0  # e to this is a float32


def loss(
    logp_BT: jax.Array,
    batch: PreferenceBatch,
    *,
    beta: float = 0.1,
    tau: float = 0.05,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over rows.

  Args:
    logp_BT: log π of every token.
    batch: holds the reference's.
    beta: β.
    tau: τ.

  Raises:
    ValueError: no reference.
  """
  rho = pairs.log_ratio_sums(logp_BT, batch)
  x_BP = beta * rho.margin_BP
  blend_BP = jax.nn.sigmoid(x_BP / tau)
  # Where e^{-x} would overflow, its weight is 0.
  decay_BP = jnp.exp(-jnp.maximum(x_BP, -_LARGEST))
  loss_BP = (1 - blend_BP) * -jax.nn.log_sigmoid(x_BP) + blend_BP * decay_BP
  return pairs.outcome(batch, loss_BP, rho.scaled(beta))
