"""DPO whose tokens weigh by what a guide thinks of them.

  r_t = β_r (log π_guide - log π_ref)_t
  L = -log σ(Σ_w β (1 + α r_t) ρ_t - Σ_l β (1 - α r_t) ρ_t)

The guide is a model that was trained on preferences before. With α = 0, or the
reference as guide, this is DPO. The weights are constants: neither guide nor
reference gets a gradient. Nothing keeps them positive, without which the
derivation does not hold: `guide_not_positive` counts those that are not, and
`guide_weight_least` and `_most` are a pair's extremes, on average over pairs. A
prefix that both responses share does not cancel as it does in DPO;
`mask_shared_prefix` leaves it out, of the loss and of what is said of weights.

| in the official code | here |
|---|---|
| logged rewards are DPO's | also the loss' own, as `weighted_*` |
| one β for weights and margin | β_r is β unless given |
| averages divide by the batch's size | means over tokens of the response |

Reference: TGDPO (arXiv 2506.14574) and its official code.
"""
import jax
import jax.numpy as jnp

from rljax.ops import pairs
from rljax.types import PreferenceBatch

READS = ('ref_logp_BT', 'guide_logp_BT')


def loss(
    logp_BT: jax.Array,
    batch: PreferenceBatch,
    *,
    beta: float = 0.1,
    alpha: float = 0.5,
    reward_beta: float | None = None,
    weight_clip: float | None = None,
    mask_shared_prefix: bool = False,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over rows.

  Args:
    logp_BT: log π of every token.
    batch: holds those of reference and guide.
    beta: β.
    alpha: α.
    reward_beta: β_r; None: β.
    weight_clip: weights are kept within 1 ± this; None: as they are.
    mask_shared_prefix: leaves out tokens up to where the responses differ.

  Raises:
    ValueError: no reference or no guide.
  """
  if batch.guide_logp_BT is None:
    raise ValueError('Expected log-probabilities of a guide, got none. Score '
                     'one, or take dpo.')
  reward_beta = beta if reward_beta is None else reward_beta
  ratio_BT = pairs.log_ratios(logp_BT, batch)
  like_BT = jax.lax.stop_gradient(reward_beta * pairs.log_ratios(
      batch.guide_logp_BT, batch))
  tilt_BT = alpha * jnp.where(batch.chosen_BT, like_BT, -like_BT)
  if weight_clip is not None:
    tilt_BT = jnp.clip(tilt_BT, -weight_clip, weight_clip)
  weight_BT = 1 + tilt_BT
  counted = batch.replace(
      mask_BT=batch.mask_BT & ~pairs.in_shared_prefix(batch)) if (
          mask_shared_prefix) else batch
  weighted = pairs.sums(beta * weight_BT * ratio_BT, counted)
  loss_BP = -jax.nn.log_sigmoid(weighted.margin_BP)

  plain = pairs.sums(beta * ratio_BT, batch)
  mean = pairs.means(weight_BT, counted)
  least_BP, most_BP = pairs.extremes(weight_BT, counted)
  negative = pairs.means((weight_BT <= 0).astype(logp_BT.dtype), counted)
  return pairs.outcome(
      batch, loss_BP, plain, weighted_margin=weighted.margin_BP,
      weighted_accuracy=(weighted.margin_BP > 0).astype(logp_BT.dtype),
      guide_weight_chosen=mean.chosen_BP,
      guide_weight_rejected=mean.rejected_BP,
      guide_weight_least=least_BP, guide_weight_most=most_BP,
      guide_not_positive=(negative.chosen_BP + negative.rejected_BP) / 2)
