"""Each better response should score more than each worse one of its list.

  L = mean over pairs of -(1-ε) log σ(s_w - s_l - m) - ε log σ(m - s_w + s_l)
      + c (s_w + s_l)²

A list of two is the ordinary pair; of a longer one all pairs weigh the same,
and the list as much as any other. ε smooths what the labels say, whether they
are right or not: where a share η of them is wrong, the expected loss is least
at σ(Δ - m) = (1-η)(1-ε) + ηε, so that ε = η does not undo the noise.

Reference: InstructGPT (arXiv 2203.02155), eq. 1; margin m: Llama 2 (arXiv
2307.09288), eq. 2; centring c: arXiv 2312.09244, §2.
"""
import jax

from rljax.ops import comparisons
from rljax.types import RewardBatch


def loss(
    score_BPC: jax.Array,
    batch: RewardBatch,
    *,
    wrong_label_mass: float = 0.0,
    margin_coef: float = 0.0,
    center_coef: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over rows.

  Args:
    score_BPC: s.
    batch: holds the ranks and the margins.
    wrong_label_mass: ε, put on the order that the label denies.
    margin_coef: times the margin of the batch is m; 0 ignores margins.
    center_coef: c; 0.01 is usual.

  Raises:
    ValueError: a number out of its range.
  """
  comparisons.check(score_BPC, batch)
  if not 0 <= wrong_label_mass < 0.5 or margin_coef < 0 or center_coef < 0:
    raise ValueError(
        'Expected wrong_label_mass in [0, 0.5), margin_coef >= 0 and '
        f'center_coef >= 0, got {wrong_label_mass}, {margin_coef} and '
        f'{center_coef}. Correct config.loss.')
  better_BPCC = comparisons.is_better(batch)
  margin_BP11 = margin_coef * batch.margin_BP[..., None, None]
  loss_BP = comparisons.pair_means(comparisons.nll(
      comparisons.gaps(score_BPC, better_BPCC), wrong_mass=wrong_label_mass,
      margin=margin_BP11), better_BPCC)
  loss_BP += center_coef * comparisons.off_centre(score_BPC, better_BPCC)
  return comparisons.outcome(batch, loss_BP, score_BPC)
