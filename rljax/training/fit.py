"""Many small steps in one compiled program.

For models so small that a step is shorter than its dispatch: the head of a
reward model on cached features, a denoiser of small images.
"""
from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from rljax.types import TrainState


def create(params, optimizer: optax.GradientTransformation) -> TrainState:
  """A state to begin with; a copy, because `fit` donates it."""
  params = jax.tree.map(jnp.copy, params)
  return TrainState(step=jnp.zeros((), jnp.int32), params=params,
                    opt_state=optimizer.init(params))


def make_fit_fn(loss_fn: Callable, optimizer: optax.GradientTransformation,
                draw: Callable, num_steps: int, *, name: str = 'fit'):
  """Builds a compiled `fit(state, data, key) -> (state, metrics)`.

  Args:
    loss_fn: `(params, batch) -> (loss, metrics)`, a sum over rows.
    optimizer: with clipping and schedule.
    draw: `(data, key) -> batch` of one step; of static shape.
    num_steps: in one call.
    name: of the compiled function.

  Returns:
    The function; metrics are those of the last step. `state` is donated.
  """
  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)

  def fit(state: TrainState, data, key: jax.Array):
    def step(state, _):
      # By the step, so that a resumed run repeats itself.
      batch = draw(data, jax.random.fold_in(key, state.step))
      (loss, metrics), grads = grad_fn(state.params, batch)
      updates, opt_state = optimizer.update(grads, state.opt_state,
                                            state.params)
      params = optax.apply_updates(state.params, updates)
      return TrainState(step=state.step + 1, params=params,
                        opt_state=opt_state), metrics | {
                            'loss': loss, 'grad_norm': optax.tree.norm(grads)}

    state, metrics = jax.lax.scan(step, state, None, length=num_steps)
    return state, jax.tree.map(lambda x: x[-1], metrics)

  fit.__name__ = name
  return jax.jit(fit, donate_argnames='state')
