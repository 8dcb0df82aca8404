"""Noise contrastive alignment of a pair.

  L = -log σ(β ρ_w) - ½ log σ(-β ρ_w) - ½ log σ(-β ρ_l)

Reference: NCA (arXiv 2402.05369), for two responses.
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
  minus = lambda x_BP: -jax.nn.log_sigmoid(x_BP)
  loss_BP = minus(beta * rho.chosen_BP) + 0.5 * (
      minus(-beta * rho.chosen_BP) + minus(-beta * rho.rejected_BP))
  return pairs.outcome(batch, loss_BP, rho.scaled(beta))
