"""Seconds to trace and compile a training step of 48 layers, over those of 4.

Layers are scanned, so the program is as long for one depth as for the other.
"""
from __future__ import annotations

import statistics
import time

import jax
import jax.numpy as jnp

from rljax import losses
from rljax import models
from rljax import sharding
from rljax.models import transformer
from rljax.training import forward as forwards
from rljax.training import optimizer as optimizers
from rljax.training import update as updates
from rljax.types import SupervisedBatch
from rljax.types import TrainState


def run(interleaved, smoke: bool, team) -> list[dict]:
  del interleaved, team  # what is timed is what a second call would not do
  deep, shallow = (4, 2) if smoke else (48, 4)
  seconds(shallow)  # what is slow once in a process
  times = {deep: [], shallow: []}
  for turn in range(1 if smoke else 5):
    for layers in sorted(times, reverse=turn % 2 == 0):
      times[layers].append(seconds(layers))
  found = {layers: statistics.median(some) for layers, some in times.items()}
  return [dict(
      row='compile_depth', higher_is_better=False, peers={}, limit=None,
      metric=f'seconds to compile {deep} layers over those of {shallow}',
      rljax=found[deep] / found[shallow], seconds=found)]


def seconds(num_layers: int) -> float:
  """To trace, lower and compile an update of shapes alone."""
  jax.clear_caches()
  model = models.create('tiny', num_layers=num_layers)
  optimizer = optimizers.make_optimizer('adamw', 1e-3)
  objective = losses.get('supervised', 'cross_entropy')
  update = updates.make_update_fn(
      forwards.compose(forwards.make_forward(model), objective.loss,
                       balance_coef=0.01), optimizer)
  params = sharding.unbox(transformer.abstract_params(model))
  state = TrainState(jax.ShapeDtypeStruct((), jnp.int32), params,
                     jax.eval_shape(optimizer.init, params))
  ints, floats = (jax.ShapeDtypeStruct((4, 64), dtype)
                  for dtype in (jnp.int32, jnp.float32))
  batch = SupervisedBatch(
      tokens_BT=ints, position_BT=ints, segment_BT=ints, weight_BT=floats,
      share_BT=floats, load_BLE=None)
  begin = time.perf_counter()
  update.lower(state, batch, jax.random.key(0)).compile()
  return time.perf_counter() - begin
