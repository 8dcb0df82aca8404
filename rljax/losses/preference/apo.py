"""Anchored: pushes either response to one side of where it was.

  zero  1 - σ(β ρ_w) + σ(β ρ_l): chosen up, rejected down
  down  σ(β ρ_w) + 1 - σ(β (ρ_w - ρ_l)): chosen down, rejected further down

Reference: APO (arXiv 2408.06266).
"""
import jax

from rljax.ops import pairs
from rljax.types import PreferenceBatch

READS = ('ref_logp_BT',)


def loss(
    logp_BT: jax.Array,
    batch: PreferenceBatch,
    *,
    form: str = 'zero',
    beta: float = 0.1,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over rows.

  Args:
    logp_BT: log π of every token.
    batch: holds the reference's.
    form: 'zero', where chosen responses are better than the model's; 'down'
      where they are worse.
    beta: β.

  Raises:
    ValueError: an unknown form, or no reference.
  """
  if form not in ('zero', 'down'):
    raise ValueError(f"Expected form 'zero' or 'down', got {form!r}. Correct "
                     'config.loss.')
  rho = pairs.log_ratio_sums(logp_BT, batch)
  up = lambda x_BP: jax.nn.sigmoid(beta * x_BP)
  if form == 'zero':
    loss_BP = 1 - up(rho.chosen_BP) + up(rho.rejected_BP)
  else:
    loss_BP = up(rho.chosen_BP) + 1 - up(rho.margin_BP)
  return pairs.outcome(batch, loss_BP, rho.scaled(beta))
