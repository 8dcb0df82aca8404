"""Numbers from base to base, through decimal: `1*4+1*1=5; 5/3=1r2; 1/3=0r1`.

Digits above nine are written as numbers in the steps and as letters in the
answer. The answer is the remainders, last one first.
"""
from __future__ import annotations

import string
from typing import Any

import numpy as np

from rljax.data.teachers import steps as lib

_DIGITS = string.digits + string.ascii_lowercase


def write(facts: dict[str, Any], rng: np.random.Generator) -> list[str]:
  """Reads by place values or digit by digit, then divides."""
  digits, base = _digits(facts), facts['source_base']
  value, steps = 0, []
  if base != 10 and rng.random() < 0.5:
    terms = _weighted(digits, base)
    value = facts['decimal_value']
    steps.append('+'.join(terms) + f'={value}')
  elif base != 10:
    for digit in digits:
      steps.append(f'{value}*{base}+{digit}={value * base + digit}')
      value = value * base + digit
  value, base = facts['decimal_value'], facts['target_base']
  while base != 10:
    steps.append(f'{value}/{base}={value // base}r{value % base}')
    value //= base
    if not value:
      break
  return steps


def follow(facts: dict[str, Any], steps: list[str]) -> str:
  """Returns what the steps lead to; raises BadStep at the first wrong one."""
  i, value = _read(facts, steps)
  base, remainders = facts['target_base'], []
  if base == 10:
    if i < len(steps):
      raise lib.BadStep(i, 'goes on after the value in decimal')
    return str(value)
  n = lib.NATURAL
  for j, step in enumerate(steps[i:], start=i):
    if remainders and not value:
      raise lib.BadStep(j, 'goes on after the quotient 0')
    over, under, q, r = map(int, lib.match(j, rf'({n})/({n})=({n})r({n})',
                                           step))
    if (over, under) != (value, base) or (q, r) != divmod(over, under):
      raise lib.BadStep(j, f'{step!r} is wrong at {value} in base {base}')
    remainders.append(r)
    value = q
  if value or not remainders:
    raise lib.BadStep(len(steps), f'stops with the quotient {value}')
  return ''.join(_DIGITS[r] for r in reversed(remainders))


def _read(facts, steps):
  """Value of the source digits and the number of steps that it took."""
  digits, base = _digits(facts), facts['source_base']
  if base == 10:
    return 0, int(facts['source_repr'])
  if not steps:
    raise lib.BadStep(0, 'nothing is worked out')
  n = lib.NATURAL
  head, _, claim = steps[0].partition('=')
  if head == '+'.join(_weighted(digits, base)):
    value = sum(d * base ** k for k, d in enumerate(reversed(digits)))
    lib.check_sides(0, [claim], value)
    return 1, value
  value = 0
  for i, digit in enumerate(digits):
    if i >= len(steps):
      raise lib.BadStep(i, 'stops before the last digit')
    before, by, plus, after = map(
        int, lib.match(i, rf'({n})\*({n})\+({n})=({n})', steps[i]))
    if (before, by, plus) != (value, base, digit) or (
        after != before * by + plus):
      raise lib.BadStep(i, f'{steps[i]!r} is wrong at {value}')
    value = after
  return len(digits), value


def _weighted(digits, base):
  """Digit times place value, zeros left out."""
  places = range(len(digits))[::-1]
  terms = [f'{d}*{base ** k}' for d, k in zip(digits, places, strict=True) if d]
  return terms or ['0*1']


def _digits(facts):
  return [_DIGITS.index(c) for c in facts['source_repr']]
