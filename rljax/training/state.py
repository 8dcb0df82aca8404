"""The train state: created directly in its shards, copied, counted."""
from __future__ import annotations

from typing import Callable

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from rljax import sharding
from rljax.models import lora
from rljax.types import TrainState


def init_state(model: nn.Module, optimizer: optax.GradientTransformation,
               key: jax.Array, mesh, rules=None, *, params=None,
               adapt: Callable | None = None):
  """Builds a train state, each array made on the devices that keep it.

  Args:
    model: called on int32 [1, 8] dummies to find its parameters.
    optimizer: its moments take the shardings of their parameters.
    key: for the parameters, and for adapters.
    mesh: devices.
    rules: logical axis table.
    params: start from these instead; what is trained of them is copied, because
      the update donates it.
    adapt: `(params, key) -> lora.Adapted`, to train adapters alone.

  Returns:
    (state, sharding of the state).

  Raises:
    ValueError: the mesh does not divide the model.
  """
  create = _creation(model, optimizer, adapt)
  shardings = sharding.tree_sharding(mesh, jax.eval_shape(create, key), rules)
  if params is None:
    def fresh_state(key):
      return sharding.unbox(create(key))

    return jax.jit(fresh_state, out_shardings=shardings)(key), shardings

  def adopted_state(trained):
    return TrainState(step=jnp.zeros((), jnp.int32), params=trained,
                      opt_state=optimizer.init(trained))

  trained, rest = lora.split(
      params if adapt is None else _adapted(params, adapt, key))
  trained_shardings = shardings.replace(
      params=lora.split(shardings.params)[0])
  state = jax.jit(adopted_state, out_shardings=trained_shardings)(
      frozen_copy(trained))
  return state.replace(params=lora.joined(state.params, rest)), shardings


def _adapted(params, adapt, key):
  """With adapters; the arrays of the base are those that were given."""
  adapters = lambda key: adapt(params, key).trained[lora.COLLECTION]
  made = jax.eval_shape(adapt, params, key)
  whole = {name: params[name] for name in set(made.trained) - {lora.COLLECTION}}
  return made.replace(
      base={name: params[name] for name in made.base},
      trained=whole | {lora.COLLECTION: jax.jit(adapters)(
          jax.random.fold_in(key, 1))})


def abstract_state(model: nn.Module, optimizer: optax.GradientTransformation,
                   mesh, rules=None, *, adapt: Callable | None = None
                   ) -> TrainState:
  """The state's shapes, dtypes and shardings; nothing is allocated."""
  abstract = jax.eval_shape(_creation(model, optimizer, adapt),
                            jax.random.key(0))
  shardings = sharding.tree_sharding(mesh, abstract, rules)
  return jax.tree.map(
      lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at),
      sharding.unbox(abstract), shardings)


def _creation(model, optimizer, adapt):
  """key -> state, its arrays boxed with their logical axes."""
  def create(key):
    dummy_BT = jnp.zeros((1, 8), jnp.int32)
    with nn.logical_axis_rules(()):  # a mesh need not divide the dummies
      variables = model.init(key, dummy_BT, dummy_BT, dummy_BT)
    params = variables['params'] if adapt is None else adapt(
        variables['params'], jax.random.fold_in(key, 1))
    boxed, _ = lora.split(params)
    moments = _keep_known_shapes(optimizer.init(boxed), boxed)
    return TrainState(step=jnp.zeros((), jnp.int32), params=params,
                      opt_state=moments)
  return create


def _keep_known_shapes(opt_state, params):
  """Takes the axes off what has the shape of no parameter: it is replicated.

  Factored moments (adafactor) and per-tensor ones (novograd) inherit the axes
  of their parameter, which do not describe them.
  """
  is_box = lambda x: isinstance(x, nn.meta.AxisMetadata)
  known = {(box.names, box.value.shape)
           for box in jax.tree.leaves(params, is_leaf=is_box)}
  # A masked part of an optimiser (muon's) boxes nodes that have no shape.
  return jax.tree.map(
      lambda x: x.value if is_box(x) and (
          x.names, getattr(x.value, 'shape', None)) not in known else x,
      opt_state, is_leaf=is_box)


def frozen_copy(params):
  """A copy with buffers of its own; an alias would be donated away."""
  return jax.tree.map(jnp.copy, params)


def named_keys(seed: int, *streams: str) -> dict[str, jax.Array]:
  """One key per stream, by position: nothing random is ever stored."""
  root = jax.random.key(seed)
  return {name: jax.random.fold_in(root, i) for i, name in enumerate(streams)}
