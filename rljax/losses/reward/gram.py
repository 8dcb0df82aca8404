"""A language model that names the better of two responses, not too surely.

  L = -(1-ε) log σ(Δ) - ε log σ(-Δ),  Δ = z_right - z_wrong

z are the logits of the two labels where the label is predicted: read as scores
of the responses, -log σ(Δ) is Bradley and Terry's loss, and ε keeps Δ from
growing beyond log((1-ε)/ε). The same in two other forms:

  L = -log σ(Δ) + ε Δ
  L = (1-2ε) (-log σ(Δ)) + 2ε (KL(uniform ‖ p) + log 2)

| paper's figure | official code | here |
|---|---|---|
| ε on the wrong label | s smooths over both labels: ε = s / 2 | ε |
| all of the vocabulary | the two labels alone | `mass_coef` 1, or 0 |

`mass_coef` adds -log(π(A) + π(B)), which only draws mass to the labels.

Reference: GRAM (arXiv 2506.14175), figure 1 of its code, and that code.
"""
import chex
import jax
import jax.numpy as jnp

from rljax.ops import comparisons
from rljax.types import RewardBatch

_WRONG_LABEL_MASS = 0.05  # s = 0.1 in the official settings


def loss(
    score_BPC: jax.Array,
    batch: RewardBatch,
    *,
    wrong_label_mass: float | None = None,
    torch_label_smoothing: float | None = None,
    mass_coef: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over rows.

  Args:
    score_BPC: log π of the two labels; for the loss itself, logits would do.
    batch: ranks 0 and 1: which label is right. Margins are not read.
    wrong_label_mass: ε; 0.05 if neither is given.
    torch_label_smoothing: s = 2ε, as torch counts over two classes.
    mass_coef: of the vocabulary's term, for which log π are needed.

  Raises:
    ValueError: a number out of its range, or ε given twice.
  """
  comparisons.check(score_BPC, batch)
  chex.assert_axis_dimension(score_BPC, -1, 2)
  wrong_mass = label_mass(wrong_label_mass, torch_label_smoothing)
  if mass_coef < 0:
    raise ValueError(f'Expected mass_coef >= 0, got {mass_coef}. Correct '
                     'config.loss.')
  better_BPCC = comparisons.is_better(batch)
  loss_BP = comparisons.pair_means(comparisons.nll(
      comparisons.gaps(score_BPC, better_BPCC), wrong_mass=wrong_mass),
                                   better_BPCC)
  here_BPC = comparisons.present(batch)
  both_BP = jax.nn.logsumexp(jnp.where(here_BPC, score_BPC, 0.0), axis=-1)
  both_BP = jnp.where(here_BPC.all(axis=-1), both_BP, 0.0)
  loss_BP -= mass_coef * both_BP
  return comparisons.outcome(batch, loss_BP, score_BPC, label_logp=both_BP)


def label_mass(wrong_label_mass: float | None,
               torch_label_smoothing: float | None) -> float:
  """ε, however it was given."""
  if wrong_label_mass is not None and torch_label_smoothing is not None:
    raise ValueError(
        'Expected wrong_label_mass or torch_label_smoothing, which is twice '
        f'that, got {wrong_label_mass} and {torch_label_smoothing}. Give one.')
  if torch_label_smoothing is not None:
    wrong_label_mass = torch_label_smoothing / 2
  mass = _WRONG_LABEL_MASS if wrong_label_mass is None else wrong_label_mass
  if not 0 <= mass < 0.5:
    raise ValueError(
        f'Expected wrong_label_mass in [0, 0.5), got {mass}: at 1/2 labels say '
        'nothing. Correct config.loss.')
  return mass
