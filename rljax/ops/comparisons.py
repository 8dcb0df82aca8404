"""Losses of comparisons, and what every reward loss reports.

Of two candidates, Δ is the score of the better less that of the worse:

  nll = -(1-ε) log σ(Δ - m) - ε log σ(m - Δ)

With ε = 0 this is Bradley and Terry's; else ε smooths what the label says, and
Δ of one label is drawn to log((1-ε)/ε) + m instead of ∞. Of labels a share η of
which is wrong, smoothing and noise add up: the expectation is least where
σ(Δ - m) = (1-η)(1-ε) + ηε. Preference objectives on differences of
log-probabilities are the same function of another Δ.

Reference: arXiv 2009.01325, eq. 1; margin: arXiv 2307.09288, eq. 2; ε: arXiv
2506.14175.
"""
from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from rljax.ops import masking
from rljax.types import RewardBatch


def nll(delta: jax.Array, *, wrong_mass: float = 0.0,
        margin: jax.Array | float = 0.0) -> jax.Array:
  """The function above, elementwise; finite however large Δ is."""
  ahead = delta - margin
  right = -jax.nn.log_sigmoid(ahead)
  if not wrong_mass:
    return right
  return (1 - wrong_mass) * right - wrong_mass * jax.nn.log_sigmoid(-ahead)


def check(score_BPC: jax.Array, batch: RewardBatch):
  """What every reward loss demands of its first argument."""
  chex.assert_equal_shape([score_BPC, batch.rank_BPC])
  chex.assert_type(score_BPC, jnp.float32)


def present(batch: RewardBatch) -> jax.Array:
  """bool: there is such a candidate, in a list that counts."""
  return (batch.rank_BPC >= 0) & (batch.weight_BP != 0)[..., None]


def is_better(batch: RewardBatch) -> jax.Array:
  """bool [B, P, C, C]: the first candidate beats the second one."""
  here_BPC = present(batch)
  return (here_BPC[..., :, None] & here_BPC[..., None, :]
          & (batch.rank_BPC[..., :, None] < batch.rank_BPC[..., None, :]))


def gaps(score_BPC: jax.Array, better_BPCC: jax.Array) -> jax.Array:
  """Δ of each pair of candidates; 0, and no gradient, of what is no pair."""
  return jnp.where(
      better_BPCC, score_BPC[..., :, None] - score_BPC[..., None, :], 0.0)


def pair_means(x_BPCC: jax.Array, better_BPCC: jax.Array) -> jax.Array:
  """Mean over the pairs of each list; 0 for a list without one."""
  count_BP = jnp.sum(better_BPCC.astype(x_BPCC.dtype), axis=(-2, -1))
  return jnp.sum(jnp.where(better_BPCC, x_BPCC, 0.0), axis=(-2, -1)) / (
      jnp.maximum(count_BP, 1.0))


def off_centre(score_BPC: jax.Array, better_BPCC: jax.Array) -> jax.Array:
  """Mean of (s + s')² over the pairs of each list.

  Comparisons say nothing of a constant that is added to all scores of a prompt;
  this penalty does.
  """
  total_BPCC = jnp.where(
      better_BPCC, score_BPC[..., :, None] + score_BPC[..., None, :], 0.0)
  return pair_means(jnp.square(total_BPCC), better_BPCC)


def outcome(batch: RewardBatch, loss_BP: jax.Array, score_BPC: jax.Array,
            **more: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss and the metrics that all have; each is a mean over lists.

  A tie of scores is not counted as right.

  Args:
    batch: for the weights.
    loss_BP: of each list.
    score_BPC: of each candidate.
    **more: further numbers of each list.
  """
  better_BPCC, here_BPC = is_better(batch), present(batch)
  gap_BPCC = gaps(score_BPC, better_BPCC)
  mean = lambda x_BPCC: pair_means(x_BPCC, better_BPCC)
  count_BP = jnp.maximum(jnp.sum(here_BPC.astype(jnp.float32), axis=-1), 1.0)
  numbers = {
      'accuracy': mean((gap_BPCC > 0).astype(jnp.float32)),
      'gap': mean(gap_BPCC),
      'score': jnp.sum(jnp.where(here_BPC, score_BPC, 0.0), -1) / count_BP,
  } | more
  total = lambda x_BP: masking.weighted_sum(batch.weight_BP, x_BP)
  return total(loss_BP), {
      name: total(jax.lax.stop_gradient(x_BP))
      for name, x_BP in numbers.items()}
