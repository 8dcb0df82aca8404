"""Stage (a) of a step: weights and old log-probabilities on the whole batch."""
from __future__ import annotations

from typing import Callable

from flax import struct
import numpy as np

from rljax.types import Array
from rljax.types import PackedRows
from rljax.types import PolicyBatch
from rljax.types import SupervisedBatch


@struct.dataclass
class ModelInputs:
  """What a forward pass needs, whatever the objective."""
  tokens_BT: Array
  position_BT: Array
  segment_BT: Array
  share_BT: Array


def policy_batch(rows: PackedRows, weight_BT, share_BT, score: Callable,
                 params, reference=None) -> PolicyBatch:
  """Scores packed responses under the current policy and the reference.

  Args:
    rows: from `packing.pack`.
    weight_BT: from the objective's `token_weights`.
    share_BT: 1 / (real tokens of the step), 0 on padding.
    score: from `make_score_fn`; compiled once for policy and reference.
    params: the policy before this update.
    reference: frozen parameters; None leaves the KL term without a reference.
  """
  inputs = ModelInputs(rows.tokens_BT, rows.position_BT, rows.segment_BT,
                       share_BT)
  old_logp_BT, _, load_LE = score(params, inputs)
  ref_logp_BT = None if reference is None else score(reference, inputs)[0]
  return PolicyBatch(
      tokens_BT=rows.tokens_BT, position_BT=rows.position_BT,
      segment_BT=rows.segment_BT, weight_BT=weight_BT, share_BT=share_BT,
      advantage_BT=rows.advantage_BT, old_logp_BT=old_logp_BT,
      ref_logp_BT=ref_logp_BT,
      load_BLE=_alike_in_all_rows(load_LE, rows.tokens_BT.shape[0]))


def with_load(batch: SupervisedBatch, score: Callable,
              params) -> SupervisedBatch:
  """Adds the step's expert load; needed with more than one micro-batch."""
  inputs = ModelInputs(batch.tokens_BT, batch.position_BT, batch.segment_BT,
                       batch.share_BT)
  load_LE = score(params, inputs)[2]
  return batch.replace(
      load_BLE=_alike_in_all_rows(load_LE, batch.tokens_BT.shape[0]))


def _alike_in_all_rows(load_LE, rows: int) -> np.ndarray:
  load_LE = np.asarray(load_LE, np.float32)
  return np.broadcast_to(load_LE, (rows, *load_LE.shape))
