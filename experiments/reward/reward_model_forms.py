"""What a reward model is and how it is trained, by `config.form`.

  scores       a head on the last token of each response (Bradley-Terry,
               Plackett-Luce); `num_heads` of them are an ensemble
  judge        a language model that names the better of two (GRAM, stage 2)
  pretraining  a language model that writes both, without labels (GRAM, stage 1)

Stages hand over by `config.init`: a judge begins from a pretraining run, and
adapts to a task from a judge's. A head begins on a language model, or, with
`head_from_checkpoint`, on a reward model.
"""
from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

from experiments.job import launch
from experiments.job import starting_params
from rljax import losses
from rljax import packing
from rljax import sharding
from rljax.data import candidates
from rljax.data import judge_prompts
from rljax.models import reward as reward_nets
from rljax.training import batch as batches
from rljax.training import forward as forwards
from rljax.training import reward as training
from rljax.training import state as states

FORMS = {'scores': 'reward', 'judge': 'reward', 'pretraining': 'supervised'}


class Form(NamedTuple):
  """The pieces of a run that depend on what is trained."""
  job: launch.Job     # its model and its fingerprint are those of the run
  make: Callable      # record -> (what a step takes of it or None, status)
  batch: Callable     # those of a step -> the step's batch
  loss_fn: Callable   # (params, batch, key) -> (loss, metrics)
  score: Callable     # compiled; (params, batch) -> (..., load_LE)


def check(config):
  """Refuses, before anything is compiled, what cannot work together.

  Raises:
    ValueError: an unknown form, or sizes that no step can have.
  """
  pack = config.packing
  if config.form not in FORMS:
    raise ValueError(f'Expected form among {sorted(FORMS)}, got '
                     f'{config.form!r}. Correct it.')
  losses.get(FORMS[config.form], **config.loss)
  heads = config.num_heads, config.init.head_from_checkpoint
  if config.num_heads < 1 or config.form != 'scores' and heads != (1, False):
    raise ValueError(
        'Expected num_heads >= 1, and 1 with head_from_checkpoint=False where '
        f'there is no head, got {heads} with form={config.form!r}.')
  if config.form == 'judge' and pack.num_candidates != 2:
    raise ValueError('Expected packing.num_candidates=2 for a judge of pairs, '
                     f'got {pack.num_candidates}. Set it.')
  launch.check_rows(pack.num_rows, config.data.lists_per_step,
                    'data.lists_per_step')


def model_of(config, model):
  """The module that a run trains."""
  return reward_nets.RewardModel(model.config, config.num_heads) if (
      config.form == 'scores') else model


def shape(config, num_microbatches: int) -> dict[str, int]:
  """The rows of a batch, as `packing.pack_lists` takes them."""
  pack = config.packing
  return dict(num_rows=pack.num_rows, row_length=pack.row_length,
              lists_per_row=pack.lists_per_row,
              num_candidates=pack.num_candidates,
              num_microbatches=num_microbatches)


def as_trained(config, job: launch.Job) -> launch.Job:
  """The job with the model that is trained; a head changes the fingerprint."""
  if config.form != 'scores':
    return job
  return dataclasses.replace(
      job, model=model_of(config, job.model),
      fingerprint=job.fingerprint | {'num_heads': config.num_heads})


def create(config, job: launch.Job, parts: int) -> Form:
  """The pieces of `config.form`; `parts` is the number of micro-batches."""
  check(config)
  launch.check_positions(job.model, config.packing.row_length)
  form = as_trained(config, job)
  micro = dict(num_microbatches=parts, batch_sharding=sharding.batch(job.mesh))
  loss = losses.get(FORMS[config.form], **config.loss).loss
  limit, seed = config.packing.row_length, config.seed
  if config.form == 'pretraining':
    def make_batch(examples):
      tokens, masks = zip(*examples, strict=True)
      return packing.pack_examples(
          tokens, masks, num_rows=config.packing.num_rows, row_length=limit,
          num_microbatches=parts)

    forward = forwards.make_forward(job.model)
    return Form(
        form, lambda record: judge_prompts.pretraining_example(
            job.tokenizer, record, limit, seed), make_batch,
        forwards.compose(forward, loss, **config.regularize),
        forwards.make_score_fn(forward, **micro))
  forward = make_forward(config, job)
  make = (lambda record: candidates.texts(job.tokenizer, record, limit)) if (
      config.form == 'scores') else (lambda record: judge_prompts.comparison(
          job.tokenizer, record, limit, seed))
  return Form(
      form, make, lambda lists: packing.pack_lists(
          lists, **shape(config, parts))[0],
      training.compose(forward, loss, **config.regularize),
      training.make_score_fn(forward, **micro))


def make_forward(config, job) -> Callable:
  """From rows to scores, of a head or of a judge's labels."""
  if config.form == 'scores':
    return training.make_head_forward(model_of(config, job.model))
  return training.make_label_forward(
      job.model, judge_prompts.label_ids(job.tokenizer))


def with_load(batch, score: Callable, params):
  """Adds the step's expert load; needed with more than one micro-batch."""
  load_LE = score(params, batch)[-1]
  return batch.replace(load_BLE=batches.alike_in_all_rows(
      load_LE, batch.tokens_BT.shape[0]))


def initial_state(config, job: launch.Job, trained: launch.Job, optimizer,
                  keys):
  """(state, sharding), from `config.init`; a new head goes on what is read.

  Beside adapters, a head is trained in full.

  Args:
    config: of the run.
    job: of the language model.
    trained: of the model that is trained, from `as_trained`.
    optimizer: of the run.
    keys: `init` and `head`.

  Raises:
    ValueError: an optimiser is asked for that does not know the head.
  """
  whole = (reward_nets.HEAD,) if config.form == 'scores' else ()
  is_new_head = (config.form == 'scores' and config.init.checkpoint
                 and not config.init.head_from_checkpoint)
  if not is_new_head:
    return starting_params.initial_state(
        config, trained, optimizer, keys['init'], whole=whole)
  if config.init.keep_optimizer:
    raise ValueError(
        'Expected init.keep_optimizer=False for a new head on a language model'
        ', whose optimiser does not know it, got True.')
  return states.init_state(
      trained.model, optimizer, keys['init'], job.mesh, job.rules,
      params=reward_nets.from_language_model(
          starting_params.base_params(config, job, keys['init']),
          config.num_heads, keys['head']),
      adapt=starting_params.adapting(config, whole))
