"""Reward models from comparisons: a head that scores, or a judge of pairs.

  python -m experiments.train_reward_model \\
      --config=configs/reward/bradley_terry_tiny.py --workdir=runs/bradley_terry

`config.form` says what is trained (experiments/reward/reward_model_forms.py);
one loop does for all. At the end, accuracy and calibration on held-out pairs,
and the statistics of the scores, are measured and stored.

Reference: InstructGPT (arXiv 2203.02155) §3.5; GRAM (arXiv 2506.14175).
"""
from __future__ import annotations

import jax

from experiments.job import launch
from experiments.job import reporting
from experiments.job import run_folder
from experiments.reward import reward_model_forms
from experiments.reward import reward_model_held_out
from rljax import packing
from rljax import processes
from rljax import sharding
from rljax.data import candidates
from rljax.data import pipeline
from rljax.data import preference
from rljax.data import toy_comparisons
from rljax.evaluation import plots
from rljax.training import checkpoint
from rljax.training import metrics as logging
from rljax.training import optimizer as optimizers
from rljax.training import preemption
from rljax.training import state as states
from rljax.training import update as updates

SOURCES = {'toy': toy_comparisons.open_lists, 'file': preference.open_files}


def run(config, workdir: str) -> states.TrainState:
  """Builds the pieces, then writes the algorithm out as a loop."""
  job = launch.start(config, workdir, 'reward_model')
  parts = launch.num_microbatches(config, job.mesh)
  form = reward_model_forms.create(config, job, parts)
  config = run_folder.claim(config, job.workdir, reads_start=False)
  keys = states.named_keys(config.seed, 'init', 'sample', 'update', 'head')
  optimizer = optimizers.make_optimizer(**config.optimizer)
  lists, held_out, counts = open_data(config, form.make)

  with (logging.CompilationCounter() as counter,
        sharding.use(job.mesh, job.rules),
        preemption.Preemption() as stop,
        checkpoint.Checkpointer(job.workdir / 'checkpoints',
                                fingerprint=form.job.fingerprint,
                                **config.checkpoint) as saver):
    state, state_sharding = reward_model_forms.initial_state(
        config, job, form.job, optimizer, keys)
    progress = {'stage': job.title, 'lists': lists.get_state(), 'seconds': {}}
    state, progress = saver.restore_or(state, progress)
    lists.set_state(progress['lists'])
    clock = reporting.Clock(progress['seconds'])
    update = updates.make_update_fn(
        form.loss_fn, optimizer, num_microbatches=parts,
        router_bias_rate=config.router_bias_rate,
        state_sharding=state_sharding,
        batch_sharding=sharding.batch(job.mesh))
    first, waiting = int(state.step), None

    with logging.MetricWriter(job.workdir, first,
                              last_checkpoint=saver.latest_path) as writer:
      for step in logging.progress(range(first, config.num_steps), job.title):
        with clock('pack'):
          batch = form.batch(processes.gather_own(next(lists)))
        with clock('update'):
          if config.regularize.balance_coef and parts > 1:
            batch = reward_model_forms.with_load(
                batch, form.score, state.params)
          state, metrics = update(state, batch, keys['update'])
          # For the step before: meanwhile this one is queued.
          jax.block_until_ready(waiting)
          waiting = metrics['loss']
        report = {'train_tokens': float((batch.segment_BT > 0).sum()),
                  'row_fill': packing.row_fill(batch.segment_BT, parts)}
        writer.write(step, metrics | report | clock.rates(report))
        progress = {'stage': job.title, 'lists': lists.get_state(),
                    'seconds': clock.seconds}
        run_folder.save(saver, writer, stop, state, step, metrics, progress,
                        last=step + 1 == config.num_steps)
    run_folder.leave_if_asked(stop, saver)
    if first >= config.num_steps and reporting.has_report(job):
      return state  # nothing was left to do: the report of that run stays
    with clock('measure'):
      measured, drawn = reward_model_held_out.measure(
          config, job, form, state.params, held_out, parts)
  sections = {
      'curves': reporting.curves(
          job, ('loss', 'accuracy', 'gap', 'grad_norm', 'row_fill')),
      'step': reporting.step_seconds(job), 'data': counts, **measured}
  reporting.finish(job, config, clock, counter, sections, [
      *reporting.training_plots(job, panels(config)), *drawn])
  return state


def panels(config) -> tuple[plots.Panel, ...]:
  """The curves of the form."""
  if config.form == 'pretraining':
    return plots.SUPERVISED_PANELS
  return plots.REWARD_PANELS


def open_data(config, make):
  """Batches of what a step takes, held-out records, and counts of all drops.

  Raises:
    ValueError: an unknown source, a bad line, too few to measure by, or records
      that do not fit a row with data.too_long='fail'.
  """
  name, train, held_out, unfit = read(config)
  if len(held_out) < reward_model_held_out.LEAST:
    raise ValueError(
        'Expected four held-out comparisons or more, two to fit a temperature '
        f'on and two to measure, got {len(held_out)}. Raise '
        'data.source.held_out.')
  if config.form == 'scores':
    check_sizes(train, config.packing.num_candidates)
  kept, counts = candidates.all_of(train, make)
  lost = len(train) - len(kept) - counts['special_token_inside']
  if lost and config.data.too_long != 'drop':
    raise ValueError(
        f'Expected comparisons within packing.row_length='
        f'{config.packing.row_length}, got {lost} of {len(train)} that do not '
        f"fit ({counts}). Raise it, or leave them out with too_long='drop'.")
  if not kept:
    raise ValueError(
        f'Expected comparisons to train on in {name}, got none of {len(train)} '
        f'that can be used: {counts}. Raise packing.row_length, or name a file '
        'without special tokens in its responses.')
  counts = unfit | counts
  left_out = {key: count for key, count in counts.items()
              if count and key not in ('whole',)}
  if left_out:
    launch.say(f'   data     {len(kept)} comparisons; of these or left out: '
               f'{left_out}')
  batches = pipeline.prompts(
      preference.source(f'{name}/{len(kept)}', kept), seed=config.seed,
      **launch.share(config.data.lists_per_step))
  return batches, held_out, counts


def read(config):
  """(name, training records, held-out records, lines left out by reason)."""
  options = dict(config.data.source)
  kind = options.pop('name')
  if kind not in SOURCES:
    raise ValueError(f'Expected data.source.name among {sorted(SOURCES)}, got '
                     f'{kind!r}. Correct it.')
  check_form(config.form, options.get('form'))
  name, train, held_out, unfit = SOURCES[kind](**options)
  most = config.data.max_records
  return name, train[:most] if most else train, held_out, dict(unfit)


def check_form(trained: str, form: str | None):
  """Refuses lines whose order is no label where labels are learnt.

  Raises:
    ValueError: unlabeled responses but for pre-training, lists for a judge, or
      what has no two whole responses.
  """
  if form in ('labels', 'steps'):
    raise ValueError(
        'Expected lines with two whole responses, got '
        f'data.source.form={form!r}. Train a policy on them, with '
        'experiments.train_preference.')
  unfit = {'scores': ('unlabeled',), 'judge': preference.LISTS}
  if form in unfit.get(trained, ()):
    raise ValueError(
        f'Expected lines that say which response is better with '
        f'form={trained!r}, and of a judge pairs, got '
        f'data.source.form={form!r}. Name another file, or train with '
        "form='scores' on rankings, 'pretraining' without labels.")


def check_sizes(train, most: int):
  """Refuses, before the first step, a list that no row has places for.

  Raises:
    ValueError: a list of more responses than packing.num_candidates.
  """
  for record in train:
    found = len(candidates.ranked(record)[0])
    if found > most:
      raise ValueError(
          f'Expected at most packing.num_candidates={most} responses, got '
          f'{found} in {record["file_line"]}. Raise it, or shorten the list.')


if __name__ == '__main__':
  launch.main(run)
