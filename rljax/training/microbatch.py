"""Strided micro-batches, and skipping those that hold no token.

Micro-batch i of n holds rows i, i + n, i + 2n, ...: every device of a
data-sharded batch keeps a share of each, so that nothing has to be gathered.
Shapes stay the same whatever the step holds; only work is skipped.
"""
from __future__ import annotations

import functools
from typing import Callable

import jax
import jax.numpy as jnp

from rljax import sharding


def split(batch, num_microbatches: int):
  """[B, ...] -> [n, B/n, ...] for every array of the batch.

  Raises:
    ValueError: the number of micro-batches does not divide the rows.
  """
  rows = jax.tree.leaves(batch)[0].shape[0]
  if num_microbatches < 1 or rows % num_microbatches:
    raise ValueError(
        f'{rows} rows do not split into {num_microbatches} micro-batches. '
        'Choose num_microbatches that divides the rows of the batch.')
  # Not -1: without experts the load has no last axis to divide by.
  shape = (rows // num_microbatches, num_microbatches)
  return jax.tree.map(
      lambda x: x.reshape(*shape, *x.shape[1:]).swapaxes(0, 1), batch)


def merge(parts: jax.Array) -> jax.Array:
  """Inverse of `split` for one array."""
  rows = parts.shape[0] * parts.shape[1]
  return parts.swapaxes(0, 1).reshape(rows, *parts.shape[2:])


def skip_empty(fn: Callable) -> Callable:
  """Wraps `fn(rows)` so that rows without a real token give zeros at once."""
  def guarded(rows):
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype),
                         jax.eval_shape(fn, rows))
    return jax.lax.cond(jnp.any(rows.segment_BT > 0), fn, lambda _: zeros,
                        rows)
  return guarded


def make_score_fn(forward: Callable, *, num_microbatches: int = 1,
                  batch_sharding=None, gathered: bool = False) -> Callable:
  """Compiles `forward(params, rows) -> (of each row, load_LE)` for a batch.

  What is built has its arguments, its results, with the load summed up, and its
  name, by which compilations are counted.

  Args:
    forward: of any rows.
    num_microbatches: how many the rows are taken in.
    batch_sharding: of the rows; None on one device.
    gathered: whether each device gets what is said of all rows.
  """
  def score(params, batch):
    of_rows, load = jax.lax.map(
        skip_empty(functools.partial(forward, params)),
        split(batch, num_microbatches))
    return jax.tree.map(merge, of_rows), jnp.sum(load, axis=0)

  score.__name__ = forward.__name__
  if batch_sharding is None:
    return jax.jit(score)
  everywhere = sharding.replicated(batch_sharding.mesh)
  return sharding.placing(
      jax.jit(score, in_shardings=(None, batch_sharding),
              out_shardings=(everywhere if gathered else batch_sharding,
                             everywhere)), batch_sharding)
