"""Toy preferences: a right worked solution, and the same with one wrong number.

The right one is a teacher's. In the other a single number is another one, and
the judge of its steps says that it is wrong; most of the text is the same, and
nothing but the arithmetic says which is which.
"""
from __future__ import annotations

import re
from typing import Any
import zlib

import numpy as np

from rljax.data import preference
from rljax.data import sources
from rljax.data import teacher

_NUMBER = re.compile(r'\d+')
_TRIES = 100


def open_pairs(*, held_out: int, seed: int, **options) -> preference.Parts:
  """Pairs of the problems of `builders/reasoning_gym`.

  Args:
    held_out: problems of each task that no training pair is of.
    seed: of the problems and of the texts.
    **options: of that builder: data_dir, tasks, train_size.
  """
  parts = []
  for split in ('train', 'test'):
    problems = sources.open_source(
        'reasoning_gym', split=split, seed=seed, test_size=held_out,
        validation_size=0, **options)
    parts.append([pair(problem, seed) for problem in problems])
  return preference.Parts(f'corrupted/{problems.name}', *parts, {})


def pair(problem: sources.Record, seed: int) -> preference.Record:
  """A problem's right solution against a corrupted one."""
  right = teacher.solve(problem, seed)
  return {'id': problem['id'],
          'prompt': [{'role': 'user', 'content': problem['prompt']}],
          'chosen': right, 'rejected': corrupt(problem, right, seed),
          'margin': None, 'domain': problem['domain'], 'file_line': ''}


def corrupt(problem: dict[str, Any], solution: str, seed: int) -> str:
  """The solution with one number changed, such that it is wrong."""
  rng = np.random.default_rng([seed, zlib.crc32(problem['id'].encode())])
  numbers = list(_NUMBER.finditer(solution))
  for _ in range(_TRIES if numbers else 0):
    at = numbers[int(rng.integers(len(numbers)))]
    other = max(int(at.group()) + int(rng.choice((-10, -2, -1, 1, 2, 10))), 0)
    text = f'{solution[:at.start()]}{other}{solution[at.end():]}'
    if text != solution and not teacher.check(problem, text).valid:
      return text
  raise ValueError(
      f'Expected a number to be changed in the solution of {problem["id"]!r}, '
      f'got {solution!r}: no change makes it wrong. Leave the family '
      f'{problem["family"]!r} out of the tasks.')
