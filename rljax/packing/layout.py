"""Where sequences go: which row, and which positions in it.

Best fit, longest first, into rows of one length. Micro-batch i of n is made of
the strided rows i::n; used rows are laid out in that order, so the sequences
fill as few micro-batches as possible, the others hold nothing but padding, and
the update can skip them.

Reference: Worst-case performance bounds for simple one-dimensional packing
algorithms (SIAM J. Comput. 3, 1974): best-fit decreasing needs at most 11/9 of
the fewest possible rows, plus a constant.
"""
from __future__ import annotations

import bisect
import collections

import numpy as np


def place(
    lengths: np.ndarray, row_length: int, most: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Row and offset of each sequence: best fit, longest first; deterministic.

  A row takes `most` sequences at most; None is any number.
  """
  lengths = np.asarray(lengths)
  if lengths.size and not 1 <= lengths.min() <= lengths.max() <= row_length:
    worst = lengths.argmin() if lengths.min() < 1 else lengths.argmax()
    raise ValueError(
        f'Expected sequences of 1 to row_length={row_length} tokens, got '
        f'{lengths[worst]} at index {worst}. Raise row_length, shorten the '
        'sequence or leave it out.')
  row_of = np.zeros(lengths.shape, np.int32)
  offset_of = np.zeros(lengths.shape, np.int32)
  free = []  # (positions left, row), sorted
  count = collections.Counter()  # of the sequences in a row
  for index in np.argsort(-lengths, kind='stable'):
    length = int(lengths[index])
    found = bisect.bisect_left(free, (length, -1))
    left, row = free.pop(found) if found < len(free) else (
        row_length, len(count))
    row_of[index], offset_of[index] = row, row_length - left
    count[row] += 1
    if count[row] != most:
      bisect.insort(free, (left - length, row))
  return row_of, offset_of


def layout(
    lengths: np.ndarray,
    num_rows: int,
    row_length: int,
    num_microbatches: int,
    most: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """`place`, with the used rows in the order of the micro-batches."""
  if num_microbatches < 1 or num_rows % num_microbatches:
    raise ValueError(
        f'Expected num_microbatches to divide num_rows={num_rows}, got '
        f'{num_microbatches}. Change one of them.')
  row_of, offset_of = place(lengths, row_length, most)
  needed = int(row_of.max(initial=-1)) + 1
  if needed > num_rows:
    raise ValueError(
        f'Expected the {len(lengths)} sequences ({int(lengths.sum())} tokens) '
        f'to fit in num_rows={num_rows} of {row_length}, got a need of {needed}'
        ' rows. Raise num_rows or row_length, or lower the tokens of a step.')
  per_batch = num_rows // num_microbatches
  row_of = row_of // per_batch + num_microbatches * (row_of % per_batch)
  return row_of, offset_of


def rows_bound(
    *,
    token_budget: int,
    num_responses: int,
    max_prompt_length: int,
    max_response_length: int,
    row_length: int,
) -> int:
  """Rows that suffice for every selection of this size, whatever the lengths.

  A ring window, or a crossing response kept whole, takes up to one response
  more: add `max_response_length` to the budget.

  The smallest of three bounds. Best fit opens a row only when no other has
  room, so (a) all others hold at least the k sequences that always fit, (b) all
  others are filled beyond what the longest sequence leaves, (c) any two rows
  together hold more than one row does.
  """
  longest = max_prompt_length + max_response_length
  if longest > row_length:
    raise ValueError(
        'Expected row_length >= max_prompt_length + max_response_length = '
        f'{longest}, got {row_length}. Raise row_length or lower the limits.')
  num_sequences = min(num_responses, token_budget)  # of a token or more each
  total = (min(token_budget, num_responses * max_response_length)
           + num_sequences * max_prompt_length)
  by_count = -(-num_sequences // (row_length // longest))
  by_room = total // (row_length - longest + 1) + 1
  by_half = 2 * total // row_length + 1
  return min(by_count, by_room, by_half)


def policy_shares(segment_BT: np.ndarray) -> np.ndarray:
  """share_BT: 1 / (real tokens of the step), 0 on padding."""
  real_BT = (np.asarray(segment_BT) > 0).astype(np.float32)
  return real_BT / np.float32(max(real_BT.sum(dtype=np.float64), 1))


def row_fill(segment_BT: np.ndarray, num_microbatches: int = 1) -> float:
  """Share of real tokens in the positions of the micro-batches in use."""
  real_BT = np.asarray(segment_BT) > 0
  per_batch = [real_BT[i::num_microbatches] for i in range(num_microbatches)]
  used = [real for real in per_batch if real.any()]
  return float(np.mean([real.mean() for real in used])) if used else 0.0
