"""A small denoiser for images of some hundred pixels, given a prompt's class.

  h = W x;  h += MLP((1 + a) LayerNorm(h) + b) for each block;  ε = W' h

Scale a and shift b come from time and class. It has no convolution: at 8 x 8
pixels a matrix sees all of them at once, and two CPU cores can sample
thousands of images.

Reference: adaptive norms as in DiT (arXiv 2212.09748); the sizes are ours.
"""
from __future__ import annotations

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class DenoiserConfig:
  """Sizes are numbers of elements."""
  image_size: int
  num_channels: int
  num_classes: int
  width: int = 192
  num_blocks: int = 3


class Denoiser(nn.Module):
  """Call it as `denoiser.apply({'params': params}, image, time, class)`."""
  config: DenoiserConfig

  @nn.compact
  def __call__(self, image_BYWU: jax.Array, time_B: jax.Array,
               class_B: jax.Array) -> jax.Array:
    """The noise in the images."""
    config = self.config
    context_BF = nn.silu(
        nn.Dense(config.width, name='time')(_waves(time_B))
        + nn.Embed(config.num_classes, config.width, name='class')(class_B))
    x_BF = nn.DenseGeneral(config.width, axis=(1, 2, 3), name='in')(image_BYWU)
    for i in range(config.num_blocks):
      x_BF = _Block(config.width, name=f'block_{i}')(x_BF, context_BF)
    return nn.DenseGeneral(
        image_BYWU.shape[1:], kernel_init=nn.initializers.zeros, name='out')(
            nn.LayerNorm(name='last_norm')(x_BF))


class _Block(nn.Module):
  width: int

  @nn.compact
  def __call__(self, x_BF, context_BF):
    both_BF = nn.Dense(2 * self.width, kernel_init=nn.initializers.zeros,
                       name='modulation')(context_BF)
    scale_BF, shift_BF = jnp.split(both_BF, 2, axis=-1)
    normed_BF = nn.LayerNorm(use_scale=False, use_bias=False)(x_BF)
    hidden_BF = nn.silu(nn.Dense(2 * self.width, name='up')(
        (1.0 + scale_BF) * normed_BF + shift_BF))
    return x_BF + nn.Dense(self.width, name='down')(hidden_BF)


def _waves(time_B, count: int = 16):
  """Sines and cosines of the time, from half a turn to many."""
  angle_BF = time_B[:, None] * (
      jnp.pi * 2.0 ** (0.5 * jnp.arange(count, dtype=jnp.float32)))[None]
  return jnp.concatenate([jnp.sin(angle_BF), jnp.cos(angle_BF)], axis=-1)
