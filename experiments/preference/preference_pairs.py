"""Pairs for scripts that train on them: opened, tokenised, laid out, judged.

Every process reads and tokenises the whole data set, and trains on its share.
"""
from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from experiments.job import launch
from experiments.job import starting_params
from rljax import sharding
from rljax.data import corrupted
from rljax.data import pipeline
from rljax.data import preference as records_lib
from rljax.data import preference_tokens
from rljax.evaluation import intervals
from rljax.training import batch as batches
from rljax.training import preference
from rljax.training import score_cache
from rljax.types import TokenPair

SOURCES = {'corrupted': corrupted.open_pairs, 'file': records_lib.open_files}
_ROUNDING = 1e-5  # margins below it are no opinion: policy is reference


@dataclasses.dataclass(frozen=True)
class Data:
  """The pairs of a run."""
  name: str  # of all that they were made of
  train: list[TokenPair]
  held_out: list[TokenPair]
  counts: Mapping[str, Mapping[str, int]]  # part -> what was cut or left out
  limits: preference_tokens.Limits


def open_data(config, job: launch.Job) -> Data:
  """Reads, tokenises and cuts the pairs of a config, and says what was lost.

  Raises:
    ValueError: an unknown source, a form of lists, a line that is refused, or
      nothing left.
  """
  options = dict(config.data.source)
  name = options.pop('name')
  if name not in SOURCES:
    raise ValueError(f'Expected data.source.name among {sorted(SOURCES)}, got '
                     f'{name!r}. Correct it.')
  if options.get('form') in records_lib.LISTS:
    raise ValueError(
        f'Expected a form of pairs, got {options["form"]!r}, whose lines have '
        'lists of responses; train a reward model on them, or write pairs.')
  found = SOURCES[name](**{
      key: str(pathlib.Path(value).expanduser()) if key == 'data_dir' else value
      for key, value in options.items()})
  limits = make_limits(config, job)
  counts, tokens = {'lines left out': dict(found.dropped)}, {}
  for part, records in (('train', found.train), ('held_out', found.held_out)):
    chosen = pipeline.choose(records_lib.source(part, records),
                             domains=config.data.domains)
    tokens[part], counts[part] = preference_tokens.tokenize_all(
        job.tokenizer, chosen, limits, ends=config.data.ends)
    if not tokens[part]:
      raise ValueError(
          f'Expected pairs that fit in the {part} part, got none of '
          f'{len(chosen)}: {counts[part]}. Raise data.max_prompt_length or '
          'packing.row_length.')
  for part, count in counts.items():
    lost = {key: n for key, n in count.items() if n}
    launch.say(f'   {part:<14} {lost if lost else "none"}')
  digest = preference_tokens.digest([*tokens['train'], *tokens['held_out']])
  return Data(f'{name}/{digest}', tokens['train'], tokens['held_out'], counts,
              limits)


def make_limits(config, job: launch.Job) -> preference_tokens.Limits:
  """How long prompts, responses and pairs may be.

  Raises:
    ValueError: longer than the model's positions.
  """
  launch.check_positions(job.model, config.data.max_prompt_length
                         + config.data.max_response_length)
  return preference_tokens.Limits(
      max_prompt_length=config.data.max_prompt_length,
      max_response_length=config.data.max_response_length,
      max_pair_length=config.packing.row_length,
      prompt_copies=1 if config.packing.share_prompt else 2)


def make_layout(config, job: launch.Job,
                one_sided: bool = False) -> preference.Layout:
  """The shape of a step; `one_sided` is of the loss.

  Raises:
    ValueError: rows too few for some draw of pairs.
  """
  launch.check_rows(config.packing.num_rows, config.data.examples_per_step,
                    'data.examples_per_step')
  return preference.Layout(
      num_rows=config.packing.num_rows, row_length=config.packing.row_length,
      pairs_per_row=config.packing.pairs_per_row,
      num_microbatches=launch.num_microbatches(config, job.mesh),
      share_prompt=config.packing.share_prompt, one_sided=one_sided)


@dataclasses.dataclass(frozen=True)
class Batches:
  """What a loss needs of frozen models, and how its batches get it."""
  make: Callable  # (pairs, params) -> (batch, places): for an update
  judged: Callable  # likewise, for measuring
  # What the update takes besides: the reference, or nothing.
  live: tuple[Any, ...]


def make_batches(config, job: launch.Job, layout: preference.Layout, data: Data,
                 reads, forward, score, params) -> Batches:
  """Scores what can be scored before training, and keeps what cannot.

  Args:
    config: says where reference and guide come from, and when to score them.
    job: of the run.
    layout: of its rows.
    data: whose pairs are scored.
    reads: fields of the batch that the loss reads, from `losses.get`.
    forward: from `training.forward.make_forward`.
    score: compiled.
    params: of the policy as it begins.
  """
  frozen = {name: _frozen(config, job, name, params)
            for name in preference.frozen_of(reads)}
  reference = frozen.get('reference')
  kept = {}
  if config.scores.precompute:
    kept = {name: _scored(config, job, layout, data, name, score, found)
            for name, found in frozen.items()}
    frozen = {}  # their memory is free again, if no step needs them
  make = functools.partial(
      preference.make_batch, layout, kept=kept, frozen=frozen, score=score,
      mismatched=reference if preference.MISMATCHED in reads else None)
  if preference.DIVERGENCE not in reads:
    return Batches(make, make, ())
  divergence = preference.make_divergence_fn(
      forward, num_microbatches=layout.num_microbatches,
      batch_sharding=sharding.batch(job.mesh))

  def judged(pairs, params):
    batch, places = make(pairs, params)
    return batch.replace(ref_kl_BT=divergence(
        params, batches.inputs(batch), reference)), places
  return Batches(make, judged, (reference,))


def _frozen(config, job, name, params):
  reference, guide = config.reference, config.guide
  folder, step, base = {
      'reference': (reference.checkpoint, reference.step, reference.base),
      'guide': (guide.checkpoint, guide.step, guide.base)}[name]
  if folder:
    return starting_params.stored_params(
        starting_params.without_adapters(job), folder, step, base)
  if name == 'guide':
    raise ValueError(
        'Expected a guide for this loss, got an empty config.guide.checkpoint. '
        'Train one first, with the loss dpo, and name its checkpoints.')
  return starting_params.reference_of(params)


def _scored(config, job, layout, data, name, score, params):
  pairs = [*data.train, *data.held_out]
  root = pathlib.Path(config.scores.folder or job.workdir / 'scores')
  return score_cache.scored(
      root.expanduser() / name, pairs,
      functools.partial(preference.score_pairs, score, params, layout),
      {'parameters': score_cache.checksum(params),
       'model': job.fingerprint, 'dtype': str(job.model.config.dtype),
       'tokenizer': config.tokenizer,
       'truncation': dataclasses.asdict(data.limits), 'data': data.name},
      per_call=config.data.examples_per_step, label=name)


def summary(values: Mapping[str, np.ndarray], pairs: Sequence[TokenPair],
            seed: int) -> dict[str, Any]:
  """Means over held-out pairs, with intervals.

  Args:
    values: by pair, from `preference.evaluate`.
    pairs: of them. Where one has a single side, there is nothing that its
      policy would rather write; its reward is right that has its label's sign.
    seed: of the bootstrap.
  """
  margin_P = np.asarray(values['reward_margin'], np.float64)
  right = lambda x_P: np.where(np.abs(x_P) <= _ROUNDING, 0.5, x_P > 0)
  scores = {
      'reward_accuracy': right(margin_P), 'reward_margin': margin_P,
      'loss': values['loss']}
  if all(len(pair.chosen) and len(pair.rejected) for pair in pairs):
    # Without a reference: what the policy itself would rather write.
    scores |= {f'{name}_accuracy': right(
        values[f'{name}_chosen'] - values[f'{name}_rejected'])
               for name in ('logp', 'token_logp')}
  found = {name: dataclasses.asdict(intervals.bootstrap(x_P, seed=seed))
           for name, x_P in scores.items()}
  return {'pairs': len(margin_P)} | found
