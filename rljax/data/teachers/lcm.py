"""Least common multiple, by the common factor or by counting up multiples.

  8=4*2; 12=4*3; 4*2*3=24        common factor 4, cofactors without another
  12%8=4; 24%8=0                 multiples of 12 until one divides by 8
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from rljax.data.teachers import steps as lib


def write(facts: dict[str, Any], rng: np.random.Generator) -> list[str]:
  """Two numbers at a time, from left to right."""
  by_multiples = rng.random() < 0.5
  result, *rest = facts['numbers']
  steps = []
  for number in rest:
    x, y = max(result, number), min(result, number)
    result = math.lcm(x, y)
    if by_multiples and result // x <= 4:  # longer lists teach little
      steps += [f'{m}%{y}={m % y}' for m in range(x, result + 1, x)]
    else:
      g = math.gcd(x, y)
      steps += [f'{x}={g}*{x // g}', f'{y}={g}*{y // g}',
                f'{g}*{x // g}*{y // g}={result}']
  return steps


def follow(facts: dict[str, Any], steps: list[str]) -> str:
  """Returns what the steps lead to; raises BadStep at the first wrong one."""
  numbers = list(facts['numbers'])
  i = 0
  while i < len(steps):
    by_multiples = '%' in steps[i]
    i, result = (_multiples if by_multiples else _factors)(i, steps, numbers)
    numbers.append(result)
  return str(lib.only(numbers, len(steps)))


def _multiples(i, steps, numbers):
  """Reads consecutive multiples; returns the next index and the multiple."""
  n, base, divisor, multiple = lib.NATURAL, None, None, 0
  while i < len(steps):
    m, d, r = map(int, lib.match(i, rf'({n})%({n})=({n})', steps[i]))
    if base is None:
      base, divisor = m, d
      lib.take(i, numbers, [base, divisor])
    multiple += base
    if (m, d) != (multiple, divisor):
      raise lib.BadStep(i, f'expected {multiple}%{divisor}')
    if m % d != r:
      raise lib.BadStep(i, f'{m}%{d} is {m % d}')
    i += 1
    if r == 0:
      return i, multiple
  raise lib.BadStep(i, 'stops before a common multiple')


def _factors(i, steps, numbers):
  """Reads two factorings and a product; returns the next index and it."""
  n, cofactors, common = lib.NATURAL, [], None
  for j in (i, i + 1):
    if j >= len(steps):
      raise lib.BadStep(j, 'stops before both numbers are factored')
    x, g, p = map(int, lib.match(j, rf'({n})=({n})\*({n})', steps[j]))
    lib.take(j, numbers, [x])
    if g * p != x or g == 0 or g != (common or g):
      raise lib.BadStep(j, f'{x} is not {g}*{p} with the common factor')
    common = g
    cofactors.append(p)
  if i + 2 >= len(steps):
    raise lib.BadStep(i + 2, 'stops before the product')
  head, *sides = steps[i + 2].split('=')
  got = tuple(map(int, lib.match(i + 2, rf'({n})\*({n})\*({n})', head)))
  if got != (common, *cofactors) or math.gcd(*cofactors) != 1:
    raise lib.BadStep(i + 2, f'{head!r} is not the least common multiple')
  lib.check_sides(i + 2, sides or [''], math.prod(got))
  return i + 3, math.prod(got)
