"""Generated problems with worked solutions, in domains and difficulty levels.

Everything is made on this machine from the seed; nothing is downloaded.
"""
from __future__ import annotations

import dataclasses
import importlib.metadata
from typing import Sequence

import tensorflow_datasets as tfds

from rljax.data import teacher
from rljax.data.builders import storage
from rljax.data.builders.reasoning_gym import curriculum
from rljax.data.builders.reasoning_gym import problems


@dataclasses.dataclass
class ReasoningGymConfig(tfds.core.BuilderConfig):
  tasks: tuple[tuple[str, int], ...] = ()
  sizes: dict[str, int] = dataclasses.field(default_factory=dict)
  seed: int = 0
  hint_steps: int = 0


class Builder(tfds.core.GeneratorBasedBuilder):
  """Generates the problems of its configuration."""
  name = 'reasoning_gym'
  VERSION = tfds.core.Version('1.0.0')
  url_infos = None  # no checksums: looking for them needs an undeclared package

  def _info(self):
    return storage.info(self, 'Generated problems with worked solutions.')

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing is downloaded
    config = self.builder_config
    parts = problems.make(config.tasks, config.sizes, config.seed,
                          config.hint_steps)
    return {name: self._generate_examples(part) for name, part in parts.items()}

  def _generate_examples(self, records):
    return storage.with_keys(records)


def make_builder(
    data_dir: str,
    *,
    tasks: Sequence[tuple[str, int]],
    train_size: int,
    validation_size: int,
    test_size: int,
    seed: int = 0,
    hint_steps: int = 0,
) -> tfds.core.DatasetBuilder:
  """A builder of (family, difficulty) tasks; sizes are for each of them.

  With `hint_steps`, each record has a prompt that shows so many steps of a
  solution, for `experiments.policy.guided`.
  """
  tasks = tuple((family, int(difficulty)) for family, difficulty in tasks)
  for task in tasks:
    curriculum.level(*task)
  if not tasks or len(set(tasks)) < len(tasks):
    raise ValueError(f'Expected different (family, difficulty) pairs, got '
                     f'{tasks}; name each task once.')
  sizes = dict(train=train_size, validation=validation_size, test=test_size)
  if train_size < 1 or min(sizes.values()) < 0:
    raise ValueError(f'Expected a positive train_size and no negative size, '
                     f'got {sizes}; correct them.')
  if hint_steps < 0:
    raise ValueError(f'Expected hint_steps >= 0, got {hint_steps}; 0 gives no '
                     'hints.')
  hints = {'hint_steps': hint_steps} if hint_steps else {}
  name = storage.digest(dict(
      sizes | hints, tasks=tasks, seed=seed, teacher=teacher.REVISION,
      curriculum=curriculum.REVISION,
      levels=[repr(curriculum.level(*t).arguments) for t in tasks],
      generator=importlib.metadata.version('reasoning-gym')))
  config = ReasoningGymConfig(name=name, tasks=tasks, sizes=sizes, seed=seed,
                              hint_steps=hint_steps)
  return storage.create(Builder, data_dir, config)
