"""The parameters that a run begins with, or has beside those that it trains."""
from __future__ import annotations

import dataclasses
import functools
import pathlib

import jax

from experiments.job import launch
from experiments.job import pins
from experiments.job import run_folder
from rljax.interop import convert
from rljax.models import lora
from rljax.training import checkpoint
from rljax.training import optimizer as optimizers
from rljax.training import state as training_state


def initial_state(config, job: launch.Job, optimizer, key, source=None,
                  whole=()):
  """The train state to begin with: random, or from a checkpoint.

  With `config.lora.rank` its parameters are `lora.Adapted`: the functions of
  `rljax.training`, checkpoints and samplers take them as they take others.

  Args:
    config: its `init` says where from: checkpoints of a run, or a published
      one.
    job: model and mesh.
    optimizer: of the run to come.
    key: for random parameters.
    source: (folder, step) of a run to read back, in the place of `config.init`;
      step -1 is the newest.
    whole: parts of the tree that are trained in full beside adapters: a head
      that the base does not have.

  Returns:
    (state, sharding of the state).

  Raises:
    ValueError: adapters that cannot be made, or whose base is not known.
  """
  if not config.lora.rank:
    return _whole_state(config, job, optimizer, key, source)
  state, shardings = training_state.init_state(
      job.model, optimizer, key, job.mesh, job.rules,
      params=base_params(config, job, key, source),
      adapt=adapting(config, whole))
  if source:
    folder, step = source
    with checkpoint.Checkpointer(pathlib.Path(folder).expanduser(),
                                 read_only=True,
                                 fingerprint=job.fingerprint) as saver:
      state = state.replace(params=saver.restore_params(
          state.params, None if step < 0 else step))
  return state, shardings


def base_params(config, job: launch.Job, key, source=None):
  """The parameters that a run begins with; what adapters are trained on.

  Arguments and errors are those of `initial_state`.
  """
  base = base_of(config)
  if source and base[1] == pins.NEWEST:
    run = pathlib.Path(source[0]).expanduser().resolve().parent
    if run_folder.is_run(run):  # as it was then
      base = base[0], base_of(run_folder.stored_config(run))[1]
  if config.lora.rank:
    _check_adapters(config, base, source)
  state, _ = _whole_state(config, _without_adapters(job),
                          optimizers.make_optimizer('sgd', 0.0), key, base)
  return state.params


def base_of(config) -> tuple[str, int]:
  """(folder, step) of what adapters lie on; no folder: random parameters."""
  return (config.lora.base, config.lora.base_step) if config.lora.base else (
      config.init.checkpoint, config.init.step)


def adapting(config, whole=()):
  """What `training.state` wants as `adapt`: None where nothing is adapted."""
  return functools.partial(lora.create, whole=tuple(whole), **launch.adapters(
      config)) if config.lora.rank else None


def _without_adapters(job: launch.Job) -> launch.Job:
  """As a run without adapters has it, by whom such parameters are written."""
  return dataclasses.replace(job, fingerprint={
      name: value for name, value in job.fingerprint.items()
      if name != 'lora'})


def _check_adapters(config, base, source):
  if config.init.keep_optimizer:
    raise ValueError('Expected init.keep_optimizer=False with config.lora.rank,'
                     ' as new adapters have no moments, got True. Correct it.')
  if source and (not base[0] or pathlib.Path(base[0]).expanduser().resolve()
                 == pathlib.Path(source[0]).expanduser().resolve()):
    raise ValueError(
        'Expected config.lora.base, the parameters that the adapters in '
        f'{source[0]} were trained on, got {base[0]!r}. Name what that run had '
        'as config.init.checkpoint.')


def reference_of(params):
  """The policy before it was trained; what `update` donates is not in it.

  With adapters, the base without them, of which there is no second copy.
  """
  return lora.without(params) if isinstance(params, lora.Adapted) else (
      training_state.frozen_copy(params))


def _whole_state(config, job: launch.Job, optimizer, key, source=None):
  """As `initial_state`, without adapters."""
  folder, step = source or (config.init.checkpoint, config.init.step)
  if folder and convert.is_published(folder):
    params = convert.load(folder, job.model, job.mesh, job.rules)
    return training_state.init_state(
        job.model, optimizer, key, job.mesh, job.rules, params=params)
  if not folder:
    return training_state.init_state(
        job.model, optimizer, key, job.mesh, job.rules)
  kept = training_state.abstract_state(
      job.model, optimizer, job.mesh, job.rules)
  with checkpoint.Checkpointer(pathlib.Path(folder).expanduser(),
                               read_only=True,
                               fingerprint=job.fingerprint) as saver:
    if not config.init.keep_optimizer:
      params = saver.restore_params(kept.params, None if step < 0 else step)
      return training_state.init_state(
          job.model, optimizer, key, job.mesh, job.rules, params=params)
    state, _ = saver.restore(saver.latest_step() if step < 0 else step, kept)
    return state.replace(step=state.step * 0), jax.tree.map(
        lambda x: x.sharding, kept)
