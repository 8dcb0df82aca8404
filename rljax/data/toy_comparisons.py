"""Comparisons whose truth is known: how often does a text hold the letter?

  request 'c'  ->  'bccab', which has two of it, is better than 'abbca'

The quality of a response is the number of its letters that were asked for. A
label may be flipped with a known probability. For tests, studies and the small
configs.
"""
from __future__ import annotations

import numpy as np

from rljax.data.preference import Parts
from rljax.data.preference import Record

LETTERS = 'abcdefgh'


def open_lists(*, held_out: int, seed: int, **options) -> Parts:
  """Lists to train on, and others with right labels to be measured by.

  Args:
    held_out: how many of the others.
    seed: of everything.
    **options: of `records`.
  """
  train = records(seed=seed, **options)
  apart = records(seed=seed + 1, **options | dict(
      count=held_out, flip=0.0, name='held-out'))
  return Parts(f'toy/{seed}/{sorted(options.items())}', train, apart, {})


def records(count: int, *, seed: int, length: int = 5, letters: str = LETTERS,
            requests: str = LETTERS, size: int = 2, flip: float = 0.0,
            name: str = 'toy') -> list[Record]:
  """Pairs, or lists of more than two, all of different quality.

  Args:
    count: how many.
    seed: of everything.
    length: letters of a response.
    letters: to draw responses from.
    requests: to draw requests from, some of the letters.
    size: responses of a list; 2 is a pair.
    flip: probability that the label of a pair is wrong.
    name: in front of the ids.

  Raises:
    ValueError: sizes that cannot be.
  """
  if not (count >= 1 and 2 <= size <= length + 1 and 0 <= flip < 1
          and requests and set(requests) <= set(letters)):
    raise ValueError(
        f'Expected a record at least, 2 to {length + 1} responses of different '
        f'quality, a flip in [0, 1) and requests among {letters!r}, got '
        f'{count}, {size}, {flip} and {requests!r}. Correct them.')
  rng = np.random.default_rng(seed)
  return [_record(rng, f'{name}-{i:06d}', length, letters, requests, size, flip)
          for i in range(count)]


def quality(record: Record, response: str) -> int:
  """What the label would be made of."""
  return response.count(record['prompt'][0]['content'])


def _record(rng, name, length, letters, requests, size, flip) -> Record:
  wanted = str(rng.choice(list(requests)))
  others = [letter for letter in letters if letter != wanted]
  responses = []
  for share in rng.choice(length + 1, size, replace=False):
    text = [wanted] * int(share) + list(rng.choice(others, length - int(share)))
    responses.append(''.join(rng.permutation(text)))
  counts = [response.count(wanted) for response in responses]
  order = np.argsort(counts)[::-1]
  if rng.random() < flip:
    order = order[::-1]
  best_first = [responses[i] for i in order]
  record = {'id': name, 'prompt': [{'role': 'user', 'content': wanted}],
            'domain': 'toy', 'file_line': name}
  if size > 2:
    return record | {'responses': best_first}
  return record | {
      'chosen': best_first[0], 'rejected': best_first[1],
      'margin': float(abs(counts[0] - counts[1]))}
