"""Each response by itself against where the policy is: by its label alone.

  chosen    L = λ_D (1 - σ(β (ρ_w - z)))
  rejected  L = λ_U (1 - σ(β (z - ρ_l))),  z = max(0, mean of ρ over mismatched
                                                   prompts and responses)

A pair counts as the mean over its sides; a side without a token is not there,
so that an example with one label (`data.preference`, form 'labels') is a pair
of one side, and counts as much as a pair. What is reported of the side that is
not there is 0: the margin is the reward, its sign turned where the label is
bad. z is an estimate of KL(policy ‖ reference) on the whole step
(`pairs.mismatched_kl`), a constant that all rows carry: micro-batches cannot
change it.

Reference: KTO (arXiv 2402.01306), eqs. 7 and 8, where λ makes up for classes of
unequal size: λ_D n_D / (λ_U n_U) within 1 to 4/3.
"""
import jax
import jax.numpy as jnp

from rljax.ops import pairs
from rljax.types import PreferenceBatch

READS = ('ref_logp_BT', 'kl_B')
ONE_SIDED = True


def loss(
    logp_BT: jax.Array,
    batch: PreferenceBatch,
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over rows.

  Args:
    logp_BT: log π of every token.
    batch: holds the reference's, and z.
    beta: β.
    desirable_weight: λ_D.
    undesirable_weight: λ_U.

  Raises:
    ValueError: no reference, or no z.
  """
  if batch.kl_B is None:
    raise ValueError('Expected the divergence of mismatched pairs in kl_B, got '
                     'none. Score such pairs, and take pairs.mismatched_kl.')
  rho = pairs.log_ratio_sums(logp_BT, batch)
  z_B1 = jax.lax.stop_gradient(batch.kl_B)[:, None]
  side = pairs.Sides(
      desirable_weight * jax.nn.sigmoid(-beta * (rho.chosen_BP - z_B1)),
      undesirable_weight * jax.nn.sigmoid(-beta * (z_B1 - rho.rejected_BP)))
  there = pairs.present(batch, logp_BT.dtype)
  loss_BP = (side.chosen_BP * there.chosen_BP
             + side.rejected_BP * there.rejected_BP) / jnp.maximum(
                 there.chosen_BP + there.rejected_BP, 1)
  return pairs.outcome(batch, loss_BP, rho.scaled(beta),
                       kl=jnp.broadcast_to(z_B1, loss_BP.shape))
