"""A margin of 1, and no wish for more.

  L = max(0, 1 - β (ρ_w - ρ_l))

Reference: SLiC-HF (arXiv 2305.10425), on log-ratios.
"""
import jax
import jax.numpy as jnp

from rljax.ops import pairs
from rljax.types import PreferenceBatch

READS = ('ref_logp_BT',)


def loss(
    logp_BT: jax.Array,
    batch: PreferenceBatch,
    *,
    beta: float = 0.1,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over rows.

  Args:
    logp_BT: log π of every token.
    batch: holds the reference's.
    beta: β.

  Raises:
    ValueError: no reference.
  """
  rho = pairs.log_ratio_sums(logp_BT, batch)
  loss_BP = jnp.maximum(0, 1 - beta * rho.margin_BP)
  return pairs.outcome(batch, loss_BP, rho.scaled(beta))
