"""Alice-in-Wonderland questions: `sisters:4; 4+1=5`, she being one of them."""
from __future__ import annotations

import re
from typing import Any

import numpy as np

from rljax.data.teachers import steps as lib

_COUNTED = {  # what is counted, and where the question says how many
    'siblings': ('sisters', r'(\d+) sisters'),
    'friends': ('female friends', r'(\d+) female friends'),
    'colleagues': ('female colleagues', r'also has (\d+) female colleagues'),
}


def write(facts: dict[str, Any], rng: np.random.Generator) -> list[str]:
  """Sometimes names what is counted before adding her to it."""
  what, count = _count(facts)
  steps = [f'{what}:{count}'] if rng.random() < 0.5 else []
  if rng.random() < 0.5:
    return [*steps, f'{count}+1={count + 1}']
  return [*steps, f'1+{count}={count + 1}']


def follow(facts: dict[str, Any], steps: list[str]) -> str:
  """Returns what the steps lead to; raises BadStep at the first wrong one."""
  what, count = _count(facts)
  named = bool(steps) and ':' in steps[0]
  if named and steps[0] != f'{what}:{count}':
    raise lib.BadStep(0, f'the question says {count} {what}')
  i = int(named)
  if len(steps) != i + 1:
    raise lib.BadStep(min(len(steps), i + 1), 'one sum is needed')
  head, *sides = steps[i].split('=')
  if head not in (f'{count}+1', f'1+{count}'):
    raise lib.BadStep(i, f'{head!r} does not add her to the {count} {what}')
  lib.check_sides(i, sides or [''], count + 1)
  return str(count + 1)


def _count(facts: dict[str, Any]) -> tuple[str, int]:
  what, pattern = _COUNTED[facts['task_type']]
  return what, int(re.search(pattern, facts['prompt']).group(1))
