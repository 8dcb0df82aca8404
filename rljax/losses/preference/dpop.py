"""DPO that does not let the chosen response become less likely.

  L = -log σ(β (ρ_w - ρ_l - λ max(0, -ρ_w)))

Reference: DPO-Positive (arXiv 2402.13228).
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
    penalty: float = 50.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over rows.

  Args:
    logp_BT: log π of every token.
    batch: holds the reference's.
    beta: β.
    penalty: λ.

  Raises:
    ValueError: no reference.
  """
  rho = pairs.log_ratio_sums(logp_BT, batch)
  fallen_BP = jnp.maximum(0, -rho.chosen_BP)
  loss_BP = -jax.nn.log_sigmoid(
      beta * (rho.margin_BP - penalty * fallen_BP))
  return pairs.outcome(batch, loss_BP, rho.scaled(beta))
