"""Next term of a sequence, by its rule or by its differences.

  rule:*2 +3; 14*2=28; 28+3=31          the rule must give all the terms shown
  8-5=3; 11-8=3; 11+3=14                all differences must agree
"""
from __future__ import annotations

import re
from typing import Any

import numpy as np

from rljax.data.teachers import steps as lib

_NAMES = (  # how the generator names its operations, and how we write them
    (r'add (-?\d+)', lambda k: f'{int(k):+d}'),
    (r'multiply by (-?\d+)', lambda k: f'*{k}'),
    (r'square', lambda: '^2'),
    (r'double', lambda: '*2'),
    (r'halve', lambda: '//2'),
    (r'add previous', lambda: '+prev'),
)
_OPERATION = r'(?:[+-][1-9]\d?|\*-?[1-9]\d?|\^2|//2|\+prev)'


def write(facts: dict[str, Any], rng: np.random.Generator) -> list[str]:
  """Draws one of the two ways where both are possible."""
  shown = facts['sequence'][:-1]
  rule = operations(facts)
  gaps = {b - a for a, b in zip(shown, shown[1:], strict=False)}
  steps = []
  if len(gaps) == 1 and rng.random() < 0.5:
    gap = gaps.pop()
    for a, b in zip(shown, shown[1:], strict=False):
      steps.append(f'{b}{-a:+d}={gap}')
    return [*steps, f'{shown[-1]}{gap:+d}={shown[-1] + gap}']
  steps.append('rule:' + ' '.join(rule))
  value = shown[-1]
  for operation in rule:
    head, result = _apply(operation, value, shown[-2])
    steps.append(f'{head}={result}')
    value = result
  return steps


def follow(facts: dict[str, Any], steps: list[str]) -> str:
  """Returns what the steps lead to; raises BadStep at the first wrong one."""
  shown = facts['sequence'][:-1]
  if not steps:
    raise lib.BadStep(0, 'nothing is worked out')
  if steps[0].startswith('rule:'):
    return _follow_rule(shown, steps)
  return _follow_gaps(shown, steps)


def operations(facts: dict[str, Any]) -> list[str]:
  """'double then add 3' -> ['*2', '+3']."""
  written = []
  for part in facts['rule'].split(' then '):
    for pattern, form in _NAMES:
      found = re.fullmatch(pattern, part)
      if found:
        written.append(form(*found.groups()))
        break
    else:
      raise ValueError(f'Expected a rule of known operations, got '
                       f'{facts["rule"]!r}; add {part!r} to the table here.')
  return written


def _follow_rule(shown, steps):
  (text,) = lib.match(0, rf'rule:({_OPERATION}(?: {_OPERATION})*)', steps[0])
  rule = text.split(' ')
  for position in range(len(shown) - 1):
    value = shown[position]
    for operation in rule:
      # The generator adds nothing in place of a term before the first.
      previous = shown[position - 1] if position else 0
      _, value = _apply(operation, value, previous)
    if value != shown[position + 1]:
      raise lib.BadStep(0, f'{text!r} gives {value} after {shown[position]}')
  value = shown[-1]
  for i, operation in enumerate(rule, start=1):
    if i >= len(steps):
      raise lib.BadStep(i, 'stops before the rule is applied')
    head, result = _apply(operation, value, shown[-2])
    if steps[i] != f'{head}={result}':
      raise lib.BadStep(i, f'{steps[i]!r} is not {operation} at {value}')
    value = result
  if len(steps) > len(rule) + 1:
    raise lib.BadStep(len(rule) + 1, 'goes on after the rule is applied')
  return str(value)


def _follow_gaps(shown, steps):
  pattern = rf'({lib.INTEGER})([+-]{lib.NATURAL})=({lib.INTEGER})'
  gaps = []
  for i, (a, b) in enumerate(zip(shown, shown[1:], strict=False)):
    if i >= len(steps):
      raise lib.BadStep(i, 'stops before the last difference')
    x, y, z = map(int, lib.match(i, pattern, steps[i]))
    if (x, y) != (b, -a) or z != b - a or z != (gaps or [z])[0]:
      raise lib.BadStep(i, f'{steps[i]!r} is not the common difference')
    gaps.append(z)
  last = len(gaps)
  if len(steps) != last + 1:
    raise lib.BadStep(min(len(steps), last + 1), 'one sum must follow')
  x, y, z = map(int, lib.match(last, pattern, steps[last]))
  if (x, y) != (shown[-1], gaps[0]) or z != x + y:
    raise lib.BadStep(last, f'{steps[last]!r} does not add {gaps[0]}')
  return str(z)


def _apply(operation: str, value: int, previous: int) -> tuple[str, int]:
  """The operation written out at a value, and its result."""
  if operation == '^2':
    return f'{value}^2', value * value
  if operation == '//2':
    return f'{value}//2', value // 2
  if operation == '+prev':
    return f'{value}{previous:+d}', value + previous
  if operation[0] == '*':
    return f'{value}*{operation[1:]}', value * int(operation[1:])
  return f'{value}{operation}', value + int(operation)
