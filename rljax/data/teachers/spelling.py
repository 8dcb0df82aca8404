"""Words spelt backward, in one of three ways.

  s-u-n; n-u-s          letters apart
  1s2u3n; 3n2u1s        letters with their places
  n; nu; nus            one letter more in each step
"""
from __future__ import annotations

import re
from typing import Any

import numpy as np

from rljax.data.teachers import steps as lib


def write(facts: dict[str, Any], rng: np.random.Generator) -> list[str]:
  """Draws one of the three ways."""
  word = facts['word']
  way = rng.choice(['apart', 'places', 'growing'], p=[0.5, 0.25, 0.25])
  if way == 'apart':
    return ['-'.join(word), '-'.join(reversed(word))]
  if way == 'places' and word.isalpha():
    marked = [f'{i}{letter}' for i, letter in enumerate(word, start=1)]
    return [''.join(marked), ''.join(reversed(marked))]
  back = word[::-1]
  return [back[:n] for n in range(1, len(back) + 1)]


def follow(facts: dict[str, Any], steps: list[str]) -> str:
  """Returns what the steps lead to; raises BadStep at the first wrong one."""
  word, back = facts['word'], facts['word'][::-1]
  first = steps[0] if steps else ''
  if '-' in first:
    expected = [list(word), list(back)]
    got = [step.split('-') for step in steps]
  elif re.match(r'1[^\d]', first) and word.isalpha():
    marked = [(str(i), letter) for i, letter in enumerate(word, start=1)]
    expected = [marked, marked[::-1]]
    got = [_read_places(i, step) for i, step in enumerate(steps)]
  else:
    expected = [back[:n] for n in range(1, len(back) + 1)]
    got = steps
  for i, (want, have) in enumerate(zip(expected, got, strict=False)):
    if want != have:
      raise lib.BadStep(i, f'{steps[i]!r} is not {word!r} so far')
  if len(got) != len(expected):
    raise lib.BadStep(min(len(got), len(expected)),
                      f'{len(got)} steps where {len(expected)} are needed')
  return back


def _read_places(i, step):
  """'3n2u1s' -> [('3', 'n'), ('2', 'u'), ('1', 's')]."""
  lib.match(i, r'(\d+[^\d]){1,99}', step)
  return re.findall(r'(\d+)([^\d])', step)
