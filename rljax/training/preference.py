"""Between pairs and a preference loss: frozen models, reports, evaluation.

A loss says by itself what it reads, so no table of losses is kept: it is asked,
by shapes alone. Reference and guide are parameters that no gradient reaches;
their log-probabilities are scored with each step, or once for the whole data
set (`score_cache`). Since both are computed outside of the differentiated
function, a policy can never be its own guide with a gradient.
"""
from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax import packing
from rljax import processes
from rljax.ops import pairs as pairs_lib
from rljax.packing.pairs import Sides
from rljax.training import batch as batches
from rljax.types import PreferenceBatch
from rljax.types import TokenPair

# Field of the batch -> which frozen model fills it.
FROZEN = {'reference': 'ref_logp_BT', 'guide': 'guide_logp_BT'}


def needs(loss: Callable) -> tuple[str, ...]:
  """Which of FROZEN a loss reads: those without which it refuses a batch.

  Raises:
    ValueError: the loss refuses a batch that has everything.
  """
  shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
  ints = jax.ShapeDtypeStruct((1, 2), jnp.int32)
  flags = jax.ShapeDtypeStruct((1, 2), jnp.bool_)
  whole = PreferenceBatch(
      tokens_BT=ints, position_BT=ints, segment_BT=ints, pair_BT=ints,
      chosen_BT=flags, mask_BT=flags, weight_BP=shape(1, 1),
      share_BT=shape(1, 2), ref_logp_BT=shape(1, 2),
      guide_logp_BT=shape(1, 2), load_BLE=None)
  jax.eval_shape(loss, shape(1, 2), whole)

  def is_needed(field):
    try:
      jax.eval_shape(loss, shape(1, 2), whole.replace(**{field: None}))
    except ValueError:
      return True
    return False

  return tuple(name for name, field in FROZEN.items() if is_needed(field))


def reported(loss: Callable) -> Callable:
  """The loss, with log-probabilities and lengths of both sides as metrics.

  Both rewards may fall while their margin grows; then so do these.
  """
  def reporting(logp_BT, batch):
    value, metrics = loss(logp_BT, batch)
    own = jax.lax.stop_gradient(logp_BT)
    found = {'logp': pairs_lib.sums(own, batch),
             'token_logp': pairs_lib.means(own, batch),
             'length': pairs_lib.lengths(batch)}
    for name, sides in found.items():
      metrics |= {
          f'{name}_chosen': pairs_lib.total(batch, sides.chosen_BP),
          f'{name}_rejected': pairs_lib.total(batch, sides.rejected_BP)}
    return value, metrics
  return reporting


def make_by_pair(loss: Callable) -> Callable:
  """Builds a compiled `by_pair(logp_BT, batch) -> {metric: x_BP}`.

  Loss and metrics are weighted sums over pairs, so the slope in a pair's weight
  is that pair's own number.
  """
  def by_pair(logp_BT, batch):
    def total(weight_BP, name):
      value, metrics = loss(logp_BT, batch.replace(weight_BP=weight_BP))
      return (metrics | {'loss': value})[name]

    names = [*jax.eval_shape(loss, logp_BT, batch)[1], 'loss']
    return {name: jax.grad(total)(batch.weight_BP, name) for name in names}
  return jax.jit(by_pair)


@dataclasses.dataclass(frozen=True)
class Layout:
  """The shape of a step, for all that is scored."""
  num_rows: int
  row_length: int
  pairs_per_row: int
  num_microbatches: int
  share_prompt: bool

  def pack(self, pairs: Sequence[TokenPair]):
    """The batch, without frozen log-probabilities, and the places in it."""
    return packing.pack_pairs(pairs, **dataclasses.asdict(self))


def score_pairs(score: Callable, params, layout: Layout,
                pairs: Sequence[TokenPair]) -> list[Sides]:
  """Log-probabilities of the response tokens of as many pairs as a step has."""
  batch, places = layout.pack(pairs)
  logp_BT = processes.fetch(score(params, batches.inputs(batch))[0])
  return packing.take(logp_BT, places)


def make_batch(
    layout: Layout,
    pairs: Sequence[TokenPair],
    *,
    kept: Mapping[str, Mapping[str, Sides]],
    frozen: Mapping[str, Any],
    score: Callable,
) -> tuple[PreferenceBatch, tuple[packing.Place, ...]]:
  """A step's batch with the log-probabilities of the frozen models.

  Args:
    layout: of the rows.
    pairs: of the step.
    kept: name -> pair's id -> log-probabilities that were scored before.
    frozen: name -> parameters to score with now.
    score: from `forward.make_score_fn`.
  """
  batch, places = layout.pack(pairs)
  shape_BT = batch.tokens_BT.shape
  filled = {FROZEN[name]: packing.fill([found[p.id] for p in pairs], places,
                                       shape_BT)
            for name, found in kept.items()}
  filled |= {FROZEN[name]: score(params, batches.inputs(batch))[0]
             for name, params in frozen.items()}
  return batch.replace(**filled), places


def evaluate(
    pairs: Sequence[TokenPair],
    per_step: int,
    make: Callable,
    score: Callable,
    by_pair: Callable,
    params,
) -> dict[str, np.ndarray]:
  """What the loss says of each pair by itself, in the order of the pairs.

  Args:
    pairs: held out.
    per_step: how many go into one batch.
    make: pairs -> batch and places, from `make_batch`.
    score: from `forward.make_score_fn`.
    by_pair: from `make_by_pair`.
    params: of the policy.
  """
  found: dict[str, list] = {}
  for begin in range(0, len(pairs), per_step):
    batch, places = make(pairs[begin:begin + per_step])
    logp_BT = score(params, batches.inputs(batch))[0]
    for name, x_BP in by_pair(logp_BT, batch).items():
      x_BP = processes.fetch(x_BP)
      found.setdefault(name, []).extend(
          x_BP[place.row, place.number] for place in places)
  return {name: np.asarray(values) for name, values in found.items()}
