"""From graded responses to the batch of an update."""
from __future__ import annotations

from experiments.policy import critics
from experiments.policy import policy_draws
from experiments.policy import policy_pieces
from rljax import packing
from rljax import processes
from rljax.rollout import statistics
from rljax.training import batch as batches
from rljax.training import guidance


def select_and_pack(config, graded, step: int, num_microbatches: int = 1):
  """Advantages over complete groups, then the budget, then the rows."""
  advantage_R = critics.response_advantages(config, graded)
  selection = packing.select(
      policy_draws.selectable(graded), seed=[config.seed, step],
      advantage_R=advantage_R, group_size=config.rollout.samples_per_prompt,
      **config.packing.select)
  rows = packing.pack(
      graded.rollout, advantage_R, selection,
      num_rows=config.packing.num_rows, row_length=config.packing.row_length,
      num_microbatches=num_microbatches,
      max_response_length=config.rollout.max_new_tokens)
  fill = packing.row_fill(rows.segment_BT, num_microbatches)
  report = packing.statistics(selection) | {
      'row_fill': fill, 'train_tokens': float((rows.segment_BT > 0).sum())}
  return rows, report


def make_batch(config, pieces: policy_pieces.Pieces, params, critic_state,
               graded, rows, weight_BT, entropy_coef: float | None):
  """What the update takes of the rows, under the parameters before it.

  Returns:
    The batch, that of the critic or None, and metrics.
  """
  batch = batches.policy_batch(
      rows, weight_BT, packing.policy_shares(rows.segment_BT),
      pieces.stages.score, params, pieces.reference,
      replay=config.routing_replay, entropy_coef=entropy_coef)
  fresh_BT = rows.mask_BT & ~guidance.off_policy(
      rows, graded.guided_PG, graded.recorded_PG)
  mismatch = statistics.mismatch(
      rows.sampled_logp_BT, processes.fetch(batch.old_logp_BT), fresh_BT)
  values, valued = None, {}
  if pieces.critic is not None:
    batch, values, valued = critics.judge(
        pieces.critic, critic_state, batch, rows, graded.rollout)
  batch, corrected = batches.corrected(batch, rows, pieces.stages.correct)
  batch, hints = with_guidance(config, batch, rows, graded)
  steered = {} if entropy_coef is None else {'entropy_coef': entropy_coef}
  return batch, values, valued | mismatch | corrected | hints | steered


def with_guidance(config, batch, rows, graded):
  """The batch with hinted answers marked, and their metrics."""
  if config.guide.mode == 'off':
    return batch, {}
  # Whole, so that nothing of what follows is exchanged between processes.
  batch = batch.replace(old_logp_BT=processes.fetch(batch.old_logp_BT),
                        advantage_BT=processes.fetch(batch.advantage_BT))
  batch, report = guidance.guided_batch(
      batch, rows, graded.guided_PG.ravel(), graded.recorded_PG.ravel(),
      denominator=config.guide.denominator, quantile=config.guide.quantile,
      plain_weight=config.guide.plain_weight)
  # On the host again: the update splits its rows over the devices.
  made = ('old_logp_BT', 'advantage_BT', 'guided_BT', 'gamma_B')
  return batch.replace(**{
      name: processes.fetch(getattr(batch, name)) for name in made}), report
