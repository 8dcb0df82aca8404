"""The parameters that a run begins with, or has beside those that it trains."""
from __future__ import annotations

import dataclasses
import functools
import pathlib

import jax
import optax

from experiments.job import launch
from experiments.job import run_folder
from rljax.data import tokenizer as tokenizers
from rljax.interop import convert
from rljax.models import lora
from rljax.training import checkpoint
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
    return _whole_state(
        job, optimizer, key, source or _start(config), config.lora.base,
        keep_optimizer=config.init.keep_optimizer and not source)
  path = pathlib.Path(source[0]).expanduser().resolve() if source else None
  if source and run_folder.is_run(path.parent):  # it says what it began with
    config = _as_trained(path, config.lora.base)
    base = base_params(config, job, _key(config))
  else:
    base = base_params(config, job, key, source)
  state, shardings = training_state.init_state(
      job.model, optimizer, key, job.mesh, job.rules, params=base,
      adapt=adapting(config, whole))
  if source:
    state = state.replace(params=_restore(job, path, source[1], state.params))
  return state, shardings


def base_params(config, job: launch.Job, key, source=None):
  """The parameters that a run begins with; what adapters are trained on.

  Arguments and errors are those of `initial_state`.
  """
  base, moved = _start(config), config.lora.base
  if source and moved:  # what those adapters lie on
    base, moved = (moved, config.lora.base_step), ''
  if config.lora.rank:
    _check_adapters(config, base, source)
  state, _ = _whole_state(without_adapters(job), optax.identity(), key, base,
                          moved)
  return state.params


def _start(config) -> tuple[str, int]:
  """(folder, step) of what a run begins with; no folder: random parameters."""
  return config.init.checkpoint, config.init.step


def adapting(config, whole=()):
  """What `training.state` wants as `adapt`: None where nothing is adapted."""
  return functools.partial(lora.create, whole=tuple(whole), **launch.adapters(
      config)) if config.lora.rank else None


def without_adapters(job: launch.Job) -> launch.Job:
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


def stored_params(job: launch.Job, folder: str, step: int, base: str = ''):
  """The parameters of a model as they lie in a folder.

  Those of a run that trained adapters come merged. What its adapters lie on is
  read from where that run has read it, by the configuration beside its
  checkpoints.

  Args:
    job: with the model, without adapters of its own; a tokenizer of None is
      not compared.
    folder: checkpoints of a run, or a published one.
    step: of a run; -1 is the newest.
    base: where the parameters under the adapters are now, if they have moved.

  Raises:
    ValueError: another architecture or tokenizer, adapters whose base is not
      found, or with a head beside them.
  """
  if convert.is_published(folder):
    check_tokenizer(job, folder)
    return convert.load(folder, job.model, job.mesh, job.rules)
  path = pathlib.Path(folder).expanduser().resolve()
  abstract = training_state.abstract_state(
      job.model, optax.identity(), job.mesh, job.rules).params
  if not _trained_adapters(path):
    return _restore(job, path, step, abstract)
  config = _as_trained(path, base)
  adapted = dataclasses.replace(job, fingerprint=job.fingerprint | {
      'lora': launch.adapters(config)})
  state, _ = initial_state(config, adapted, optax.identity(), _key(config))
  merge = jax.jit(lora.merge, out_shardings=jax.tree.map(
      lambda x: x.sharding, abstract))
  return merge(_restore(adapted, path, step, state.params))


def check_tokenizer(job: launch.Job, folder: str):
  """Refuses a published model whose ids mean something else.

  Raises:
    ValueError: its tokenizer differs from this run's.
  """
  path = pathlib.Path(folder).expanduser()
  if job.tokenizer is None or not (path / 'tokenizer_config.json').exists():
    return  # nothing to compare; sizes are compared by what reads the weights
  differing = tokenizers.differences(job.tokenizer, tokenizers.load(str(path)))
  if differing:
    raise ValueError(
        f'Expected the tokenizer of this run in {folder}, got one that '
        f'differs: {"; ".join(differing)}. Its ids mean other words: set '
        'config.tokenizer to that folder, or take a model with the same '
        'tokenizer.')


def _trained_adapters(folder) -> bool:
  """Whether checkpoints are there of a run that trained adapters."""
  path = pathlib.Path(folder).expanduser().resolve()
  if not checkpoint.steps_in(path) or not run_folder.is_run(path.parent):
    return False
  config = run_folder.stored_config(path.parent)
  return 'lora' in config and bool(config.lora.rank)


def _key(config):
  return training_state.named_keys(config.seed, 'init')['init']


def _as_trained(path, base: str):
  """The config of a run of adapters, and in it where their base is now.

  Of adapters on adapters, `base` is what the first of these lie on that do not
  find theirs.

  Raises:
    ValueError: it is not there, or they have a head beside them.
  """
  config = run_folder.stored_config(path.parent)
  if 'form' in config and config.form == 'scores':
    raise ValueError(
        f'Expected the parameters of a language model in {path}, got a reward '
        'model that has trained adapters and a head, which lie together on no '
        'base. Name a run without adapters, or what this one began with.')
  if base and _trained_adapters(config.init.checkpoint):
    config.lora.base = base
  elif base:
    config.init.checkpoint, config.lora.base = base, ''
  folder, step = _start(config)
  if not folder or convert.is_published(folder):
    return config  # without one, it was random parameters of the run's seed
  steps = checkpoint.steps_in(pathlib.Path(folder).expanduser())
  if not steps or step >= 0 and step not in steps:
    raise ValueError(
        f'Expected the parameters that the adapters in {path} were trained on '
        f'in {folder}, {f"step {step}" if step >= 0 else "any step"}, found '
        f'{steps or "nothing"}. Name the folder that holds them now, as `base` '
        'of a reference, a guide or config.lora, or name an export in the '
        'place of the run: experiments.convert merges the two where both are.')
  return config


def _restore(job, folder, step, params):
  with checkpoint.Checkpointer(folder, read_only=True,
                               fingerprint=job.fingerprint) as saver:
    return saver.restore_params(params, None if step < 0 else step)


def _whole_state(job: launch.Job, optimizer, key, source, moved,
                 keep_optimizer=False):
  """As `initial_state`, without adapters of its own.

  `moved` is the `base` of `stored_params`.
  """
  folder, step = source
  if not folder:
    return training_state.init_state(
        job.model, optimizer, key, job.mesh, job.rules)
  if not keep_optimizer or convert.is_published(folder):
    return training_state.init_state(
        job.model, optimizer, key, job.mesh, job.rules,
        params=stored_params(job, folder, step, moved))
  if _trained_adapters(folder):
    raise ValueError(
        'Expected init.keep_optimizer=False with a start that has trained '
        f'adapters, whose moments are of these alone, got True for {folder}. '
        'Correct it.')
  kept = training_state.abstract_state(
      job.model, optimizer, job.mesh, job.rules)
  with checkpoint.Checkpointer(pathlib.Path(folder).expanduser(),
                               read_only=True,
                               fingerprint=job.fingerprint) as saver:
    state, _ = saver.restore(saver.latest_step() if step < 0 else step, kept)
  return state.replace(step=state.step * 0), jax.tree.map(
      lambda x: x.sharding, kept)
