"""The trained part of GAN-RM: an MLP from frozen features to one logit.

  s = w · gelu(... gelu(f W₁ + b₁)) + b,  R = σ(s)

The last layer starts at 0, so that R starts at 1/2 for every image. With
`conditioned`, features of the prompt stand beside those of the image; the paper
has none, and its reward cannot tell what was asked for.

Reference: GAN-RM (arXiv 2506.13846); sizes and start are ours, see
`losses/discriminator/gan_rm.py`.
"""
from __future__ import annotations

from collections.abc import Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp


class RewardProjection(nn.Module):
  """Call it as `head.apply({'params': params}, feature_BD, prompt_BD)`."""
  hidden: Sequence[int] = (64,)
  conditioned: bool = False

  @nn.compact
  def __call__(self, feature_BD: jax.Array,
               prompt_BD: jax.Array | None = None) -> jax.Array:
    """Logits, float32.

    Raises:
      ValueError: conditioned, and no features of prompts.
    """
    x_BF = jax.lax.stop_gradient(feature_BD).astype(jnp.float32)
    if self.conditioned:
      if prompt_BD is None:
        raise ValueError('Expected features of the prompts, as the reward '
                         'model is conditioned on them, got none. Pass them, '
                         'or set conditioned=False.')
      x_BF = jnp.concatenate(
          [x_BF, jax.lax.stop_gradient(prompt_BD).astype(jnp.float32)], axis=-1)
    for width in self.hidden:
      x_BF = nn.gelu(nn.Dense(width)(x_BF))
    return nn.Dense(1, kernel_init=nn.initializers.zeros)(x_BF)[:, 0]
