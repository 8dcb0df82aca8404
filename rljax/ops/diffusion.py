"""Noise on images, its schedule, and sampling by taking it away again.

  x_t = α x + σ ε,  α = cos(π t / 2),  σ = sin(π t / 2),  t in [0, 1]

A model predicts ε. A step from t to s < t guesses x, and makes x_s of it and of
the noise it saw (DDIM, η = 0) or of fresh noise as well (DDPM, η = 1).

Reference: DDPM (arXiv 2006.11239); DDIM (arXiv 2010.02502), eqs. 12 and 16; the
cosine (arXiv 2102.09672) in continuous time.
"""
from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

# At 1 nothing of the image is left to be guessed from.
LAST_TIME = 0.98


def signal_and_noise(time: jax.Array) -> tuple[jax.Array, jax.Array]:
  """α and σ, of the shape of `time`; α² + σ² = 1."""
  angle = 0.5 * jnp.pi * time
  return jnp.cos(angle), jnp.sin(angle)


def add_noise(image_BYWU: jax.Array, noise_BYWU: jax.Array,
              time_B: jax.Array) -> jax.Array:
  """Images under noise."""
  chex.assert_equal_shape([image_BYWU, noise_BYWU])
  alpha_B, sigma_B = signal_and_noise(time_B)
  return (_wide(alpha_B) * image_BYWU + _wide(sigma_B) * noise_BYWU)


def squared_errors(predicted_BYWU: jax.Array,
                   noise_BYWU: jax.Array) -> jax.Array:
  """Mean over the dimensions of each image, float32."""
  chex.assert_equal_shape([predicted_BYWU, noise_BYWU])
  difference_BYWU = (predicted_BYWU - noise_BYWU).astype(jnp.float32)
  return jnp.mean(jnp.square(difference_BYWU), axis=(1, 2, 3))


def draw(rows: int, shape: tuple[int, ...], key: jax.Array
         ) -> tuple[jax.Array, jax.Array]:
  """(noise_BYWU, time_B) to train on; times are uniform."""
  noise_key, time_key = jax.random.split(key)
  return (jax.random.normal(noise_key, (rows, *shape)),
          jax.random.uniform(time_key, (rows,), maxval=LAST_TIME))


def sample(predict: Callable, shape: tuple[int, ...], num_steps: int,
           eta: float, key: jax.Array) -> jax.Array:
  """Images in [-1, 1] out of noise.

  Args:
    predict: (image_BYWU, time_B) -> noise_BYWU.
    shape: [B, I, J, U].
    num_steps: evaluations of `predict`.
    eta: η, from 0 (each start has one end) to 1.
    key: of the start and of what is added on the way.

  Raises:
    ValueError: η out of its range, or no step.
  """
  if not 0 <= eta <= 1 or num_steps < 1:
    raise ValueError(f'Expected eta in [0, 1] and num_steps >= 1, got {eta} '
                     f'and {num_steps}. Correct the sampler.')
  start_key, key = jax.random.split(key)
  times = jnp.linspace(LAST_TIME, 0.0, num_steps + 1)

  def step(x_BYWU, inputs):
    now, then, key = inputs
    (alpha, sigma), (alpha_then, sigma_then) = map(
        signal_and_noise, (now, then))
    noise_BYWU = predict(x_BYWU, jnp.broadcast_to(now, shape[:1]))
    guess_BYWU = jnp.clip((x_BYWU - sigma * noise_BYWU) / alpha, -1.0, 1.0)
    # What the clipped guess says that the noise was.
    noise_BYWU = (x_BYWU - alpha * guess_BYWU) / sigma
    fresh = eta * sigma_then / sigma * jnp.sqrt(
        jnp.maximum(1.0 - jnp.square(alpha / alpha_then), 0.0))
    kept = jnp.sqrt(jnp.maximum(jnp.square(sigma_then) - jnp.square(fresh),
                                0.0))
    x_BYWU = (alpha_then * guess_BYWU + kept * noise_BYWU
              + fresh * jax.random.normal(key, shape))
    return x_BYWU, None

  x_BYWU, _ = jax.lax.scan(
      step, jax.random.normal(start_key, shape),
      (times[:-1], times[1:], jax.random.split(key, num_steps)))
  return x_BYWU


def _wide(x_B):
  return x_B[:, None, None, None]
