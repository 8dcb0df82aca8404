"""Losses of pairs. A hyper-parameter of one name has one range in all of them.

A loss that brings a new one adds its name below, or says itself what it may be:
`alpha` and `gamma` have either sign, others a range that is the loss' own (the
contract test lists them).
"""
from collections.abc import Mapping
import math
import numbers
from typing import Any

import jax

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
        value is None and key in OPTIONAL) or isinstance(value, jax.Array):
      continue  # an array may be one that is traced, whose value nobody knows
    is_number = isinstance(value, numbers.Real) and not isinstance(
        value, bool) and math.isfinite(value)
    if not is_number or value < 0 or not value and key in POSITIVE:
      raise ValueError(
          f'Expected {key} {">" if key in POSITIVE else ">="} 0 of the '
          f'preference loss {name!r}, got {value!r}. Correct config.loss.')
