"""Sums over the responses of pairs, and what every preference loss reports.

Of a response y: lp = Σ_t log π(y_t), over its own tokens; ρ = lp - lr, against
the reference. Chosen and rejected side of pair p stand in one row of the batch.
"""
from __future__ import annotations

from flax import struct
import jax
import jax.numpy as jnp

from rljax.ops import masking
from rljax.ops import segments
from rljax.types import PreferenceBatch


@struct.dataclass
class Sides:
  """A number for either response of each pair."""
  chosen_BP: jax.Array
  rejected_BP: jax.Array

  @property
  def margin_BP(self) -> jax.Array:
    return self.chosen_BP - self.rejected_BP

  def scaled(self, factor: float) -> Sides:
    return self.map(lambda x_BP: factor * x_BP)

  def map(self, function, *others: Sides) -> Sides:
    return jax.tree.map(function, self, *others)


def sums(x_BT: jax.Array, batch: PreferenceBatch) -> Sides:
  """Σ_t x_t over the tokens of each response; what is masked may be NaN.

  Raises:
    ValueError: numbers of fewer than 32 bits, of which no sum is to be had.
  """
  if jnp.issubdtype(x_BT.dtype, jnp.floating) and (
      jnp.finfo(x_BT.dtype).bits < 32):
    raise ValueError(f'Expected float32 numbers of each token, got '
                     f'{x_BT.dtype.name}. Cast the logits, not their sums.')
  x_BT = jnp.where(batch.mask_BT, x_BT, 0)
  number_P = jnp.arange(1, batch.weight_BP.shape[1] + 1, dtype=jnp.int32)
  of_pair_BTP = batch.pair_BT[..., None] == number_P[None, None]
  side = lambda of_side_BT: jnp.einsum(
      'bt,btp->bp', jnp.where(of_side_BT, x_BT, 0),
      of_pair_BTP.astype(x_BT.dtype))
  return Sides(side(batch.chosen_BT), side(~batch.chosen_BT))


def lengths(batch: PreferenceBatch, dtype=jnp.float32) -> Sides:
  """Response tokens; at least 1, to divide by."""
  return sums(batch.mask_BT.astype(dtype), batch).map(
      lambda x_BP: jnp.maximum(x_BP, 1))


def present(batch: PreferenceBatch, dtype=jnp.float32) -> Sides:
  """1 for a response with a token, 0 for none."""
  return sums(batch.mask_BT.astype(dtype), batch).map(
      lambda x_BP: (x_BP > 0).astype(dtype))


def means(x_BT: jax.Array, batch: PreferenceBatch) -> Sides:
  """Mean over the tokens of each response."""
  return sums(x_BT, batch).map(jnp.divide, lengths(batch, x_BT.dtype))


def extremes(x_BT: jax.Array, batch: PreferenceBatch
             ) -> tuple[jax.Array, jax.Array]:
  """x_BP: least and greatest number of each pair's tokens; 0 without one."""
  number_P = jnp.arange(1, batch.weight_BP.shape[1] + 1, dtype=jnp.int32)
  inside_BTP = (batch.mask_BT[..., None]
                & (batch.pair_BT[..., None] == number_P[None, None]))
  there_BP = inside_BTP.any(axis=1)
  reduce = lambda of, start: jnp.where(there_BP, of(
      jnp.where(inside_BTP, x_BT[..., None], start), axis=1), 0)
  return reduce(jnp.min, jnp.inf), reduce(jnp.max, -jnp.inf)


def token_weights(batch: PreferenceBatch) -> jax.Array:
  """weight_BT with which Σ is the mean of responses' means over their tokens.

  Half of a pair's weight for either side, shared out among its tokens.
  """
  each = lengths(batch).map(
      lambda length_BP: batch.weight_BP.astype(jnp.float32) / 2 / length_BP)
  pair_BT = jnp.maximum(batch.pair_BT - 1, 0)
  take = lambda x_BP: jnp.take_along_axis(x_BP, pair_BT, axis=1)
  weight_BT = jnp.where(batch.chosen_BT, take(each.chosen_BP),
                        take(each.rejected_BP))
  return jnp.where(batch.mask_BT, weight_BT, 0.0)


def log_ratios(logp_BT: jax.Array, batch: PreferenceBatch) -> jax.Array:
  """log π - log π_ref, token by token; the reference gets no gradient.

  Raises:
    ValueError: no reference was scored.
  """
  if batch.ref_logp_BT is None:
    raise ValueError('Expected log-probabilities of a reference, got none. '
                     'Score one, or choose a loss without.')
  return masking.masked_difference(
      logp_BT, jax.lax.stop_gradient(batch.ref_logp_BT), batch.mask_BT)


def log_ratio_sums(logp_BT: jax.Array, batch: PreferenceBatch) -> Sides:
  """ρ of each response; raises as `log_ratios`."""
  return sums(log_ratios(logp_BT, batch), batch)


def mismatched_kl(logp_BT: jax.Array, batch: PreferenceBatch) -> jax.Array:
  """KTO's z: max(0, mean of ρ over responses to the prompts of others).

  Args:
    logp_BT: of the policy before the update.
    batch: the whole step, each prompt with responses to another one, and the
      reference's log-probabilities. A mean over examples: one may be alone in
      its pair.

  Returns:
    A scalar without a gradient; the same for every row of the step.

  Raises:
    ValueError: no reference was scored.
  """
  rho = log_ratio_sums(logp_BT, batch)
  there = present(batch, logp_BT.dtype).map(lambda x_BP: jnp.where(
      batch.weight_BP > 0, x_BP, 0))
  both = lambda side: jnp.sum(side.chosen_BP) + jnp.sum(side.rejected_BP)
  mean = both(rho.map(jnp.multiply, there)) / jnp.maximum(both(there), 1)
  return jax.lax.stop_gradient(jnp.maximum(mean, 0))


def place_in_response(batch: PreferenceBatch) -> jax.Array:
  """int32: how many response tokens of its side come before a token."""
  inside_BT = batch.mask_BT.astype(jnp.int32)
  return segments.running_sum(inside_BT, batch.segment_BT) - inside_BT


def in_shared_prefix(batch: PreferenceBatch) -> jax.Array:
  """bool: response tokens before the first in which a pair's sides differ.

  Counted over the row, the response tokens of a side have numbers in a row: the
  token at the same place of the other side is found by its first number, in
  time and memory that grow with T, not with its square.
  """
  mask_BT, num_tokens = batch.mask_BT, batch.mask_BT.shape[1]
  count_BT = mask_BT.astype(jnp.int32)
  number_BT = jnp.cumsum(count_BT, axis=1) - count_BT
  place_BT = place_in_response(batch)
  # C: sides, of which pair p has 2p and 2p + 1; 0 and 1 are of no pair.
  side_BT = 2 * batch.pair_BT + batch.chosen_BT
  row_B1 = jnp.arange(mask_BT.shape[0])[:, None]
  zeros_BC = jnp.zeros(
      (mask_BT.shape[0], 2 * batch.weight_BP.shape[1] + 2), jnp.int32)
  first_BC = (zeros_BC + num_tokens).at[row_B1, side_BT].min(
      jnp.where(mask_BT, number_BT, num_tokens))
  size_BC = zeros_BC.at[row_B1, side_BT].add(count_BT)
  by_number_BT = jnp.zeros_like(batch.tokens_BT).at[
      row_B1, jnp.where(mask_BT, number_BT, num_tokens)].set(
          batch.tokens_BT, mode='drop')

  of_other = lambda x_BC: jnp.take_along_axis(x_BC, side_BT ^ 1, axis=1)
  there_BT = (batch.pair_BT > 0) & (place_BT < of_other(size_BC))
  other_BT = jnp.take_along_axis(by_number_BT, jnp.where(
      there_BT, of_other(first_BC) + place_BT, 0), axis=1)
  differs_BT = mask_BT & ~(there_BT & (batch.tokens_BT == other_BT))
  return mask_BT & (segments.running_sum(
      differs_BT.astype(jnp.int32), batch.segment_BT) == 0)


def total(batch: PreferenceBatch, x_BP: jax.Array) -> jax.Array:
  """Σ over pairs, weighted; places without a pair do not count."""
  return masking.weighted_sum(batch.weight_BP.astype(x_BP.dtype), x_BP)


def outcome(batch: PreferenceBatch, loss_BP: jax.Array, reward: Sides,
            **more: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss and the metrics that all have; each is a mean over pairs.

  Args:
    batch: for the weights.
    loss_BP: of each pair.
    reward: implicit rewards, for the report.
    **more: further numbers of each pair.
  """
  reward = jax.lax.stop_gradient(reward)
  metrics = {
      'reward_chosen': reward.chosen_BP, 'reward_rejected': reward.rejected_BP,
      'reward_margin': reward.margin_BP,
      'reward_accuracy': (reward.margin_BP > 0).astype(loss_BP.dtype)} | more
  return total(batch, loss_BP), {
      name: total(batch, jax.lax.stop_gradient(x_BP))
      for name, x_BP in metrics.items()}
