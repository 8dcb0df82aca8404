"""Chains of sums: two terms become one, `7-3=4; 4+10=14`.

The state is the multiset of signed terms. A step takes two of them and puts
their sum back, so any order is right and no term is used twice.
"""
from __future__ import annotations

import re
from typing import Any

import numpy as np

from rljax.data.teachers import steps as lib


def write(facts: dict[str, Any], rng: np.random.Generator) -> list[str]:
  """Combines from the left, or sometimes from the right."""
  terms = _terms(facts['expression'])
  from_left = rng.random() < 0.7
  steps = []
  while len(terms) > 1:
    i = 0 if from_left else len(terms) - 2
    x, y = terms[i:i + 2]
    steps.append(f'{x}{y:+d}={x + y}')
    terms[i:i + 2] = [x + y]
  return steps


def follow(facts: dict[str, Any], steps: list[str]) -> str:
  """Returns what the steps lead to; raises BadStep at the first wrong one."""
  terms = _terms(facts['expression'])
  pattern = rf'({lib.INTEGER})([+-]{lib.NATURAL})=({lib.INTEGER})'
  for i, step in enumerate(steps):
    x, y, z = lib.match(i, pattern, step)
    lib.take(i, terms, [int(x), int(y)])
    lib.check_sides(i, [z], int(x) + int(y))
    terms.append(int(z))
  return str(lib.only(terms, len(steps)))


def _terms(expression: str) -> list[int]:
  """'7 - 3 + 10' -> [7, -3, 10]."""
  text = expression.replace(' ', '')
  if not re.fullmatch(r'-?\d+([+-]\d+)*', text):
    raise ValueError(f'Expected a chain of + and -, got {expression!r}; leave '
                     'other operators out of the generator\'s config.')
  return [int(term) for term in re.findall(r'[+-]?\d+', text)]
