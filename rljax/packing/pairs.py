"""Whole pairs in rows of one fixed shape, their prompt stored once or twice.

  shared   [prompt without its last token] [last + chosen] [last + rejected]
  whole    [prompt + chosen] [prompt + rejected]

Each bracket is a segment. With a shared prompt, positions of both responses go
on from it and their tokens see it (`prefix_BT`); its last token is repeated, as
each response's first token is predicted from a copy of its own. Either way the
log-probabilities of the responses are the same numbers.

Both sides of a pair stand in one row, hence in one micro-batch and on one
device, and a preference loss is a sum over rows.
"""
from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from rljax.packing import layout
from rljax.types import PreferenceBatch
from rljax.types import TokenPair

Sides = tuple[np.ndarray, np.ndarray]  # values of chosen and rejected tokens


@dataclasses.dataclass(frozen=True)
class Place:
  """Where the response tokens of one pair stand, and its place in a row."""
  row: int
  number: int  # of the row's pairs, from 0
  chosen: slice
  rejected: slice


def stored_length(pair: TokenPair, share_prompt: bool) -> int:
  """Positions that a pair takes in a row."""
  prompts = len(pair.prompt) + 1 if share_prompt else 2 * len(pair.prompt)
  return prompts + len(pair.chosen) + len(pair.rejected)


def pack_pairs(
    pairs: Sequence[TokenPair],
    *,
    num_rows: int,
    row_length: int,
    pairs_per_row: int,
    num_microbatches: int = 1,
    share_prompt: bool = True,
    one_sided: bool = False,
) -> tuple[PreferenceBatch, tuple[Place, ...]]:
  """Lays the pairs of a step out; their weights are those of the whole step.

  Args:
    pairs: of the step.
    num_rows: of the batch.
    row_length: positions in a row.
    pairs_per_row: the most that a row may hold.
    num_microbatches: into which the rows are split; see `layout`.
    share_prompt: whether a prompt is stored once.
    one_sided: whether a pair may have one response alone, for a loss that
      takes each by itself.

  Returns:
    The batch, without log-probabilities of a reference or a guide, and where
    the responses stand, in the order of the pairs.

  Raises:
    ValueError: a pair that is empty somewhere or does not fit, or more pairs
      than the rows hold.
  """
  _check(pairs, row_length, pairs_per_row, share_prompt, one_sided)
  lengths = np.array([stored_length(pair, share_prompt) for pair in pairs])
  rows, offsets = layout.layout(lengths, num_rows, row_length,
                                num_microbatches, most=pairs_per_row)
  shape_BT = (num_rows, row_length)
  arrays = {name: np.zeros(shape_BT, np.int32) for name in (
      'tokens_BT', 'position_BT', 'segment_BT', 'pair_BT', 'prefix_BT')}
  arrays |= {name: np.zeros(shape_BT, bool)
             for name in ('chosen_BT', 'mask_BT')}
  weight_BP = np.zeros((num_rows, pairs_per_row), np.float32)
  places, count_B = [], np.zeros(num_rows, np.int32)
  for index, (pair, row, begin) in enumerate(zip(pairs, rows, offsets,
                                                 strict=True)):
    weight_BP[row, count_B[row]] = np.float32(1) / np.float32(len(pairs))
    count_B[row] += 1
    own = {name: x_BT[row, begin:begin + lengths[index]]
           for name, x_BT in arrays.items()}
    own['pair_BT'][:] = count_B[row]
    write = _write_shared if share_prompt else _write_whole
    chosen, rejected = write(pair, own, 3 * index)
    places.append(Place(int(row), int(count_B[row]) - 1, *(
        slice(int(begin) + s.start, int(begin) + s.stop)
        for s in (chosen, rejected))))
  if not share_prompt:
    arrays['prefix_BT'] = None
  return PreferenceBatch(
      **arrays, weight_BP=weight_BP,
      share_BT=layout.policy_shares(arrays['segment_BT']),
      ref_logp_BT=None, guide_logp_BT=None, load_BLE=None), tuple(places)


def mismatched(pairs: Sequence[TokenPair], row_length: int,
               share_prompt: bool) -> list[TokenPair]:
  """Each prompt with the responses to the next one that differs, for KTO's z.

  Several examples may share a prompt, of a good and of a bad response; only
  where all of a step do, it keeps responses to itself. Of a prompt that leaves
  no room for them, the end is kept.

  Raises:
    ValueError: a single pair, of which nothing can be mismatched.
  """
  if len(pairs) < 2:
    raise ValueError(f'Expected two pairs or more in a step, to mismatch '
                     f'prompts and responses, got {len(pairs)}. Raise '
                     'data.examples_per_step.')
  found = []
  for i, own in enumerate(pairs):
    following = [*pairs[i + 1:], *pairs[:i]]
    other = next((pair for pair in following if not np.array_equal(
        pair.prompt, own.prompt)), following[0])
    swapped = dataclasses.replace(other, id=own.id, prompt=own.prompt)
    excess = stored_length(swapped, share_prompt) - row_length
    cut = max(-(-excess // (1 if share_prompt else 2)), 0)
    found.append(dataclasses.replace(swapped, prompt=own.prompt[cut:]))
  return found


def fill(values: Sequence[Sides], places: Sequence[Place],
         shape_BT: tuple[int, int]) -> np.ndarray:
  """values_BT, float32: numbers of response tokens in their places, else 0."""
  values_BT = np.zeros(shape_BT, np.float32)
  for sides, place in zip(values, places, strict=True):
    for value, at in zip(sides, (place.chosen, place.rejected), strict=True):
      values_BT[place.row, at] = value
  return values_BT


def take(values_BT: np.ndarray, places: Sequence[Place]) -> list[Sides]:
  """The inverse of `fill`."""
  values_BT = np.asarray(values_BT)
  return [(values_BT[place.row, place.chosen].copy(),
           values_BT[place.row, place.rejected].copy()) for place in places]


def _write_shared(pair, own, segment):
  """Three segments; of a prompt of one token nothing is left to be shared."""
  shared = len(pair.prompt) - 1
  own['tokens_BT'][:shared] = pair.prompt[:-1]
  own['position_BT'][:shared] = np.arange(shared)
  own['segment_BT'][:shared] = segment + 1
  own['prefix_BT'][shared:] = segment + 1 if shared else 0
  places, begin = [], shared
  for number, side in enumerate(('chosen', 'rejected'), start=2):
    response = getattr(pair, side)
    end = begin + 1 + len(response)
    own['tokens_BT'][begin:end] = [pair.prompt[-1], *response]
    own['position_BT'][begin:end] = shared + np.arange(end - begin)
    own['segment_BT'][begin:end] = segment + number
    _mark(pair, own, side, slice(begin, end), slice(begin + 1, end))
    places.append(slice(begin + 1, end))
    begin = end
  return places


def _write_whole(pair, own, segment):
  """Two segments, each a sequence by itself."""
  places, begin = [], 0
  for number, side in enumerate(('chosen', 'rejected'), start=2):
    response = getattr(pair, side)
    middle = begin + len(pair.prompt)
    end = middle + len(response)
    own['tokens_BT'][begin:end] = [*pair.prompt, *response]
    own['position_BT'][begin:end] = np.arange(end - begin)
    own['segment_BT'][begin:end] = segment + number
    _mark(pair, own, side, slice(begin, end), slice(middle, end))
    places.append(slice(middle, end))
    begin = end
  return places


def _mark(pair, own, side, segment, response):
  own['chosen_BT'][segment] = side == 'chosen'
  own['mask_BT'][response] = getattr(pair, f'{side}_mask')


def _check(pairs, row_length, pairs_per_row, share_prompt, one_sided):
  if not pairs or pairs_per_row < 1:
    raise ValueError(
        f'Expected a pair or more in a step and in a row, got {len(pairs)} and '
        f'pairs_per_row={pairs_per_row}. Correct config.packing.')
  for pair in pairs:
    lengths = {name: len(getattr(pair, name)) for name in (
        'prompt', 'chosen', 'rejected')}
    counted = [bool(mask.any()) for mask in (pair.chosen_mask,
                                             pair.rejected_mask)]
    alone = one_sided and any(counted) and not (
        lengths['chosen'] and lengths['rejected'])
    if not lengths['prompt'] or not (all(counted) or alone):
      raise ValueError(
          'Expected a token or more in prompt and responses, and one that '
          f'counts on either side, got {lengths} in pair {pair.id!r}. Leave '
          'such pairs out, or take a loss of single labels: kto.')
    if stored_length(pair, share_prompt) > row_length:
      raise ValueError(
          f'Expected pairs that fit a row of {row_length}, got '
          f'{stored_length(pair, share_prompt)} tokens ({lengths}, '
          f'share_prompt={share_prompt}) in pair {pair.id!r}. Raise '
          'packing.row_length, or cut it when it is tokenised.')
