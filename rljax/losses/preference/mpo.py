"""Three losses on each pair: which is better, how good each is, how to say it.

  L = p (-log σ(β (ρ_w - ρ_l))) + q (-log σ(β ρ_w) - log σ(-β ρ_l))
      - g lp_w / |w|

Reference: MPO (arXiv 2411.10442), eqs. 3 to 6, without the running mean of the
rewards in the second term.
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
    preference_coef: float = 0.8,
    quality_coef: float = 0.2,
    generation_coef: float = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over rows.

  Args:
    logp_BT: log π of every token.
    batch: holds the reference's.
    beta: β.
    preference_coef: p.
    quality_coef: q.
    generation_coef: g.

  Raises:
    ValueError: no reference.
  """
  rho = pairs.log_ratio_sums(logp_BT, batch).scaled(beta)
  minus = lambda x_BP: -jax.nn.log_sigmoid(x_BP)
  preference_BP = minus(rho.margin_BP)
  quality_BP = minus(rho.chosen_BP) + minus(-rho.rejected_BP)
  generation_BP = -pairs.means(logp_BT, batch).chosen_BP
  loss_BP = (preference_coef * preference_BP + quality_coef * quality_BP
             + generation_coef * generation_BP)
  return pairs.outcome(
      batch, loss_BP, rho, preference=preference_BP, quality=quality_BP,
      generation=generation_BP)
