"""The ranking as a sequence of choices, each among what is left.

  L = Σ_k [log Σ_{j>=k} exp s_(j) - s_(k)] + c mean over pairs of (s + s')²

s_(k) is the score of the k-th best; of two candidates this is Bradley and
Terry's loss. Candidates of equal rank must not be in one list: which of them
was chosen first is not known.

The metric `best_first` compares the best with those that are worse, and equals
with nobody: of several best it takes the one that scores most. Where that score
is shared by k worse ones, it is 1/(1 + k), what drawing one of them would give;
a list without a worse candidate says nothing, and counts as a half.

The sums of exponentials are never formed: they overflow where their logarithms
do not.

Reference: Plackett, The analysis of permutations (Applied Statistics 24, 1975);
for reward models, NiuTrans' Vision-LLM-Alignment.
"""
import jax
import jax.numpy as jnp

from rljax.ops import comparisons
from rljax.types import RewardBatch

_LOWEST = -1e30  # of what is not there; finite, so that differences are


def loss(
    score_BPC: jax.Array,
    batch: RewardBatch,
    *,
    center_coef: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over rows.

  Args:
    score_BPC: s.
    batch: holds the ranks, without ties; margins are not read.
    center_coef: c.

  Raises:
    ValueError: a number out of its range.
  """
  comparisons.check(score_BPC, batch)
  if center_coef < 0:
    raise ValueError(f'Expected center_coef >= 0, got {center_coef}. Correct '
                     'config.loss.')
  here_BPC = comparisons.present(batch)
  last = jnp.iinfo(jnp.int32).max
  order_BPC = jnp.argsort(jnp.where(here_BPC, batch.rank_BPC, last), axis=-1)
  ranked = lambda x_BPC: jnp.take_along_axis(x_BPC, order_BPC, axis=-1)
  here_BPC, score_by_rank_BPC = ranked(here_BPC), ranked(score_BPC)
  best_first_BPC = jnp.where(here_BPC, score_by_rank_BPC, _LOWEST)
  left_BPC = jax.lax.cumlogsumexp(best_first_BPC, axis=2, reverse=True)
  loss_BP = jnp.sum(
      jnp.where(here_BPC, left_BPC - best_first_BPC, 0.0), axis=-1)
  better_BPCC = comparisons.is_better(batch)
  loss_BP += center_coef * comparisons.off_centre(score_BPC, better_BPCC)
  return comparisons.outcome(batch, loss_BP, score_BPC,
                             best_first=best_first(score_BPC, batch))


def best_first(score_BPC: jax.Array, batch: RewardBatch) -> jax.Array:
  """The metric above, of each list, in [0, 1]."""
  here_BPC = comparisons.present(batch)
  is_worse_BPC = jnp.any(comparisons.is_better(batch), axis=-2)
  most_BP1 = jnp.max(jnp.where(here_BPC, score_BPC, _LOWEST), axis=-1,
                     keepdims=True)
  on_top_BPC = here_BPC & (score_BPC == most_BP1)
  count = lambda mask_BPC: jnp.sum(mask_BPC.astype(jnp.float32), axis=-1)
  is_best_BP = jnp.any(on_top_BPC & ~is_worse_BPC, axis=-1)
  share_BP = jnp.where(
      is_best_BP, 1 / (1 + count(on_top_BPC & is_worse_BPC)), 0.0)
  return jnp.where(jnp.any(is_worse_BPC, axis=-1), share_BP, 0.5)
