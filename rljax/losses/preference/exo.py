"""The reverse divergence between the policy's preference and the label's.

  L = q log(q / (1-ε)) + (1-q) log((1-q) / ε),  q = σ(β (ρ_w - ρ_l))

Reference: EXO (arXiv 2402.00856), for two responses.
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
    label_smoothing: float = 1e-3,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over rows.

  Args:
    logp_BT: log π of every token.
    batch: holds the reference's.
    beta: β.
    label_smoothing: ε in (0, 1): at 0 the loss is infinite.

  Raises:
    ValueError: ε out of its range, or no reference.
  """
  if not 0 < label_smoothing < 1:
    raise ValueError(f'Expected label_smoothing in (0, 1), got '
                     f'{label_smoothing}. Correct config.loss.')
  rho = pairs.log_ratio_sums(logp_BT, batch)
  margin_BP = beta * rho.margin_BP
  side = lambda x_BP, log_share: jax.nn.sigmoid(x_BP) * (
      jax.nn.log_sigmoid(x_BP) - log_share)
  loss_BP = side(margin_BP, jnp.log1p(-label_smoothing)) + side(
      -margin_BP, jnp.log(label_smoothing))
  return pairs.outcome(batch, loss_BP, rho.scaled(beta))
