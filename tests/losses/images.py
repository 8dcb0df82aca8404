"""Rows of images for the tests of discriminator and denoising losses."""
import jax.numpy as jnp
import numpy as np

from rljax.types import DenoisingBatch
from rljax.types import DiscriminatorBatch


def labelled(label, weight=None, feature_BD=None) -> DiscriminatorBatch:
  """Of given labels; each image weighs 1 unless said otherwise."""
  label_B = jnp.asarray(label, jnp.float32)
  weight_B = jnp.ones_like(label_B) if weight is None else jnp.asarray(
      weight, jnp.float32)
  if feature_BD is None:
    feature_BD = jnp.zeros((len(label_B), 1))
  return DiscriminatorBatch(jnp.asarray(feature_BD, jnp.float32), label_B,
                            weight_B, None)


def noisy(rows=4, group=2, weight=None, ref=None, seed=0) -> DenoisingBatch:
  """Random images under noise; rows weigh 1 / (their number)."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  return DenoisingBatch(
      image_BGYWU=draw(rows, group, 2, 2, 1), class_B=jnp.zeros(rows, int),
      noise_BYWU=draw(rows, 2, 2, 1), time_B=jnp.full(rows, 0.5),
      weight_B=jnp.full(rows, 1 / rows) if weight is None else jnp.asarray(
          weight, jnp.float32),
      ref_error_BG=jnp.abs(draw(rows, group)) if ref is None else jnp.asarray(
          ref, jnp.float32))
