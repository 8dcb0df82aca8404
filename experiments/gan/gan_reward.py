"""A reward of a finished run of GAN-RM, to be asked again.

  <run>/config.json                 what it was trained with
  <run>/reward_models/classes.json  names of the prompts, by number
  <run>/reward_models/<t>           parameters of R_t
"""
from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gan import gan_rounds
from experiments.job import run_folder
from rljax.evaluation import report
from rljax.training import checkpoint

FOLDER = 'reward_models'
_CLASSES = 'classes.json'


@dataclasses.dataclass(frozen=True)
class Reward:
  """R_t of a run; call it on images that are prepared as its own were."""
  folder: pathlib.Path
  number: int                # t
  data: Any                  # `config.data`: size, channels and margin
  conditioned: bool          # whether the score depends on the class
  classes: tuple[str, ...]
  encode: Any
  score: Any
  params: Any

  def __call__(self, image_RYWU, class_R) -> np.ndarray:
    """R of each image, in [0, 1]; the class counts if `conditioned`."""
    prompt_RD = jax.nn.one_hot(np.asarray(class_R), len(self.classes))
    return np.asarray(self.score(self.params, self.encode(image_RYWU),
                                 prompt_RD))


def write_classes(folder: pathlib.Path, classes: Sequence[str]):
  """Keeps the names of a run's prompts beside its rewards."""
  path = folder / FOLDER / _CLASSES
  path.parent.mkdir(exist_ok=True)
  report.write_json(path, list(classes))


def load(folder: str | pathlib.Path, number: int = -1) -> Reward:
  """Reads sizes, encoder and parameters from the folder of a run.

  Args:
    folder: the --workdir of `experiments.train_gan_rm`.
    number: of the round; -1 is the last.

  Raises:
    ValueError: no such run or round, or other parameters than it says.
  """
  folder = pathlib.Path(folder).expanduser().resolve()
  config = run_folder.stored_config(folder)
  saved = folder / FOLDER
  rounds = sorted(int(path.name) for path in saved.glob('*')
                  if path.name.isdecimal())
  if not rounds or not (saved / _CLASSES).exists():
    raise ValueError(f'Expected rewards and {_CLASSES} in {saved}, found '
                     f'rounds {rounds}. Name the --workdir of train_gan_rm, '
                     'behind its first round.')
  number = rounds[-1] if number == -1 else number
  if number not in rounds:
    raise ValueError(f'Expected a round among {rounds}, got {number}. Name '
                     'one of these, or -1 for the last.')
  classes = tuple(json.loads((saved / _CLASSES).read_text()))
  size = config.data.size + 2 * config.data.margin
  encode = gan_rounds.make_encoder(config.encoder, size, config.data.channels)
  head = gan_rounds.make_head(config)
  like = head.init(
      jax.random.key(0),
      encode(jnp.zeros((1, size, size, config.data.channels))),
      jnp.zeros((1, len(classes))))['params']
  return Reward(
      folder, number, config.data, config.reward.conditioned, classes, encode,
      gan_rounds.make_score_fn(head),
      checkpoint.load_params(saved / str(number), like))
