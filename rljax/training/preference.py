"""Between pairs and a preference loss: frozen models, reports, evaluation.

Reference and guide are parameters that no gradient reaches; their
log-probabilities are scored with each step, or once for the whole data set
(`score_cache`). Since both are computed outside of the differentiated function,
a policy can never be its own guide with a gradient. Two losses want more of the
reference: KTO how far the policy is from it on mismatched responses, before
each step, and TDPO its divergence token by token, within the update.
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
from rljax import sharding
from rljax.ops import pairs as pairs_lib
from rljax.packing.pairs import Sides
from rljax.training import batch as batches
from rljax.training import microbatch
from rljax.types import PreferenceBatch
from rljax.types import TokenPair

# Frozen model -> the field of the batch with its log-probabilities.
FROZEN = {'reference': 'ref_logp_BT', 'guide': 'guide_logp_BT'}
# Fields for which the reference itself is needed in every step.
MISMATCHED, DIVERGENCE = 'kl_B', 'ref_kl_BT'


def frozen_of(reads: Sequence[str]) -> tuple[str, ...]:
  """Which frozen models a loss asks for, by the fields that it reads."""
  return tuple(name for name, field in FROZEN.items() if field in reads)


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
  one_sided: bool = False

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
    params,
    *,
    kept: Mapping[str, Mapping[str, Sides]],
    frozen: Mapping[str, Any],
    score: Callable,
    mismatched=None,
) -> tuple[PreferenceBatch, tuple[packing.Place, ...]]:
  """A step's batch with the log-probabilities of the frozen models.

  Args:
    layout: of the rows.
    pairs: of the step.
    params: of the policy before the update; read for `mismatched` alone.
    kept: name -> pair's id -> log-probabilities that were scored before.
    frozen: name -> parameters to score with now.
    score: from `forward.make_score_fn`.
    mismatched: parameters of the reference, for a loss that reads MISMATCHED.
  """
  batch, places = layout.pack(pairs)
  shape_BT = batch.tokens_BT.shape
  filled = {FROZEN[name]: packing.fill([found[p.id] for p in pairs], places,
                                       shape_BT)
            for name, found in kept.items()}
  filled |= {FROZEN[name]: score(params, batches.inputs(batch))[0]
             for name, params in frozen.items()}
  if mismatched is not None:
    filled[MISMATCHED] = np.full(shape_BT[0], mismatched_kl(
        layout, pairs, score, params, mismatched), np.float32)
  return batch.replace(**filled), places


def mismatched_kl(layout: Layout, pairs: Sequence[TokenPair], score: Callable,
                  params, reference) -> float:
  """KTO's z of a step: the same for all of its rows.

  Raises:
    ValueError: a single pair.
  """
  batch, _ = layout.pack(packing.mismatched(pairs, layout.row_length,
                                            layout.share_prompt))
  logp_BT, ref_logp_BT = (
      jnp.asarray(processes.fetch(score(of, batches.inputs(batch))[0]))
      for of in (params, reference))
  return float(pairs_lib.mismatched_kl(
      logp_BT, batch.replace(ref_logp_BT=ref_logp_BT)))


def make_divergence_fn(forward: Callable, *, num_microbatches: int = 1,
                       batch_sharding=None) -> Callable:
  """Builds a compiled `divergence(params, batch, reference) -> ref_kl_BT`.

  For measuring; the update computes its own, with a gradient.
  """
  def divergence(params, batch, reference):
    run = lambda rows: forward(params, rows, reference).ref_kl_BT
    return microbatch.merge(jax.lax.map(
        microbatch.skip_empty(run), microbatch.split(batch, num_microbatches)))

  if batch_sharding is None:
    return jax.jit(divergence)
  return sharding.placing(
      jax.jit(divergence, in_shardings=(None, batch_sharding, None),
              out_shardings=batch_sharding), batch_sharding)


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
    make: (pairs, params) -> batch and places, from `make_batch`.
    score: from `forward.make_score_fn`.
    by_pair: from `make_by_pair`.
    params: of the policy.
  """
  found: dict[str, list] = {}
  for begin in range(0, len(pairs), per_step):
    # The last batch is filled up with pairs that were measured before: a loss
    # may compare the pairs of a step with each other.
    first = max(min(begin, len(pairs) - per_step), 0)
    batch, places = make(pairs[first:begin + per_step], params)
    logp_BT = score(params, batches.inputs(batch))[0]
    for name, x_BP in by_pair(logp_BT, batch).items():
      x_BP = processes.fetch(x_BP)
      found.setdefault(name, []).extend(
          x_BP[place.row, place.number] for place in places[begin - first:])
  return {name: np.asarray(values) for name, values in found.items()}
