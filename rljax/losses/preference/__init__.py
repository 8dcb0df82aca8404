"""Losses of pairs. A hyper-parameter of one name has one range in all of them.

Each name is below, or the loss itself says what it may be: `alpha` and `gamma`
have either sign, others a range that is the loss' own.
"""
from collections.abc import Mapping
import math
from typing import Any

POSITIVE = ('beta', 'reward_beta', 'tau')
NOT_NEGATIVE = (
    'desirable_weight', 'generation_coef', 'length_penalty', 'nll_coef',
    'odds_coef', 'penalty', 'preference_coef', 'quality_coef',
    'undesirable_weight', 'weight_clip')
OPTIONAL = ('reward_beta', 'weight_clip')  # may be None


def check(name: str, hparams: Mapping[str, Any]):
  """Refuses numbers with which a loss would fail, or train the opposite.

  Raises:
    ValueError: one of the above that is out of its range.
  """
  for key, value in hparams.items():
    if key not in POSITIVE + NOT_NEGATIVE or (
        value is None and key in OPTIONAL):
      continue
    is_number = isinstance(value, (int, float)) and math.isfinite(value)
    if not is_number or value < 0 or not value and key in POSITIVE:
      raise ValueError(
          f'Expected {key} {">" if key in POSITIVE else ">="} 0 of the '
          f'preference loss {name!r}, got {value!r}. Correct config.loss.')
