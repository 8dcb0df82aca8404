"""One optimiser step of a policy, laid out in rows in any way.

What belongs to a token (its old log-probability, its advantage) is kept by
sequence, so that every layout holds the same step.
"""
import dataclasses
import functools

import numpy as np
import optax

from rljax import losses
from rljax.training import batch as batches
from rljax.training import forward
from rljax.training import state
from rljax.training import update
from rljax.types import PolicyBatch
from tests import toys

LENGTHS = (13, 9, 17, 5, 11, 20, 8, 14)  # prompt and response
PROMPTS = (4, 3, 6, 2, 5, 4, 3, 6)
BUDGET = 80  # more than the 64 response tokens: never divide by their number
ROW_LENGTH = 40
ALONE = [[i] for i in range(8)]
PERMUTED = [[i] for i in (5, 2, 7, 0, 3, 6, 1, 4)]
PACKED = [[5, 2], [0, 1, 6], [7, 4], [3]]
WITH_EMPTY_ROWS = PACKED + [[], [], [], []]


@dataclasses.dataclass(frozen=True)
class Step:
  """A model, its parameters, and the same step in row 0, 1, ... of ALONE."""
  model: object
  params: object
  batch: PolicyBatch


@functools.cache
def example(**overrides) -> Step:
  """Eight responses, off-policy enough that some ratios are clipped."""
  overrides = {'variant': 'tiny'} | overrides
  model, params = toys.model_and_params(
      overrides.pop('variant'), **overrides)
  tokens_BT, position_BT, segment_BT = toys.rows(
      [[n] for n in LENGTHS], ROW_LENGTH)
  real_BT = segment_BT > 0
  share_BT = real_BT.astype(np.float32) / np.float32(real_BT.sum())
  score = forward.make_score_fn(forward.make_forward(model))
  logp_BT, _, load_LE = score(params, batches.ModelInputs(
      tokens_BT, position_BT, segment_BT, share_BT))
  rng = np.random.default_rng(1)
  noise = lambda size: size * rng.normal(size=real_BT.shape)
  inside_BT = real_BT & (position_BT >= np.array(PROMPTS)[:, None])
  at = lambda values_BT: np.where(inside_BT, values_BT, 0).astype(np.float32)
  advantage_B1 = rng.normal(size=(8, 1))
  return Step(model, params, PolicyBatch(
      tokens_BT=tokens_BT, position_BT=position_BT, segment_BT=segment_BT,
      weight_BT=at(1 / BUDGET), share_BT=share_BT,
      advantage_BT=at(advantage_B1), old_logp_BT=at(logp_BT + noise(0.2)),
      ref_logp_BT=at(logp_BT + noise(0.5)),
      load_BLE=np.broadcast_to(load_LE, (8, *load_LE.shape))))


def lay_out(batch: PolicyBatch, rows) -> PolicyBatch:
  """The same sequences in other rows; `rows` lists indices of sequences."""
  def move(values):
    if values is None:
      return None
    if values is batch.load_BLE:
      return np.repeat(values[:1], len(rows), axis=0)
    if np.ndim(values) == 1:  # of the step, in every row
      return np.full(len(rows), values[0])
    out_BT = np.zeros((len(rows), ROW_LENGTH), values.dtype)
    for b, row in enumerate(rows):
      begin = 0
      for i in row:
        out_BT[b, begin:begin + LENGTHS[i]] = values[i, :LENGTHS[i]]
        begin += LENGTHS[i]
    return out_BT
  return PolicyBatch(**{
      field.name: move(getattr(batch, field.name))
      for field in dataclasses.fields(batch)})


@functools.cache
def loss_fn(model):
  """C3PO with its KL term, the entropy bonus and both router terms."""
  objective = losses.get('policy', 'c3po', clip_eps=0.2, kl_coef=0.1)
  return forward.compose(forward.make_forward(model), objective.loss,
                         entropy_coef=0.05, balance_coef=0.2, z_coef=0.05)


SGD = optax.sgd(1.0)


@functools.cache
def sgd_update(loss, num_microbatches=1):
  """The update of plain SGD; one compilation for many tests."""
  return update.make_update_fn(loss, SGD, num_microbatches=num_microbatches)


def sgd_step(step: Step, batch, *, loss=None, num_microbatches=1):
  """New parameters and metrics after one step of plain SGD."""
  run = sgd_update(loss or loss_fn(step.model), num_microbatches)
  return take(run, step, batch)


def take(run, step: Step, batch):
  """One call of an SGD update; the state is donated, hence made here."""
  params = state.frozen_copy(step.params)
  begin = state.TrainState(np.int32(0), params, SGD.init(params))
  end, metrics = run(begin, batch, state.named_keys(0, 'update')['update'])
  return end.params, metrics
