"""Linear equations in one unknown: `3*x=20-5=15; x=15/3=5`.

The state is (a, b, c) of a·x + b = c. A step moves the constant or divides by
the coefficient; an answer may be tried in the equation at the end.
"""
from __future__ import annotations

import re
from typing import Any

import numpy as np

from rljax.data.teachers import steps as lib


def write(facts: dict[str, Any], rng: np.random.Generator) -> list[str]:
  """Moves the constant, divides, and sometimes tries the answer."""
  x = facts['variable']
  a, b, c = _coefficients(facts)
  value = (c - b) // a
  steps = []
  if b:
    left = {1: x, -1: f'-{x}'}.get(a, f'{a}*{x}')
    steps.append(f'{left}={c}{-b:+d}={c - b}')
  if a != 1:
    steps.append(f'{x}={c - b}/{a}={value}')
  if not steps:
    steps.append(f'{x}={c}')
  if rng.random() < 0.25:
    steps.append(_tried(a, b, c, value))
  return steps


def follow(facts: dict[str, Any], steps: list[str]) -> str:
  """Returns what the steps lead to; raises BadStep at the first wrong one."""
  start = _coefficients(facts)
  a, b, c = start
  x, n = facts['variable'], lib.INTEGER
  stated = False  # whether the value of x has been written down
  for i, step in enumerate(steps):
    if x not in step:
      _check_trial(i, step, start, a, b, c)
    elif '/' in step:
      over, under, got = lib.match(i, rf'{x}=({n})/({n})=({n})', step)
      if b or (int(over), int(under)) != (c, a):
        raise lib.BadStep(i, f'{step!r} does not divide the equation by {a}')
      lib.check_sides(i, [f'{c}/{a}', got], c // a)
      a, c, stated = 1, c // a, True
    elif b:
      factor, first, second, got = lib.match(
          i, rf'(-|{n}\*|){x}=({n})([+-]{lib.NATURAL})=({n})', step)
      scale = int(factor[:-1] or '-1') if factor else 1
      if (scale, int(first), int(second)) != (a, c, -b):
        raise lib.BadStep(i, f'{step!r} does not move {b} across')
      lib.check_sides(i, [got], c - b)
      b, c, stated = 0, c - b, a == 1
    else:
      (got,) = lib.match(i, rf'{x}=({n})', step)
      if a != 1 or int(got) != c:
        raise lib.BadStep(i, f'{step!r} does not follow')
      stated = True
  if not stated:
    raise lib.BadStep(len(steps), f'stops before {x} is alone')
  return str(c)


def _tried(a: int, b: int, c: int, value: int) -> str:
  """The equation with the value put in."""
  scaled = str(value) if a == 1 else f'{a}*{value}'
  return f'{scaled}{b:+d}={c}' if b else f'{scaled}={c}'


def _check_trial(i, step, start, a, b, c):
  """A step without the unknown: the answer tried in the first equation."""
  if (a, b) != (1, 0):
    raise lib.BadStep(i, f'{step!r} comes before the unknown is known')
  if step != _tried(*start, c):
    raise lib.BadStep(i, f'{step!r} is not the equation with {c} put in')


def _coefficients(facts: dict[str, Any]) -> tuple[int, int, int]:
  """'5 - 3*x = -1' -> (-3, 5, -1)."""
  left, right = facts['equation'].replace(' ', '').split('=')
  x = facts['variable']
  if not re.fullmatch(rf'-?(\d+\*)?[{x}\d]+([+-](\d+\*)?[{x}\d]+)*', left):
    raise ValueError(f'Expected a linear equation, got {facts["equation"]!r}; '
                     'leave powers out of the generator\'s config.')
  a = b = 0
  for sign, factor, body in re.findall(rf'([+-]?)(?:(\d+)\*)?({x}|\d+)', left):
    value = int(factor or 1) * (1 if body == x else int(body))
    value = -value if sign == '-' else value
    a, b = (a + value, b) if body == x else (a, b + value)
  return a, b, int(right)
