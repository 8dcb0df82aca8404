"""Arithmetic on the text of a step: the parts that all the teachers share.

Numbers are written in one way only (no leading zero, no '-0'), so a step that
is right is also unambiguous, and are bounded, so a response cannot make the
judge compute for long.
"""
from __future__ import annotations

from fractions import Fraction
import re
from typing import Sequence

NATURAL = r'(?:0|[1-9]\d{0,17})'
INTEGER = r'(?:-?[1-9]\d{0,17}|0)'
_OPERATION = re.compile(rf'([-+*/])({INTEGER})')


class BadStep(Exception):
  """A step that does not follow; `index` counts from 0."""

  def __init__(self, index: int, reason: str):
    super().__init__(reason)
    self.index = index
    self.reason = reason


def evaluate(text: str) -> Fraction | None:
  """Value of a sum of products and quotients; None if it is not one."""
  first = re.match(INTEGER, text)
  if not first:
    return None
  total, term = Fraction(0), Fraction(int(first.group()))
  position = first.end()
  while position < len(text):
    found = _OPERATION.match(text, position)
    if not found or (found.group(1) == '/' and int(found.group(2)) == 0):
      return None
    operator, operand = found.group(1), int(found.group(2))
    if operator == '*':
      term *= operand
    elif operator == '/':
      term /= operand
    else:
      total, term = total + term, Fraction(operand)
      term = term if operator == '+' else -term
    position = found.end()
  return total + term


def check_sides(index: int, sides: Sequence[str], value: int) -> None:
  """Every side of an equation must have the value, and the last must be it."""
  for side in sides:
    got = evaluate(side)
    if got is None:
      raise BadStep(index, f'{side!r} is not an expression')
    if got != value:
      raise BadStep(index, f'{side!r} is {got}, not {value}')
  if sides[-1] != str(value):
    raise BadStep(index, f'{sides[-1]!r} is not worked out to {value}')


def match(index: int, pattern: str, step: str) -> tuple[str, ...]:
  """Groups of a step that must match the pattern as a whole."""
  found = re.fullmatch(pattern, step)
  if not found:
    raise BadStep(index, f'{step!r} is not a step of this kind')
  return found.groups()


def take(index: int, values: list[int], wanted: Sequence[int]) -> None:
  """Removes the wanted values, each of which must still be unused."""
  for value in wanted:
    if value not in values:
      raise BadStep(index, f'{value} is not among {values}')
    values.remove(value)


def only(values: Sequence[int], num_steps: int) -> int:
  """The one value left; otherwise the derivation stopped early."""
  if len(values) != 1:
    raise BadStep(num_steps, f'stops with {list(values)} still to be combined')
  return values[0]
