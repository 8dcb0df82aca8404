"""Greatest common divisor by Euclid's algorithm: `48%18=12; 18%12=6; 12%6=0`.

Written with remainders or with quotients (`48=2*18+12`). With more than two
numbers the divisor found so far is paired with the next number.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from rljax.data.teachers import steps as lib


def write(facts: dict[str, Any], rng: np.random.Generator) -> list[str]:
  """Euclid's algorithm on the numbers from left to right."""
  with_quotient = rng.random() < 0.4
  result, *rest = facts['numbers']
  steps = []
  for number in rest:
    a, b = max(result, number), min(result, number)
    while b:
      q, r = divmod(a, b)
      steps.append(f'{a}={q}*{b}+{r}' if with_quotient else f'{a}%{b}={r}')
      a, b = b, r
    result = a
  return steps


def follow(facts: dict[str, Any], steps: list[str]) -> str:
  """Returns what the steps lead to; raises BadStep at the first wrong one."""
  numbers = list(facts['numbers'])
  pair = None  # what the next step must divide, inside one run of Euclid's
  for i, step in enumerate(steps):
    a, b = _division(i, step)
    if pair is None:
      lib.take(i, numbers, [a, b])
    elif pair != (a, b):
      raise lib.BadStep(i, f'divides {a} by {b}, not {pair[0]} by {pair[1]}')
    pair = (b, a % b)
    if a % b == 0:
      numbers.append(b)
      pair = None
  if pair is not None:
    raise lib.BadStep(len(steps), f'stops at the remainder {pair[1]}')
  return str(lib.only(numbers, len(steps)))


def _division(i: int, step: str) -> tuple[int, int]:
  """Checks one division and returns dividend and divisor."""
  n = lib.NATURAL
  if '%' in step:
    a, b, r = map(int, lib.match(i, rf'({n})%({n})=({n})', step))
    q = None
  else:
    a, q, b, r = map(int, lib.match(i, rf'({n})=({n})\*({n})\+({n})', step))
  if b == 0:
    raise lib.BadStep(i, 'divides by zero')
  if a % b != r or q not in (None, a // b):
    raise lib.BadStep(i, f'{a} = {a // b} * {b} + {a % b}')
  return a, b
