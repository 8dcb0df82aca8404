"""Models beside the policy, whose parameters stay: a reference, a guide."""
from __future__ import annotations

import dataclasses
import pathlib

import jax
import optax

from experiments.job import launch
from experiments.job import run_folder
from experiments.job import starting_params
from rljax.data import tokenizer as tokenizers
from rljax.interop import convert
from rljax.models import lora
from rljax.training import checkpoint
from rljax.training import state as states


def load(job: launch.Job, folder: str, step: int, base: str = ''):
  """Parameters of a model with the architecture of the policy.

  Those of a run that trained adapters come merged. What its adapters lie on is
  read from where that run has read it, by the configuration beside its
  checkpoints.

  Args:
    job: whose model and tokenizer it must have.
    folder: checkpoints of a run, or a published one.
    step: of a run; -1 is the newest.
    base: where the parameters under the adapters are now, if they have moved.

  Raises:
    ValueError: another architecture, a tokenizer that differs, or adapters
      whose base is not found.
  """
  if convert.is_published(folder):
    check_tokenizer(job, folder)
    return convert.load(folder, job.model, job.mesh, job.rules)
  path = pathlib.Path(folder).expanduser().resolve()
  whole = dataclasses.replace(job, fingerprint={
      name: value for name, value in job.fingerprint.items()
      if name != 'lora'})
  abstract = states.abstract_state(
      job.model, optax.identity(), job.mesh, job.rules).params
  config = run_folder.stored_config(path.parent) if (
      run_folder.is_run(path.parent)) else None
  if config is None or 'lora' not in config or not config.lora.rank:
    return _restore(whole, path, step, abstract)
  _find_base(config, path, base)
  adapted = dataclasses.replace(whole, fingerprint=whole.fingerprint | {
      'lora': launch.make_fingerprint(config, job.model)['lora']})
  state, _ = starting_params.initial_state(
      config, adapted, optax.identity(),
      states.named_keys(config.seed, 'init')['init'])
  merge = jax.jit(lora.merge, out_shardings=jax.tree.map(
      lambda x: x.sharding, abstract))
  return merge(_restore(adapted, path, step, state.params))


def check_tokenizer(job: launch.Job, folder: str):
  """Refuses a published model whose ids mean something else.

  Raises:
    ValueError: its tokenizer differs from this run's.
  """
  path = pathlib.Path(folder).expanduser()
  if not path.is_dir() or not (path / 'tokenizer_config.json').exists():
    return  # nothing to compare; sizes are compared by what reads the weights
  differing = tokenizers.differences(job.tokenizer, tokenizers.load(str(path)))
  if differing:
    raise ValueError(
        f'Expected the tokenizer of this run in {folder}, got one that '
        f'differs: {"; ".join(differing)}. Log-probabilities of other tokens '
        'cannot be compared: take a model with the same tokenizer.')


def _restore(job, path, step, params):
  with checkpoint.Checkpointer(path, read_only=True,
                               fingerprint=job.fingerprint) as saver:
    return saver.restore_params(params, None if step < 0 else step)


def _find_base(config, path, base):
  """Puts a given base into the config, and refuses one that is not there."""
  folder, step = starting_params.base_of(config)
  if base:
    folder = config.lora.base = base
    config.lora.base_step = step
  if not folder or convert.is_published(folder):
    return  # without one, it was random parameters of the run's seed
  steps = checkpoint.steps_in(pathlib.Path(folder).expanduser())
  if not steps or step >= 0 and step not in steps:
    raise ValueError(
        f'Expected the parameters that the adapters in {path} were trained on '
        f'in {folder}, {f"step {step}" if step >= 0 else "any step"}, found '
        f'{steps or "nothing"}. Name the folder that holds them now as '
        '`base` of this reference or guide, or name an export in the place of '
        'the run: experiments.convert merges the two where both are.')
