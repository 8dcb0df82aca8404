"""Fills rows of one fixed shape with sequences of any length.

A sequence is a prompt and as much of its response as the selection needs, or a
demonstration. None straddles two rows, so whatever concerns one sequence stays
inside one row, hence inside one micro-batch and one device. Lengths vary in
segments and masks only: a run compiles its update once.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rljax.ops import routes
from rljax.packing import layout
from rljax.packing import selection as selection_lib
from rljax.types import PackedRows
from rljax.types import Rollout
from rljax.types import SupervisedBatch


def pack(
    rollout: Rollout,
    advantage_R: np.ndarray,
    selection: selection_lib.Selection,
    *,
    num_rows: int,
    row_length: int,
    num_microbatches: int = 1,
    max_response_length: int,
) -> PackedRows:
  """Lays the selected responses, each behind its prompt, out in rows.

  Tokens after the last selected one of a response are not stored. Tokens before
  the first (a ring window's context) are, with the mask off.
  """
  num_samples = rollout.length_PG.shape[1]
  advantage_R = np.asarray(advantage_R, np.float32)
  _check_rollout(rollout, advantage_R, selection, max_response_length)
  _check_prompts(rollout, selection.stored_R, row_length)
  stored_R = selection.stored_R
  chosen = np.flatnonzero(stored_R)
  prompt_length_R = np.repeat(
      [len(p) for p in rollout.prompts], num_samples).astype(np.int64)
  rows, offsets = layout.layout(
      (prompt_length_R + stored_R)[chosen], num_rows, row_length,
      num_microbatches)

  shape_BT = (num_rows, row_length)
  tokens_BT, position_BT, segment_BT = (
      np.zeros(shape_BT, np.int32) for _ in range(3))
  mask_BT, response_BT = (np.zeros(shape_BT, bool) for _ in range(2))
  advantage_BT, sampled_logp_BT = (
      np.zeros(shape_BT, np.float32) for _ in range(2))
  experts_BTLX = _no_routes(rollout, shape_BT)
  for r, row, begin in zip(chosen, rows, offsets, strict=True):
    p, g = divmod(int(r), num_samples)
    stored, start, stop = (
        x[r] for x in (stored_R, selection.start_R, selection.stop_R))
    middle = begin + prompt_length_R[r]
    end = middle + stored
    tokens_BT[row, begin:middle] = rollout.prompts[p]
    tokens_BT[row, middle:end] = rollout.tokens_PGT[p, g, :stored]
    position_BT[row, begin:end] = np.arange(end - begin)
    segment_BT[row, begin:end] = 1 + r
    t = np.arange(stored)
    mask_BT[row, middle:end] = selection_lib.keeps(t, start, stop)
    response_BT[row, middle:end] = True
    advantage_BT[row, middle:end] = advantage_R[r]
    sampled_logp_BT[row, middle:end] = rollout.logp_PGT[p, g, :stored]
    if experts_BTLX is not None:
      experts_BTLX[row, begin:end] = rollout.experts_PGSLX[p, g, :end - begin]
  return PackedRows(
      tokens_BT=tokens_BT, position_BT=position_BT, segment_BT=segment_BT,
      mask_BT=mask_BT, advantage_BT=advantage_BT,
      sampled_logp_BT=sampled_logp_BT, response_BT=response_BT,
      num_responses=np.asarray(chosen.size, np.int32),
      token_budget=selection.token_budget,
      max_response_length=max_response_length, experts_BTLX=experts_BTLX)


def _no_routes(rollout: Rollout, shape_BT) -> np.ndarray | None:
  """Routes of rows in which nothing is recorded; None without a record."""
  recorded = rollout.experts_PGSLX
  return None if recorded is None else np.full(
      (*shape_BT, *recorded.shape[3:]), routes.unrecorded(recorded.dtype),
      recorded.dtype)


def unpack(
    values_BT: np.ndarray, rows: PackedRows, rollout: Rollout
) -> np.ndarray:
  """values_RT of the response tokens stored in the rows; 0 elsewhere."""
  values_BT, t_BT = np.asarray(values_BT), response_index(rows, rollout)
  stored_BT = t_BT >= 0
  values_RT = np.zeros(
      (rollout.length_PG.size, rollout.tokens_PGT.shape[2]), values_BT.dtype)
  r_BT = np.asarray(rows.segment_BT) - 1
  values_RT[r_BT[stored_BT], t_BT[stored_BT]] = values_BT[stored_BT]
  return values_RT


def response_index(rows: PackedRows, rollout: Rollout) -> np.ndarray:
  """t_BT, int32: a token's place in its response; -1 in prompts and padding."""
  segment_BT = np.asarray(rows.segment_BT)
  prompt_length_R = np.repeat(
      np.array([len(p) for p in rollout.prompts], np.int32),
      rollout.tokens_PGT.shape[1])
  t_BT = np.asarray(rows.position_BT) - prompt_length_R[
      np.maximum(segment_BT - 1, 0)]
  return np.where((segment_BT > 0) & (t_BT >= 0), t_BT, np.int32(-1))


def pack_examples(
    tokens_list: Sequence[np.ndarray],
    target_mask_list: Sequence[np.ndarray],
    *,
    num_rows: int,
    row_length: int,
    num_microbatches: int = 1,
) -> SupervisedBatch:
  """Rows of demonstrations; the weights are those of the whole step."""
  _check_examples(tokens_list, target_mask_list, row_length)
  rows, offsets = layout.layout(
      np.array([len(tokens) for tokens in tokens_list]), num_rows, row_length,
      num_microbatches)
  shape_BT = (num_rows, row_length)
  tokens_BT, position_BT, segment_BT = (
      np.zeros(shape_BT, np.int32) for _ in range(3))
  mask_BT = np.zeros(shape_BT, bool)
  for index, (row, begin) in enumerate(zip(rows, offsets, strict=True)):
    end = begin + len(tokens_list[index])
    tokens_BT[row, begin:end] = tokens_list[index]
    position_BT[row, begin:end] = np.arange(end - begin)
    segment_BT[row, begin:end] = 1 + index
    mask_BT[row, begin:end] = target_mask_list[index]
  weight_BT = mask_BT.astype(np.float32) / np.float32(mask_BT.sum())
  return SupervisedBatch(
      tokens_BT=tokens_BT, position_BT=position_BT, segment_BT=segment_BT,
      weight_BT=weight_BT, share_BT=layout.policy_shares(segment_BT),
      load_BLE=None)


def _check_rollout(rollout, advantage_R, selection, max_response_length):
  sizes = {'rollout': rollout.length_PG.size,
           'advantage_R': advantage_R.size,
           'selection': selection.length_R.size}
  if len(set(sizes.values())) > 1:
    raise ValueError(
        f'Expected the same number of responses everywhere, got {sizes}. Pass '
        'the advantages and the selection of this rollout.')
  if selection.stored_R.max() > max_response_length:
    raise ValueError(
        f'Expected responses of at most max_response_length='
        f'{max_response_length} tokens, got {selection.stored_R.max()}. Pass '
        'the limit that the sampler used.')
  if np.any(selection.stored_R > rollout.length_PG.reshape(-1)):
    r = int(np.argmax(selection.stored_R - rollout.length_PG.reshape(-1)))
    raise ValueError(
        'Expected a selection from lengths of this rollout, got '
        f'{selection.stored_R[r]} tokens of response {r}, which has '
        f'{rollout.length_PG.reshape(-1)[r]}. Select with its length_PG.')


def _check_prompts(rollout, stored_R, row_length):
  longest_P = stored_R.reshape(rollout.length_PG.shape).max(axis=1)
  for index, prompt in enumerate(rollout.prompts):
    if not len(prompt):
      raise ValueError(
          f'Expected prompts of at least one token, got an empty prompt {index}'
          ': its first response token has nothing to be predicted from. Begin '
          'prompts with a start token.')
    if longest_P[index] and len(prompt) + longest_P[index] > row_length:
      raise ValueError(
          f'Expected prompt and response within row_length={row_length}, got '
          f'{len(prompt)} + {longest_P[index]} tokens for prompt {index}. '
          'Raise row_length, or limit prompts and responses further.')


def _check_examples(tokens_list, target_mask_list, row_length):
  if len(tokens_list) != len(target_mask_list) or not tokens_list:
    raise ValueError(
        'Expected as many target masks as examples, and at least one, got '
        f'{len(tokens_list)} examples and {len(target_mask_list)} masks.'
        ' Pass one mask for each example.')
  pairs = zip(tokens_list, target_mask_list, strict=True)
  for index, (tokens, mask) in enumerate(pairs):
    if not 1 <= len(tokens) <= row_length:
      raise ValueError(
          f'Expected examples of 1 to row_length={row_length} tokens, got '
          f'{len(tokens)} in example {index}. Raise row_length, or filter '
          'empty and overlong examples out of the data.')
    if len(tokens) != len(mask):
      raise ValueError(
          f'Expected one mask entry per token, got {len(mask)} for '
          f'{len(tokens)} tokens in example {index}. Build both together.')
    if mask[0]:
      raise ValueError(
          f'Expected the first token not to be a target, got one in example '
          f'{index}: there is nothing to predict it from. Mask it off.')
  if not any(np.any(mask) for mask in target_mask_list):
    raise ValueError(
        f'Expected a target token in some example, got none in '
        f'{len(target_mask_list)} examples. Check the roles that are targets.')
