"""Models beside the policy, whose parameters stay: a reference, a guide."""
from __future__ import annotations

import pathlib

from experiments.job import launch
from experiments.job import starting_params
from rljax.data import tokenizer as tokenizers
from rljax.interop import convert


def load(job: launch.Job, folder: str, step: int, base: str = ''):
  """Parameters of a model with the architecture of the policy.

  Arguments are those of `starting_params.stored_params`; the job may train
  adapters.

  Raises:
    ValueError: another architecture, a tokenizer that differs, or adapters
      whose base is not found.
  """
  if convert.is_published(folder):
    check_tokenizer(job, folder)
  return starting_params.stored_params(
      starting_params.without_adapters(job), folder, step, base)


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
