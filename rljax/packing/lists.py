"""Compared responses in rows of one fixed shape, each list whole in one row.

  [what all texts begin with] [rest of text 1] [rest of text 2] ...

Each bracket is a segment. What the texts of a list have in common, a prompt for
the most part, is stored once: the positions of the rests go on from it, and
their tokens see it (`prefix_BT`). A decoder says the same of it whatever
follows, so scores are those of the whole texts.

Where a score is read follows from where a text was put, never from a token id:
padding, a stop token inside a text and whatever else is in the row do not
matter.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rljax.packing import layout
from rljax.types import ComparedTexts
from rljax.types import RewardBatch


def stored_length(one: ComparedTexts) -> int:
  """Positions that a list takes in a row."""
  shared = _shared_length(one.texts)
  return sum(map(len, one.texts)) - shared * (len(one.texts) - 1)


def pack_lists(
    lists: Sequence[ComparedTexts],
    *,
    num_rows: int,
    row_length: int,
    lists_per_row: int,
    num_candidates: int,
    num_microbatches: int = 1,
) -> tuple[RewardBatch, np.ndarray]:
  """Rows of lists; the weights are those of the whole step.

  Args:
    lists: at least one.
    num_rows: of the batch.
    row_length: positions in a row.
    lists_per_row: P, the most lists that a row gets.
    num_candidates: C, the most candidates of a list.
    num_microbatches: the rows of a step are split into.

  Returns:
    The batch, and place_N2: row and place in it of every list.

  Raises:
    ValueError: a list that does not fit, or too few rows.
  """
  _check(lists, num_candidates, row_length)
  length_N = np.array([stored_length(one) for one in lists])
  rows, offsets = layout.layout(length_N, num_rows, row_length,
                                num_microbatches, most=lists_per_row)
  tokens_BT, position_BT, segment_BT, prefix_BT = (
      np.zeros((num_rows, row_length), np.int32) for _ in range(4))
  read_BPC, rank_BPC = (
      np.full((num_rows, lists_per_row, num_candidates), fill, np.int32)
      for fill in (0, -1))
  margin_BP, weight_BP = (
      np.zeros((num_rows, lists_per_row), np.float32) for _ in range(2))
  place_N2, taken_B, segment = [], np.zeros(num_rows, np.int32), 0
  for one, row, begin in zip(lists, rows, offsets, strict=True):
    place = taken_B[row]
    taken_B[row] += 1
    place_N2.append((row, place))
    shared = _shared_length(one.texts)
    prefix = segment + 1 if shared else 0
    ends = []
    for first, text in [(0, one.texts[0][:shared])] * bool(shared) + [
        (shared, text[shared:]) for text in one.texts]:
      segment += 1
      end = begin + len(text)
      tokens_BT[row, begin:end] = text
      position_BT[row, begin:end] = first + np.arange(len(text))
      segment_BT[row, begin:end] = segment
      prefix_BT[row, begin:end] = prefix if first else 0
      ends.append(end - 1)
      begin = end
    ends = ends[-len(one.texts):]
    count = len(one.ranks)
    read_BPC[row, place, :count] = ends if len(ends) == count else ends * count
    rank_BPC[row, place, :count] = one.ranks
    margin_BP[row, place] = one.margin
    weight_BP[row, place] = 1 / len(lists)
  return RewardBatch(
      tokens_BT=tokens_BT, position_BT=position_BT, segment_BT=segment_BT,
      prefix_BT=prefix_BT,
      share_BT=layout.policy_shares(segment_BT), read_BPC=read_BPC,
      rank_BPC=rank_BPC, margin_BP=margin_BP, weight_BP=weight_BP,
      load_BLE=None), np.array(place_N2, np.int32)


def _shared_length(texts) -> int:
  """Tokens that all begin with; each keeps one of its own, to be read at."""
  if len(texts) == 1:
    return 0
  most = min(map(len, texts)) - 1
  alike_T = np.all([text[:most] == texts[0][:most] for text in texts], axis=0)
  return most if alike_T.all() else int(alike_T.argmin())


def _check(lists, num_candidates, row_length):
  if not lists:
    raise ValueError('Expected a list of responses at least, got none. Pass '
                     'those of the step.')
  for index, one in enumerate(lists):
    count, texts = len(one.ranks), len(one.texts)
    if not 1 <= count <= num_candidates or texts not in (1, count):
      raise ValueError(
          f'Expected 1 to {num_candidates} candidates, with a text each or one '
          f'for all, got {count} and {texts} texts in list {index}. Raise '
          'packing.num_candidates, or correct the list.')
    if not all(map(len, one.texts)):
      raise ValueError(f'Expected texts of a token or more, got an empty one '
                       f'in list {index}. Leave it out.')
    length = stored_length(one)
    if length > row_length:
      raise ValueError(
          f'Expected the texts of a list within row_length={row_length}, got '
          f'{length} tokens in list {index}. Cut or drop it, or raise '
          'packing.row_length.')
