"""Squares the distance of the margin to a target, so that it stays finite.

  L = (d - 1 / (2β))²,  d = ρ_w - ρ_l, of token means or of sums

Reference: IPO (arXiv 2310.12036), eq. 17, which has sums; its authors use token
means in practice.
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
    average: bool = True,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over rows.

  Args:
    logp_BT: log π of every token.
    batch: holds the reference's.
    beta: β.
    average: log-ratios over the tokens of a response.

  Raises:
    ValueError: no reference.
  """
  rho = (pairs.means if average else pairs.sums)(
      pairs.log_ratios(logp_BT, batch), batch)
  loss_BP = jnp.square(rho.margin_BP - 1 / (2 * beta))
  return pairs.outcome(batch, loss_BP, rho.scaled(beta))
