"""Legs counted animal by animal: `3*4=12; 2*8=16; 12+16=28`.

Or with a running total: `0+3*4=12; 12+2*8=28`; the animal may be named.
"""
from __future__ import annotations

from typing import Any

import numpy as np
from reasoning_gym.arithmetic import leg_counting

from rljax.data.teachers import steps as lib


def write(facts: dict[str, Any], rng: np.random.Generator) -> list[str]:
  """Draws whether to name the animals and whether to keep a total."""
  named, running = rng.random(2) < 0.5
  steps, total = [], 0
  counts = _counts(facts)
  for animal, count, legs in counts:
    name = f'{animal}:' if named else ''
    head = f'{total}+{count}*{legs}' if running else f'{count}*{legs}'
    value = (total if running else 0) + count * legs
    steps.append(f'{name}{head}={value}')
    total += count * legs
  if not running and len(counts) > 1:
    steps.append(_sum(counts) + f'={total}')
  return steps


def follow(facts: dict[str, Any], steps: list[str]) -> str:
  """Returns what the steps lead to; raises BadStep at the first wrong one."""
  counts = _counts(facts)
  running = bool(steps) and '+' in steps[0]
  total = 0
  for i, (animal, count, legs) in enumerate(counts):
    if i >= len(steps):
      raise lib.BadStep(i, f'stops before {animal!r}')
    name, _, equation = steps[i].rpartition(':')
    if name not in ('', animal):
      raise lib.BadStep(i, f'{name!r} where {animal!r} is next')
    head, *sides = equation.split('=')
    if head != (f'{total}+' if running else '') + f'{count}*{legs}':
      raise lib.BadStep(i, f'{head!r} is not {count} {animal} of {legs} legs')
    value = (total if running else 0) + count * legs
    lib.check_sides(i, sides or [''], value)
    total += count * legs
  needs_sum = not running and len(counts) > 1
  if len(steps) != len(counts) + needs_sum:
    raise lib.BadStep(min(len(steps), len(counts) + needs_sum),
                      f'{len(steps)} steps for {len(counts)} animals')
  if needs_sum:
    head, *sides = steps[-1].split('=')
    if head != _sum(counts):
      raise lib.BadStep(len(counts), f'{head!r} are not the legs so far')
    lib.check_sides(len(counts), sides or [''], total)
  return str(total)


def _sum(counts) -> str:
  return '+'.join(str(count * legs) for _, count, legs in counts)


def _counts(facts: dict[str, Any]) -> list[tuple[str, int, int]]:
  """(animal, how many, legs of one), in the order of the question."""
  return [(animal, count, leg_counting.ANIMALS[animal])
          for animal, count in facts['animals'].items()]
