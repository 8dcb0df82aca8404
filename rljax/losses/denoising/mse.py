"""Squared error of the predicted noise: diffusion training, and SFT.

  L = Σ w mean_G mse

Reference: DDPM (arXiv 2006.11239), eq. 14.
"""
import chex
import jax
import jax.numpy as jnp

from rljax.ops import masking
from rljax.types import DenoisingBatch


def loss(error_BG: jax.Array, batch: DenoisingBatch
         ) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over rows.

  Args:
    error_BG: mean squared error of each image.
    batch: weights.
  """
  chex.assert_type(error_BG, jnp.float32)
  total = masking.weighted_sum(batch.weight_B, jnp.mean(error_BG, axis=1))
  return total, {'error': jax.lax.stop_gradient(total)}
