r"""GAN-RM: a reward from some hundred targets, and a generator that follows it.

  python -m experiments.train_gan_rm \
      --config=configs/gan/gan_rm_digits.py --workdir=runs/gan_rm

Trains a small generator of images, then plays rounds: see
`experiments/gan/gan_rounds.py`. `lineage.jsonl` says of every training row of
every reward where it comes from. Each round is a checkpoint, and its reward is
kept: `experiments.score_images` asks it.

Reference: GAN-RM (arXiv 2506.13846).
"""
from __future__ import annotations

import json
import pathlib

from absl import logging as absl_logging
import jax
import numpy as np

from experiments.gan import gan_diagnosis
from experiments.gan import gan_images
from experiments.gan import gan_reward
from experiments.gan import gan_rounds
from experiments.job import launch
from experiments.job import reporting
from experiments.job import run_folder
from rljax import journal
from rljax import sharding
from rljax.data import bootstrap
from rljax.data import images
from rljax.evaluation import image_plots
from rljax.evaluation import image_rewards
from rljax.evaluation import plots
from rljax.evaluation import report
from rljax.training import checkpoint
from rljax.training import metrics as logging
from rljax.training import preemption
from rljax.training import state as states

LINEAGE = 'lineage.jsonl'
PANELS = (
    plots.Panel('frechet', 'Distance of the generator to held-out targets',
                'Fréchet distance of the pixels', ('frechet',)),
    plots.Panel('discriminator', 'Telling held-out targets from outputs',
                'balanced accuracy', ('held_out_accuracy',)),
    plots.Panel('reward', 'Scores of the pool', 'R',
                ('score_pool', 'score_best')),
    plots.Panel('diagnostics', 'What the reward has learnt', '',
                ('memorisation', 'shortcut_auc')),
    plots.Panel('shortcuts', 'What edits that leave the content are paid',
                'share of the gap to targets',
                tuple(f'paid/{name}/estimate' for name in gan_diagnosis.EDITS)))


def run(config, workdir: str):
  """Builds the pieces, then writes the algorithm out as a loop."""
  job = start(config, workdir)
  config = run_folder.claim(config, job.workdir)
  parts = gan_images.open_parts(config, config.seed)
  target_hash = images.fingerprint(parts.proxies.pixels_RYWU)
  keys = states.named_keys(config.seed, 'init', 'pretrain', 'round', 'fresh')
  gan_reward.write_classes(job.workdir, parts.generator.classes)
  pieces = gan_rounds.build(config, len(parts.generator.classes))
  stages = config.generator.num_stages
  last = stages + config.num_rounds

  with (logging.CompilationCounter() as counter,
        preemption.Preemption() as stop,
        checkpoint.Checkpointer(job.workdir / 'checkpoints',
                                fingerprint=job.fingerprint,
                                **config.checkpoint) as saver):
    state = pieces.start(keys['init'])
    progress = {'targets': target_hash, 'seconds': {}}
    state, progress = saver.restore_or(state, progress)
    check_targets(progress['targets'], target_hash)
    clock = reporting.Clock(progress['seconds'])
    done = saver.latest_step() or 0
    _forget(job.workdir / LINEAGE, done - stages)

    with logging.MetricWriter(job.workdir, done,
                              last_checkpoint=saver.latest_path) as writer:
      for stage in logging.progress(range(done, last), job.title):
        if stage < stages:
          with clock('generator'):
            state, metrics = pieces.pretrain(
                state, pretraining_data(parts.generator), keys['pretrain'])
            metrics = {name: float(x) for name, x in metrics.items()}
        else:
          with clock('round'):
            metrics, params = play(config, job, pieces, parts,
                                   stage - stages, state.params, keys)
            state = state.replace(params=params)
        writer.write(stage, metrics | clock.rates(metrics))
        progress = {'targets': target_hash, 'seconds': clock.seconds}
        run_folder.save(saver, writer, stop, state, stage, metrics, progress,
                        last=stage + 1 == last)
    run_folder.leave_if_asked(stop, saver)
  if done >= last and reporting.has_report(job):
    return state
  finish(config, job, pieces, parts, state, clock, counter)
  return state


def start(config, workdir: str) -> launch.Job:
  """Checks the config and says what runs; one process on one device.

  Raises:
    ValueError: numbers that contradict each other, or several processes.
  """
  check(config)
  if jax.process_count() > 1:
    raise ValueError(f'Expected one process, got {jax.process_count()}. Start '
                     'this script alone: its models are small.')
  absl_logging.set_verbosity(absl_logging.ERROR)  # orbax warns as intended
  found = pathlib.Path(workdir).expanduser().resolve()
  found.mkdir(parents=True, exist_ok=True)
  launch.say(f'== gan_rm\n   images   {config.data.images}, '
             f'{config.data.num_proxies} targets\n   writes   {found}')
  warned = bootstrap.warning(config.bootstrap.num_chosen,
                             config.bootstrap.alpha,
                             config.bootstrap.first_rank)
  if warned:
    launch.say(f'   warning  {warned}')
  return launch.Job(
      'gan_rm', found, sharding.make_mesh(devices=jax.devices()[:1]), (), None,
      None, run_folder.flat({'generator': config.generator.model.to_dict(),
                         'data': config.data.to_dict()}))


def check(config):
  """Refuses, before anything is trained, what could not be played."""
  if config.num_rounds < 1:
    raise ValueError('Expected num_rounds >= 1, got '
                     f'{config.num_rounds}: without a round there is no '
                     'reward. Raise it.')
  pool = config.pool.num_prompts * config.pool.samples_per_prompt
  if 2 * config.bootstrap.num_chosen > pool:
    raise ValueError(
        f'Expected bootstrap.num_chosen of at most half of the pool of {pool}, '
        f'got {config.bootstrap.num_chosen}. Lower it, or sample more.')
  if config.tune.loss.name == 'dpo' and config.pool.samples_per_prompt < 2:
    raise ValueError('Expected pool.samples_per_prompt >= 2 for pairs, got '
                     f'{config.pool.samples_per_prompt}. Raise it, or tune '
                     'with the loss mse.')
  bootstrap.soft_labels(config.bootstrap.num_chosen, config.bootstrap.alpha,
                        config.bootstrap.first_rank)


def check_targets(stored: str, present: str):
  """The targets of a run never change.

  Raises:
    ValueError: they have.
  """
  if stored != present:
    raise ValueError(f'Expected the targets that this run began with (hash '
                     f'{stored}), got others ({present}). Restore the files, '
                     'or begin another --workdir.')


def pretraining_data(part: images.ImageSet):
  """All images of the generator, one a row."""
  return dict(image_RGYWU=part.pixels_RYWU[:, None], class_R=part.class_R,
              weight_R=np.ones(len(part), np.float32))


def play(config, job, pieces, parts, number: int, params, keys):
  """A round, its files and its diagnostics: (metrics, params of G_t+1)."""
  at = lambda name: jax.random.fold_in(keys[name], number)
  round_ = gan_rounds.play(pieces, config, number, parts.proxies, params,
                           at('round'))
  class_R = np.arange(config.bootstrap.num_outputs, dtype=np.int32) % (
      pieces.num_classes)
  fresh = np.asarray(pieces.sample(params, class_R, at('fresh'))), class_R
  found = gan_diagnosis.diagnose(pieces, round_, parts.proxies, parts.held_out,
                                 fresh)
  journal.append(job.workdir / LINEAGE, round_.lineage)
  checkpoint.save_params(job.workdir / gan_reward.FOLDER / str(number),
                         round_.reward)
  draw_round(job.workdir / 'plots' / f'round_{number}.png', number, round_,
             parts)
  image_rewards.check_memorisation(found['memorisation'],
                                   config.diagnostics.max_memorisation)
  return round_.metrics | found, round_.params


def draw_round(path, number: int, round_, parts, count: int = 16):
  """Targets, and what R makes of the outputs of this round's generator."""
  prompts = np.arange(len(round_.class_P))
  best, worst = (round_.pool_PGYWU[prompts, pick(round_.score_PG, axis=1)]
                 for pick in (np.argmax, np.argmin))
  return image_plots.grid({
      'targets': parts.proxies.pixels_RYWU[:count],
      'outputs': round_.pool_PGYWU[:count, 0], 'best of n': best[:count],
      'worst of n': worst[:count]}, path, f'Round {number}')


def finish(config, job, pieces, parts, state, clock, counter):
  """The report: rounds, warnings, what the rows came from, plots."""
  lines = logging.read(job.workdir / logging.FILE_NAME)
  rounds = [line for line in lines if 'frechet' in line]
  names = ('held_out_accuracy', 'memorisation', 'frechet', 'diversity',
           'shortcut_auc', 'score_pool', 'score_best', 'kept')
  table = [{'round': number} | {name: line[name] for name in names}
           for number, line in enumerate(rounds)]
  paid = [{'round': number} | row for number, line in enumerate(rounds)
          for row in gan_diagnosis.rows(line, config.diagnostics.max_paid)]
  rows = read_lineage(job.workdir / LINEAGE)
  sources = sorted({row['source'] for row in rows})
  drawn = sorted((job.workdir / 'plots').glob('round_*.png'))
  drawn += plots.training_curves(rounds, PANELS, job.workdir / 'plots')
  sections = {
      'rounds': table, 'shortcuts': paid,
      'warnings': warnings(config, table, paid),
      'lineage': [{'round': number} | {
          source: sum(row['round'] == number and row['source'] == source
                      for row in rows) for source in sources}
          for number in range(len(rounds))],
      'targets': {'hash': images.fingerprint(parts.proxies.pixels_RYWU),
                  'images': len(parts.proxies)}}
  reporting.finish(job, config, clock, counter, sections, drawn)


def warnings(config, table, paid) -> list[str]:
  """What a reader of the numbers shall not overlook."""
  found = [bootstrap.warning(config.bootstrap.num_chosen,
                             config.bootstrap.alpha,
                             config.bootstrap.first_rank)]
  for row in paid:
    if row['flagged']:
      share = row['paid']
      found.append(
          f'Round {row["round"]}: the edit {row["edit"]!r}, which adds no '
          f'content, is paid {share["estimate"]:.2f} [{share["low"]:.2f}, '
          f'{share["high"]:.2f}] of the gap between outputs and targets.')
  least = config.diagnostics.min_diversity * table[0]['diversity']
  for row in table:
    if row['diversity'] < least:
      found.append(f'Round {row["round"]}: diversity {row["diversity"]:.3g} is '
                   f'below {config.diagnostics.min_diversity:g} of the first.')
  return [text for text in found if text]


def read_lineage(path) -> list[dict]:
  """Rows of all rounds; a last line cut by a kill is left out."""
  return [json.loads(line) for line in path.read_text().split('\n')[:-1]]


def _forget(path, rounds: int):
  """Drops the rows of rounds that will be played again."""
  if path.exists():
    kept = [row for row in read_lineage(path) if row['round'] < rounds]
    report.write_text(path, ''.join(json.dumps(row) + '\n' for row in kept))


if __name__ == '__main__':
  launch.main(run)
