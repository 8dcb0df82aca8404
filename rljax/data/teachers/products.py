"""Chains of products, long ones by digits: `12*7=10*7+2*7=70+14=84`.

The state is the multiset of factors. A step takes two and puts their product
back; every expression between the equality signs must have its value.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from rljax.data.teachers import steps as lib


def write(facts: dict[str, Any], rng: np.random.Generator) -> list[str]:
  """Multiplies from the left, or sometimes from the right."""
  factors = _factors(facts)
  from_left = rng.random() < 0.7
  spelt_out = rng.random() < 0.5
  steps = []
  while len(factors) > 1:
    i = 0 if from_left else len(factors) - 2
    x, y = factors[i:i + 2]
    steps.append(_product(x, y, spelt_out))
    factors[i:i + 2] = [x * y]
  return steps


def follow(facts: dict[str, Any], steps: list[str]) -> str:
  """Returns what the steps lead to; raises BadStep at the first wrong one."""
  factors = _factors(facts)
  for i, step in enumerate(steps):
    head, *sides = step.split('=')
    x, y = lib.match(i, rf'({lib.INTEGER})\*({lib.INTEGER})', head)
    lib.take(i, factors, [int(x), int(y)])
    lib.check_sides(i, sides or [''], int(x) * int(y))
    factors.append(int(x) * int(y))
  return str(lib.only(factors, len(steps)))


def _product(x: int, y: int, spelt_out: bool) -> str:
  """One multiplication, split by the digits of a long factor."""
  long, short = (x, y) if y < 10 else (y, x)
  parts = _digits(long)
  if len(parts) < 2 or short == 0:
    return f'{x}*{y}={x * y}'
  sides = [f'{x}*{y}']
  if spelt_out or short >= 10:
    sides.append('+'.join(
        f'{p}*{short}' if long == x else f'{short}*{p}' for p in parts))
  sides.append('+'.join(str(p * short) for p in parts))
  return '='.join([*sides, str(x * y)])


def _digits(value: int) -> list[int]:
  """407 -> [400, 7]."""
  text = str(value)
  parts = [int(d) * 10 ** k for k, d in zip(range(len(text))[::-1], text,
                                            strict=True)]
  return [part for part in parts if part]


def _factors(facts: dict[str, Any]) -> list[int]:
  return [int(factor) for factor in facts['expression'].split(' * ')]
