"""Stage (a) of a step: weights and old log-probabilities on the whole batch."""
from __future__ import annotations

from typing import Callable

from flax import struct
import numpy as np

from rljax.ops import routes
from rljax.types import Array
from rljax.types import PackedRows
from rljax.types import PolicyBatch
from rljax.types import PreferenceBatch
from rljax.types import SupervisedBatch


@struct.dataclass
class ModelInputs:
  """What a forward pass needs, whatever the objective."""
  tokens_BT: Array
  position_BT: Array
  segment_BT: Array
  share_BT: Array
  experts_BTLX: Array | None = None  # to replay
  prefix_BT: Array | None = None     # as in PreferenceBatch
  asked_BT: Array | None = None      # bool; tokens to be scored; None: all


def policy_batch(rows: PackedRows, weight_BT, share_BT, score: Callable,
                 params, reference=None, *, replay: str = 'off',
                 entropy_coef: float | None = None) -> PolicyBatch:
  """Scores packed responses under the current policy and the reference.

  Args:
    rows: from `packing.pack`.
    weight_BT: from the objective's `token_weights`.
    share_BT: 1 / (real tokens of the step), 0 on padding.
    score: from `make_score_fn`; compiled once for policy and reference.
    params: the policy before this update.
    reference: frozen parameters; None leaves the KL term without a reference.
    replay: which routes the update takes. 'off': its own; 'recompute' (R2):
      those of this pass, for which `score` records experts; 'rollout' (R3):
      the sampler's, in this pass too.
    entropy_coef: of this step; None leaves it to the loss.

  Raises:
    ValueError: an unknown replay, or one of which nothing was recorded.
  """
  _check_replay(replay, rows)
  experts_BTLX = rows.experts_BTLX if replay == 'rollout' else None
  inputs = ModelInputs(rows.tokens_BT, rows.position_BT, rows.segment_BT,
                       share_BT, experts_BTLX, asked_BT=rows.response_BT)
  old_logp_BT, _, load_LE, *recomputed = score(params, inputs)
  ref_logp_BT = None
  if reference is not None:
    # Another model has routes of its own; the same shapes compile nothing.
    ref_logp_BT = score(reference, inputs.replace(
        experts_BTLX=_unrecorded(experts_BTLX)))[0]
  if replay == 'recompute':
    if not recomputed:
      raise ValueError('Expected routes from `score`, got none. Build it with '
                       'record_experts=True.')
    (experts_BTLX,) = recomputed
  return PolicyBatch(
      tokens_BT=rows.tokens_BT, position_BT=rows.position_BT,
      segment_BT=rows.segment_BT, weight_BT=weight_BT, share_BT=share_BT,
      advantage_BT=rows.advantage_BT, old_logp_BT=old_logp_BT,
      ref_logp_BT=ref_logp_BT,
      load_BLE=alike_in_all_rows(load_LE, rows.tokens_BT.shape[0]),
      experts_BTLX=experts_BTLX,
      entropy_coef_B=None if entropy_coef is None else np.full(
          rows.tokens_BT.shape[0], entropy_coef, np.float32))


def corrected(batch: PolicyBatch, rows: PackedRows, correct: Callable):
  """With advantages corrected for the sampler's mismatch, and metrics.

  Args:
    batch: from `policy_batch`.
    rows: those that it was made of.
    correct: from `ops.corrections`.
  """
  factor_BT, report = correct(batch.old_logp_BT, rows.sampled_logp_BT,
                              rows.segment_BT, rows.mask_BT)
  return batch.replace(advantage_BT=factor_BT * batch.advantage_BT), report


def _check_replay(replay: str, rows: PackedRows):
  known = ('off', 'recompute', 'rollout')
  if replay not in known:
    raise ValueError(f'Expected a routing replay of {known}, got {replay!r}.')
  if replay == 'rollout' and rows.experts_BTLX is None:
    raise ValueError('Expected rows with the routes of the rollout, got none. '
                     'Build the sampler with record_experts=True.')


def _unrecorded(experts_BTLX) -> np.ndarray | None:
  return None if experts_BTLX is None else np.full_like(
      experts_BTLX, routes.unrecorded(experts_BTLX.dtype))


def inputs(batch: SupervisedBatch | PreferenceBatch) -> ModelInputs:
  """What the model reads of a batch."""
  return ModelInputs(
      batch.tokens_BT, batch.position_BT, batch.segment_BT, batch.share_BT,
      prefix_BT=batch.prefix_BT if isinstance(batch, PreferenceBatch) else None,
      asked_BT=asked(batch))


def asked(batch) -> Array | None:
  """The tokens that an objective looks at, or that are asked for; None: all."""
  if isinstance(batch, PreferenceBatch):
    return batch.mask_BT
  if isinstance(batch, (PolicyBatch, SupervisedBatch)):
    return batch.weight_BT != 0
  return batch.asked_BT


def with_load(batch: SupervisedBatch | PreferenceBatch, score: Callable,
              params) -> SupervisedBatch | PreferenceBatch:
  """Adds the step's expert load; needed with more than one micro-batch."""
  load_LE = score(params, inputs(batch))[2]
  return batch.replace(
      load_BLE=alike_in_all_rows(load_LE, batch.tokens_BT.shape[0]))


def alike_in_all_rows(load_LE, rows: int) -> np.ndarray:
  """load_BLE of the step's load: every micro-batch finds it in its rows."""
  load_LE = np.asarray(load_LE, np.float32)
  return np.broadcast_to(load_LE, (rows, *load_LE.shape))
