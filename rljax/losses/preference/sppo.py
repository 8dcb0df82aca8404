"""Self-play: log-ratios of ±1/(2β) for a response that wins or loses.

  L = (ρ_w - 1/(2β))² + (ρ_l + 1/(2β))²

Reference: SPPO (arXiv 2405.00675), with hard labels.
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
  goal = 1 / (2 * beta)
  loss_BP = jnp.square(rho.chosen_BP - goal) + jnp.square(
      rho.rejected_BP + goal)
  return pairs.outcome(batch, loss_BP, rho.scaled(beta))
