"""Supervised fine-tuning on demonstrations: the distillation stage.

  python -m experiments.sft \\
      --config=configs/supervised/sft_tiny.py --workdir=runs/sft_tiny

Every checkpoint is kept, so that the one to start RL from can be chosen by its
entropy afterwards.

Reference: Ring-lite (arXiv 2506.14731) §3.1 and §4.3.
"""
from __future__ import annotations

import jax

from experiments.job import launch
from experiments.job import prompt_records
from experiments.job import reporting
from experiments.job import run_folder
from experiments.job import starting_params
from rljax import losses
from rljax import packing
from rljax import processes
from rljax import sharding
from rljax.data import chat
from rljax.data import pipeline
from rljax.data import sources
from rljax.data import teacher
from rljax.evaluation import plots
from rljax.training import batch as batches
from rljax.training import checkpoint
from rljax.training import forward as forwards
from rljax.training import metrics as logging
from rljax.training import optimizer as optimizers
from rljax.training import preemption
from rljax.training import state as states
from rljax.training import update as updates


def run(config, workdir: str) -> states.TrainState:
  """Builds the pieces, then writes the algorithm out as a loop."""
  job = launch.start(config, workdir, 'sft')
  launch.check_rows(config.packing.num_rows, config.data.examples_per_step,
                    'data.examples_per_step')
  parts = launch.num_microbatches(config, job.mesh)
  config = run_folder.claim(config, job.workdir, reads_start=False)
  keys = states.named_keys(config.seed, 'init', 'sample', 'update')
  optimizer = optimizers.make_optimizer(**config.optimizer)
  objective = losses.get('supervised', **config.loss)
  examples = open_examples(config, job)

  with (logging.CompilationCounter() as counter,
        sharding.use(job.mesh, job.rules),
        preemption.Preemption() as stop,
        checkpoint.Checkpointer(job.workdir / 'checkpoints',
                                fingerprint=job.fingerprint,
                                **config.checkpoint) as saver):
    state, state_sharding = starting_params.initial_state(
        config, job, optimizer, keys['init'])
    progress = {'stage': job.title, 'examples': examples.get_state(),
                'seconds': {}}
    state, progress = saver.restore_or(state, progress)
    examples.set_state(progress['examples'])
    clock = reporting.Clock(progress['seconds'])

    micro = dict(num_microbatches=parts,
                 batch_sharding=sharding.batch(job.mesh))
    forward = forwards.make_forward(job.model)
    score = forwards.make_score_fn(forward, **micro)
    update = updates.make_update_fn(
        forwards.compose(forward, objective.loss, **config.regularize),
        optimizer, router_bias_rate=config.router_bias_rate,
        state_sharding=state_sharding, **micro)
    first, waiting = int(state.step), None

    with logging.MetricWriter(job.workdir, first,
                              last_checkpoint=saver.latest_path) as writer:
      for step in logging.progress(range(first, config.num_steps),
                                   job.title):
        with clock('pack'):
          batch = make_batch(config, job.tokenizer, next(examples), parts)
        with clock('update'):
          if config.regularize.balance_coef and parts > 1:
            # The balance loss needs the load of the step, not of a part of it.
            batch = batches.with_load(batch, score, state.params)
          state, metrics = update(state, batch, keys['update'])
          # For the step before: meanwhile this one is queued.
          jax.block_until_ready(waiting)
          waiting = metrics['loss']
        report = {
            'train_tokens': float((batch.segment_BT > 0).sum()),
            'row_fill': packing.row_fill(batch.segment_BT,
                                         parts)}
        writer.write(step, metrics | report | clock.rates(report))
        progress = {'stage': job.title, 'examples': examples.get_state(),
                    'seconds': clock.seconds}
        run_folder.save(saver, writer, stop, state, step, metrics, progress,
                        last=step + 1 == config.num_steps)
    run_folder.leave_if_asked(stop, saver)
  if first >= config.num_steps and reporting.has_report(job):
    return state  # nothing was left to do: the report of that run stays
  sections = {
      'curves': reporting.curves(job, ('loss', 'grad_norm', 'row_fill')),
      'step': reporting.step_seconds(job)}
  reporting.finish(job, config, clock, counter, sections,
                   reporting.training_plots(job, plots.SUPERVISED_PANELS))
  return state


def open_examples(config, job):
  """Demonstrations that fit a row and the model; see `data.too_long`.

  A fresh solution that is too long gives way to the one that is stored.
  """
  limit = min(config.packing.row_length, job.model.config.max_positions)
  hinted = config.data.hinted_share > 0

  def length(record):
    hint = sources.hint_prompt(record) if hinted else ''
    shown = [record, dict(record, prompt=hint)] if hint else [record]
    return max(len(example(job.tokenizer, one)[0]) for one in shown)

  def solve(record, seed):
    text = teacher.solve(record, seed)
    fits = length({**record, 'solution': text}) <= limit
    return text if fits else record['solution']

  records, dropped = pipeline.limit(
      prompt_records.open_records(config, job, 'train', hinted=hinted),
      length, limit, too_long=config.data.too_long)
  if dropped:
    launch.say(f'   dropped  {dropped} examples longer than {limit} tokens')
  return pipeline.demonstrations(
      records, seed=config.seed, **launch.share(config.data.examples_per_step),
      solve=solve if config.data.fresh_solutions else None,
      hinted_share=config.data.hinted_share)


def example(tokenizer, record):
  """Tokens of prompt and solution, and which of them are targets."""
  return chat.training_example(tokenizer, [
      {'role': 'user', 'content': record['prompt']},
      {'role': 'assistant', 'content': record['solution']}])


def make_batch(config, tokenizer, records, num_microbatches: int = 1):
  """The step's demonstrations as rows of one fixed shape.

  Each process makes those of its own records, and gets the others'.
  """
  pairs = processes.gather_own(
      [example(tokenizer, record) for record in records])
  tokens, masks = zip(*pairs, strict=True)
  return packing.pack_examples(
      tokens, masks, num_rows=config.packing.num_rows,
      row_length=config.packing.row_length,
      num_microbatches=num_microbatches)


if __name__ == '__main__':
  launch.main(run)
