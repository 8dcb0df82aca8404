"""Bits set in a number: `13=8+4+1`, or `13-8=5; 5-4=1; 1-1=0`.

Either way the powers of two are distinct, so there is one for each bit.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from rljax.data.teachers import steps as lib


def write(facts: dict[str, Any], rng: np.random.Generator) -> list[str]:
  """Draws one of the two ways; the second is long when many bits are set."""
  number = rest = facts['number']
  powers = [1 << k for k in range(number.bit_length())[::-1] if number >> k & 1]
  if len(powers) > 4 or rng.random() < 0.5:
    return [f'{number}=' + '+'.join(map(str, powers))]
  steps = []
  for power in powers:
    steps.append(f'{rest}-{power}={rest - power}')
    rest -= power
  return steps


def follow(facts: dict[str, Any], steps: list[str]) -> str:
  """Returns what the steps lead to; raises BadStep at the first wrong one."""
  n, rest, powers = lib.NATURAL, facts['number'], []
  for i, step in enumerate(steps):
    if '-' in step:
      before, power, after = map(
          int, lib.match(i, rf'({n})-({n})=({n})', step))
      if before != rest or after != before - power:
        raise lib.BadStep(i, f'{step!r} is wrong after {rest}')
      powers.append(power)
      rest = after
    else:
      total, terms = lib.match(i, rf'({n})=({n}(?:\+{n})*)', step)
      if int(total) != rest:
        raise lib.BadStep(i, f'{total} is not {rest}')
      lib.check_sides(i, [terms, total], rest)
      powers += map(int, terms.split('+'))
      rest = 0
    _check_powers(i, powers)
  if rest:
    raise lib.BadStep(len(steps), f'stops with {rest} left')
  return str(len(powers))


def _check_powers(i, powers):
  if any(p < 1 or p & (p - 1) for p in powers) or (
      len(set(powers)) != len(powers)):
    raise lib.BadStep(i, f'{powers} are not distinct powers of two')
