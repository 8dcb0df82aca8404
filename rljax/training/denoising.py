"""Errors of a denoiser, its batches, its samples."""
from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from rljax.models import denoiser
from rljax.ops import diffusion
from rljax.types import DenoisingBatch


def make_error_fn(model: denoiser.Denoiser) -> Callable:
  """Builds `errors(params, batch) -> error_BG`.

  Every image of a row is put under the row's own noise at the row's own time.
  """
  def errors(params, batch: DenoisingBatch) -> jax.Array:
    rows, group, *shape = batch.image_BGYWU.shape
    chex.assert_shape(batch.noise_BYWU, (rows, *shape))
    chex.assert_shape([batch.time_B, batch.class_B], (rows,))

    def of_one(image_BYWU):
      noised_BYWU = diffusion.add_noise(image_BYWU, batch.noise_BYWU,
                                        batch.time_B)
      predicted_BYWU = model.apply({'params': params}, noised_BYWU,
                                   batch.time_B, batch.class_B)
      return diffusion.squared_errors(predicted_BYWU, batch.noise_BYWU)

    return jnp.stack([of_one(batch.image_BGYWU[:, i]) for i in range(group)],
                     axis=1)

  return errors


def make_draw(batch_size: int, errors: Callable | None = None) -> Callable:
  """Builds `draw(data, key) -> DenoisingBatch` of rows under fresh noise.

  Args:
    batch_size: rows, drawn with replacement where the weight is not 0.
    errors: also of a frozen reference, whose parameters are in the data.

  Returns:
    The function. `data` has image_RGYWU, class_R, weight_R and, for a
    reference, its params.
  """
  def draw(data, key: jax.Array) -> DenoisingBatch:
    row_key, key = jax.random.split(key)
    weight_R = data['weight_R']
    row_B = jax.random.choice(
        row_key, weight_R.shape[0], (batch_size,), p=weight_R)
    image_BGYWU = data['image_RGYWU'][row_B]
    noise_BYWU, time_B = diffusion.draw(batch_size, image_BGYWU.shape[2:], key)
    batch = DenoisingBatch(
        image_BGYWU=image_BGYWU, class_B=data['class_R'][row_B],
        noise_BYWU=noise_BYWU, time_B=time_B,
        weight_B=jnp.full(batch_size, 1.0 / batch_size), ref_error_BG=None)
    if errors is None:
      return batch
    return batch.replace(ref_error_BG=jax.lax.stop_gradient(
        errors(data['reference'], batch)))

  return draw


def make_sample_fn(model: denoiser.Denoiser, num_steps: int,
                   eta: float) -> Callable:
  """Builds a compiled `sample(params, class_B, key) -> image_BYWU`."""
  size, channels = model.config.image_size, model.config.num_channels

  def sample_images(params, class_B: jax.Array, key: jax.Array) -> jax.Array:
    predict = lambda x_BYWU, time_B: model.apply(
        {'params': params}, x_BYWU, time_B, class_B)
    return diffusion.sample(
        predict, (class_B.shape[0], size, size, channels), num_steps, eta, key)

  return jax.jit(sample_images)
