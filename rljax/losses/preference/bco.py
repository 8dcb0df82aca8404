"""Each response is classified by itself.

  L = -log σ(β ρ_w) - log σ(-β ρ_l)

Reference: BCO (arXiv 2404.04656), without its running mean of the rewards.
"""
import jax

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
  loss_BP = -jax.nn.log_sigmoid(beta * rho.chosen_BP) - jax.nn.log_sigmoid(
      -beta * rho.rejected_BP)
  return pairs.outcome(batch, loss_BP, rho.scaled(beta))
