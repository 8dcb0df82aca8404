"""The update: accumulate gradients over micro-batches, take one step."""
from __future__ import annotations

import dataclasses
from typing import Any
from typing import Callable

import jax
import jax.numpy as jnp
import optax

from rljax import sharding
from rljax.models import lora
from rljax.training import microbatch
from rljax.training import router_bias
from rljax.types import TrainState


def make_update_fn(
    loss_fn: Callable,
    optimizer: optax.GradientTransformation,
    *,
    num_microbatches: int = 1,
    router_bias_rate: float = 0.0,
    takes_reference: bool = False,
    state_sharding=None,
    batch_sharding=None,
    name: str = 'update',
) -> Callable:
  """Builds a compiled `update(state, batch, key) -> (state, metrics)`.

  Args:
    loss_fn: `(params, batch, key) -> (loss, metrics)`, a sum over rows, so that
      adding micro-batches gives exactly the gradient of the whole batch.
    optimizer: gradient transformation, with clipping and schedule.
    num_microbatches: must divide the rows of the batch.
    router_bias_rate: how far a router's bias moves in a step, if it has one.
    takes_reference: `update(state, batch, key, reference)` hands parameters to
      `loss_fn` as a fourth argument; they are neither trained nor donated.
    state_sharding: sharding of the state in and out; None on one device.
    batch_sharding: sharding of the batch's leading axis.
    name: of the compiled function, where there is another in the run.

  Returns:
    The function. Of `state`, what is trained is donated: do not touch it again.
    The base of `lora.Adapted` parameters is neither donated nor copied.
  """
  def update(state: TrainState, rest, batch, key: jax.Array, *reference):
    key = jax.random.fold_in(key, state.step)  # so a resumed run repeats itself
    micro = microbatch.split(batch, num_microbatches)
    grad_fn = jax.value_and_grad(
        lambda trained, *others: loss_fn(lora.joined(trained, rest), *others),
        has_aux=True)

    def accumulate(total, inputs):
      index, rows = inputs
      run = lambda r: grad_fn(state.params, r, jax.random.fold_in(key, index),
                              *reference)
      out = microbatch.skip_empty(run)(rows)
      return jax.tree.map(jnp.add, total, out), None

    first = jax.tree.map(lambda x: x[0], micro)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype),
                         jax.eval_shape(grad_fn, state.params, first, key,
                                        *reference))
    ((loss, metrics), grads), _ = jax.lax.scan(
        accumulate, zeros, (jnp.arange(num_microbatches), micro))

    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    params = router_bias.move(state.params, params,
                              metrics.get('expert_load'), router_bias_rate)
    norm = optax.tree.norm(grads)
    metrics = metrics | {
        'loss': loss, 'grad_norm': norm, 'param_norm': optax.tree.norm(params),
        'nonfinite_grads': 1.0 - jnp.isfinite(norm).astype(jnp.float32)}
    new_state = TrainState(step=state.step + 1, params=params,
                           opt_state=opt_state)
    return new_state, metrics

  update.__name__ = name
  if state_sharding is None:
    return Update(jax.jit(update, donate_argnames='state'))
  metrics_at = None if batch_sharding is None else (
      sharding.replicated(batch_sharding.mesh))
  trained, rest = lora.split(state_sharding.params)
  state_sharding = state_sharding.replace(params=trained)
  return Update(
      jax.jit(update, donate_argnames='state',
              in_shardings=(state_sharding, rest, batch_sharding, None,
                            *[None] * takes_reference),
              out_shardings=(state_sharding, metrics_at)), batch_sharding)


@dataclasses.dataclass(frozen=True)
class Update:
  """A compiled update; keeps what is not trained out of what is donated."""
  compiled: Callable
  batch_sharding: Any = None

  def __call__(self, state: TrainState, batch, key: jax.Array, *reference):
    trained, rest = lora.split(state.params)
    run = lambda state, batch, *others: self.compiled(
        state, rest, batch, *others)
    if self.batch_sharding is not None:
      run = sharding.placing(run, self.batch_sharding)
    state, metrics = run(state.replace(params=trained), batch, key, *reference)
    return state.replace(params=lora.joined(state.params, rest)), metrics

  def lower(self, state: TrainState, batch, key: jax.Array, *reference):
    """As that of `jax.jit`, to look at the program."""
    trained, rest = lora.split(state.params)
    return self.compiled.lower(state.replace(params=trained), rest, batch, key,
                               *reference)
