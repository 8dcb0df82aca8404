"""Reward models: from rows to scores, to a loss, and the scores of texts.

Two models make scores of the same shape, score_BPCJ: a head on the last token
of each candidate (J heads), or a language model's log-probabilities of the
labels behind a text that shows all candidates (J = 1). Everything else is the
same for both.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rljax import packing
from rljax.losses import auxiliary
from rljax.models import lora
from rljax.ops import vocabulary
from rljax.packing import lists as packed_lists
from rljax.training import microbatch
from rljax.types import ComparedTexts
from rljax.types import RewardBatch


def make_head_forward(model: nn.Module) -> Callable:
  """Builds `forward(params, batch) -> (score_BPCJ, router)`; a RewardModel."""
  def forward(params, batch: RewardBatch):
    score_BTJ, router = model.apply(
        lora.variables(params), batch.tokens_BT, batch.position_BT,
        batch.segment_BT, batch.share_BT, prefix_BT=batch.prefix_BT)
    flat = (*batch.read_BPC.shape[:1], -1, 1)
    score_BQJ = jnp.take_along_axis(
        score_BTJ, batch.read_BPC.reshape(flat), axis=1)
    return score_BQJ.reshape(*batch.read_BPC.shape, -1), router
  return forward


def make_label_forward(model: nn.Module, label_ids: Sequence[int]) -> Callable:
  """As `make_head_forward`, of a language model that names a label.

  Args:
    model: a `Transformer`.
    label_ids: the token of each candidate's label.

  Scores are log π over the whole vocabulary, at the last token of the text.
  """
  ids_C = np.asarray(label_ids, np.int32)
  def forward(params, batch: RewardBatch):
    out = model.apply(lora.variables(params), batch.tokens_BT,
                      batch.position_BT, batch.segment_BT, batch.share_BT,
                      prefix_BT=batch.prefix_BT)
    # Logits where a label is predicted, and nowhere else.
    hidden_BPD = jnp.take_along_axis(
        out.head.hidden_BTD, batch.read_BPC[..., :1], axis=1)
    logits_BPV = vocabulary.Projection(
        hidden_BPD, out.head.kernel_DV).logits_BTV
    logp_BPV = jax.nn.log_softmax(logits_BPV, axis=-1)
    return logp_BPV[..., ids_C][..., None], out.router
  return forward


def make_score_fn(forward: Callable, *, num_microbatches: int = 1,
                  batch_sharding=None) -> Callable:
  """Builds a compiled `score_lists(params, batch) -> (score_BPCJ, load_LE)`."""
  def score_lists(params, batch: RewardBatch):
    score_BPCJ, router = forward(params, batch)
    return score_BPCJ, router.load_LE

  return microbatch.make_score_fn(
      score_lists, num_microbatches=num_microbatches,
      batch_sharding=batch_sharding, gathered=True)


def compose(forward: Callable, reward_loss: Callable, *,
            balance_coef: float = 0.0, z_coef: float = 0.0) -> Callable:
  """Builds `loss_fn(params, batch, key) -> (loss, metrics)`, a sum over rows.

  Args:
    forward: from `make_head_forward` or `make_label_forward`.
    reward_loss: `(score_BPC, batch) -> (loss, metrics)`; of several heads each
      has its own, and their mean is taken.
    balance_coef: router balance, on every real token.
    z_coef: router z-loss, on every real token.
  """
  def loss_fn(params, batch: RewardBatch, key):
    del key  # no dropout: two scores of one text are equal
    score_BPCJ, router = forward(params, batch)
    each_J = jax.vmap(reward_loss, in_axes=(-1, None))(score_BPCJ, batch)
    loss, metrics = jax.tree.map(jnp.mean, each_J)
    load_LE = None if batch.load_BLE is None else batch.load_BLE[0]
    balance, _ = auxiliary.router_balance(
        router, load_LE, balance_coef=balance_coef)
    z, _ = auxiliary.router_z(router, z_coef=z_coef)
    return loss + balance + z, metrics | {'expert_load': router.load_LE}
  return loss_fn


def score_all(score: Callable, params, lists: Sequence[ComparedTexts], *,
              num_rows: int, row_length: int, lists_per_row: int,
              num_candidates: int, num_microbatches: int = 1) -> np.ndarray:
  """score_NCJ of any number of lists, in batches of one shape; NaN where none.

  Args:
    score: from `make_score_fn`.
    params: of its model.
    lists: N of them; ranks are not looked at.
    num_rows: of a batch, and so on, as for `packing.pack_lists`.
    row_length: see there.
    lists_per_row: see there.
    num_candidates: see there.
    num_microbatches: those of `score`.
  """
  shape = dict(num_rows=num_rows, row_length=row_length,
               lists_per_row=lists_per_row, num_candidates=num_candidates,
               num_microbatches=num_microbatches)
  found = []
  for part in _batches(lists, num_rows, row_length, lists_per_row):
    batch, place_N2 = packing.pack_lists(part, **shape)
    score_BPCJ = np.asarray(score(params, batch)[0])
    score_NCJ = score_BPCJ[place_N2[:, 0], place_N2[:, 1]]
    here_NC = batch.rank_BPC[place_N2[:, 0], place_N2[:, 1]] >= 0
    found.append(np.where(here_NC[..., None], score_NCJ, np.nan))
  return np.concatenate(found) if found else np.zeros(
      (0, num_candidates, 1), np.float32)


def _batches(lists, num_rows, row_length, lists_per_row):
  """Consecutive lists, as many as surely fit."""
  least = -(-row_length // lists_per_row)  # a row with all its lists is full
  part, total = [], 0
  for one in lists:
    length = max(packed_lists.stored_length(one), least)
    # Of best fit, any two other rows together hold more than one row does.
    if part and len(part) >= num_rows and (
        2 * (total + length) >= num_rows * row_length):
      yield part
      part, total = [], 0
    part.append(one)
    total += length
  if part:
    yield part


def reduce_heads(score_NCJ: np.ndarray, how: str = 'mean',
                 coef: float = 1.0) -> np.ndarray:
  """score_NC of an ensemble.

  Args:
    score_NCJ: of each head.
    how: 'mean'; 'min', the most pessimistic head; 'lower', the mean less `coef`
      standard deviations of the heads.
    coef: for 'lower'.

  Raises:
    ValueError: another word.

  Reference: arXiv 2310.02743, §3.2: mean, worst case, uncertainty-weighted.
  """
  if how not in ('mean', 'min', 'lower'):
    raise ValueError(f"Expected heads to be reduced by 'mean', 'min' or "
                     f"'lower', got {how!r}. Correct it.")
  if how == 'min':
    return score_NCJ.min(axis=-1)
  mean_NC = score_NCJ.mean(axis=-1)
  return mean_NC - coef * score_NCJ.std(axis=-1) if how == 'lower' else mean_NC
