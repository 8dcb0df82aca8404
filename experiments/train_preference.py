"""Training on pairs: of two responses to a prompt, one was chosen.

  python -m experiments.train_preference \\
      --config=configs/preference/dpo_tiny.py --workdir=runs/dpo_tiny

The losses are in `rljax/losses/preference`. One that reads a reference gets the
policy as it begins, or the checkpoint that the config names; one that reads a
guide needs its checkpoint.

Reference: DPO (arXiv 2305.18290); TGDPO (arXiv 2506.14574).
"""
from __future__ import annotations

from typing import Any
from typing import Callable
from typing import NamedTuple

import jax

from experiments.job import launch
from experiments.job import reporting
from experiments.job import run_folder
from experiments.job import starting_params
from experiments.preference import preference_pairs
from rljax import losses
from rljax import packing
from rljax import processes
from rljax import sharding
from rljax.data import pipeline
from rljax.data import preference as records_lib
from rljax.evaluation import plots
from rljax.training import batch as batches
from rljax.training import checkpoint
from rljax.training import forward as forwards
from rljax.training import metrics as logging
from rljax.training import optimizer as optimizers
from rljax.training import preemption
from rljax.training import preference
from rljax.training import state as states
from rljax.training import update as updates


class Pieces(NamedTuple):
  """What the loop is made of, beside the state."""
  layout: preference.Layout
  examples: Any
  batches: preference_pairs.Batches
  score: Callable
  update: Callable
  judge: Callable   # params -> summary of the held-out pairs


def run(config, workdir: str) -> states.TrainState:
  """Builds the pieces, trains, and measures before and after."""
  job = launch.start(config, workdir, 'preference')
  objective = losses.get('preference', **config.loss)
  layout = preference_pairs.make_layout(config, job, objective.one_sided)
  config = run_folder.claim(config, job.workdir)
  keys = states.named_keys(config.seed, 'init', 'update')
  optimizer = optimizers.make_optimizer(**config.optimizer)
  data = preference_pairs.open_data(config, job)

  with (logging.CompilationCounter() as counter,
        sharding.use(job.mesh, job.rules),
        checkpoint.Checkpointer(job.workdir / 'checkpoints',
                                fingerprint=job.fingerprint,
                                **config.checkpoint) as saver):
    pieces, state = build(config, job, layout, data, objective, optimizer,
                          keys['init'])
    state, progress = saver.restore_or(state, {
        'stage': job.title, 'examples': pieces.examples.get_state(),
        'seconds': {}, 'before': {}})
    clock, first = reporting.Clock(progress['seconds']), int(state.step)
    before = progress['before'] or pieces.judge(state.params)
    state = train(config, job, pieces, state, progress | {'before': before},
                  clock, saver, keys['update'])
    if first >= config.num_steps and reporting.has_report(job):
      return state  # nothing was left to do: the report of that run stays
    after = pieces.judge(state.params)
  sections = {
      'data': data.counts, 'held_out': {'before': before, 'after': after},
      'curves': reporting.curves(job, (
          'loss', 'reward_accuracy', 'reward_margin', 'reward_chosen',
          'reward_rejected', 'logp_chosen', 'logp_rejected', 'grad_norm',
          'row_fill')),
      'step': reporting.step_seconds(job)}
  reporting.finish(job, config, clock, counter, sections,
                   reporting.training_plots(job, plots.PREFERENCE_PANELS))
  return state


def build(config, job, layout, data, objective, optimizer,
          key) -> tuple[Pieces, states.TrainState]:
  """The pieces, and the state to begin with."""
  loss = preference.reported(objective.loss)
  examples = pipeline.prompts(
      records_lib.source(data.name, data.train), seed=config.seed,
      **launch.share(config.data.examples_per_step))
  micro = dict(num_microbatches=layout.num_microbatches,
               batch_sharding=sharding.batch(job.mesh))
  forward = forwards.make_forward(job.model)
  score = forwards.make_score_fn(forward, **micro)
  by_pair = preference.make_by_pair(loss)
  state, state_sharding = starting_params.initial_state(
      config, job, optimizer, key)
  made = preference_pairs.make_batches(
      config, job, layout, data, objective.reads, forward, score, state.params)
  judge = lambda params: preference_pairs.summary(preference.evaluate(
      data.held_out, config.data.examples_per_step, made.judged, score, by_pair,
      params), data.held_out, config.seed)
  update = updates.make_update_fn(
      forwards.compose(forward, loss, **config.regularize),
      optimizer, router_bias_rate=config.router_bias_rate,
      takes_reference=bool(made.live), state_sharding=state_sharding, **micro)
  return Pieces(layout, examples, made, score, update, judge), state


def train(config, job, pieces: Pieces, state: states.TrainState, progress,
          clock, saver, key) -> states.TrainState:
  """The algorithm: pack, update, save."""
  parts, examples = pieces.layout.num_microbatches, pieces.examples
  examples.set_state(progress['examples'])
  first, waiting = int(state.step), None
  with (preemption.Preemption() as stop,
        logging.MetricWriter(job.workdir, first,
                             last_checkpoint=saver.latest_path) as writer):
    for step in logging.progress(range(first, config.num_steps), job.title):
      with clock('pack'):
        pairs = processes.gather_own(next(examples))
        batch, _ = pieces.batches.make(pairs, state.params)
      with clock('update'):
        if config.regularize.balance_coef and parts > 1:
          # The balance loss needs the load of the step, not of a part of it.
          batch = batches.with_load(batch, pieces.score, state.params)
        state, metrics = pieces.update(state, batch, key, *pieces.batches.live)
        # For the step before: meanwhile this one is queued.
        jax.block_until_ready(waiting)
        waiting = metrics['loss']
      report = {
          'train_tokens': float((batch.segment_BT > 0).sum()),
          'response_tokens': float(batch.mask_BT.sum()),
          'row_fill': packing.row_fill(batch.segment_BT, parts)}
      writer.write(step, metrics | report | clock.rates(report))
      progress = progress | {'examples': examples.get_state(),
                             'seconds': clock.seconds}
      run_folder.save(saver, writer, stop, state, step, metrics, progress,
                      last=step + 1 == config.num_steps)
    run_folder.leave_if_asked(stop, saver)
  return state


if __name__ == '__main__':
  launch.main(run)
