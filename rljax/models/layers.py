"""RMSNorm, rotary positions and their extensions, and the gated MLP.

  RMSNorm(x) = x / √(mean(x²) + ε) · w
  RoPE       rotates (x₁, x₂) halves by position · θ^(-2i/H)

Statistics and angles are float32 whatever the activation type.

Reference: RoFormer (arXiv 2104.09864); YaRN (arXiv 2309.00071), eqs. 17-23,
with the attention factor 0.1·ln(s) + 1 folded into cosine and sine; SwiGLU
(arXiv 2002.05202).
"""
from __future__ import annotations

import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from rljax.models import lora
from rljax.models import variants


def param(module: nn.Module, name: str, shape, axes, std: float) -> jax.Array:
  """A normally initialised parameter that carries its logical axes.

  Its adapter is added, where the caller's variables hold one.
  """
  init = nn.with_logical_partitioning(nn.initializers.normal(std), axes)
  config = module.config
  value = module.param(name, init, shape, jnp.dtype(config.param_dtype))
  if module.has_variable(lora.COLLECTION, name):
    value = lora.added(name, value, module.get_variable(lora.COLLECTION, name))
  return value.astype(config.dtype)


class RMSNorm(nn.Module):
  """Normalises in float32, casts, then multiplies by the weight."""
  config: variants.ModelConfig
  initial: float = 1.0

  @nn.compact
  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    config = self.config
    init = nn.with_logical_partitioning(
        nn.initializers.constant(self.initial), ('norm',))
    scale_D = self.param('scale', init, x_BTD.shape[-1:],
                         jnp.dtype(config.param_dtype))
    x32_BTD = x_BTD.astype(jnp.float32)
    mean_BT1 = jnp.mean(jnp.square(x32_BTD), axis=-1, keepdims=True)
    normed_BTD = x32_BTD * jax.lax.rsqrt(mean_BT1 + config.norm_eps)
    scale = scale_D.reshape((1,) * (x_BTD.ndim - 1) + (-1,))
    return normed_BTD.astype(config.dtype) * scale.astype(config.dtype)


class GatedMLP(nn.Module):
  """SwiGLU: down(silu(gate(x)) · up(x)), without bias."""
  config: variants.ModelConfig
  width: int

  @nn.compact
  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    config, std = self.config, self.config.init_std
    gate_up_D2F = param(self, 'gate_up', (config.model_dim, 2, self.width),
                        ('embed', None, 'mlp'), std)
    down_FD = param(self, 'down', (self.width, config.model_dim),
                    ('mlp', 'embed'), std)
    # Rows and positions stay apart: each may be split over devices, and an axis
    # of all tokens could not be.
    both_BT2F = jnp.einsum('btd,dcf->btcf', x_BTD, gate_up_D2F)
    return (nn.silu(both_BT2F[:, :, 0]) * both_BT2F[:, :, 1]) @ down_FD


def rotary_frequencies(config: variants.ModelConfig) -> tuple[jax.Array, float]:
  """Radians per position for each pair of channels, and the magnitude factor.

  With YaRN and with Llama 3.1's extension, fast rotations keep their frequency,
  slow ones are divided by the factor, and those between are blended: YaRN's
  linearly by channel, Llama's linearly by rotations in the original context.

  Returns:
    (frequency [head_dim / 2] float32, factor on cosine and sine).
  """
  half = config.head_dim // 2
  exponent = jnp.arange(half, dtype=jnp.float32) / half
  frequency = jnp.float32(config.rope_theta) ** -exponent
  if config.llama3_rope is not None:
    llama = config.llama3_rope
    turns = llama.original_max_positions / (2 * math.pi) * frequency
    low, high = llama.low_freq_factor, llama.high_freq_factor
    keep = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequency * keep + frequency / llama.factor * (1.0 - keep), 1.0
  if config.yarn is None:
    return frequency, 1.0

  yarn = config.yarn

  def channel_of(rotations: float) -> float:
    """The channel that turns this often within the original context."""
    period = yarn.original_max_positions / (rotations * 2 * math.pi)
    return half * math.log(period) / math.log(config.rope_theta)

  low = max(math.floor(channel_of(yarn.beta_fast)), 0)
  high = min(math.ceil(channel_of(yarn.beta_slow)), config.head_dim - 1)
  ramp = (jnp.arange(half, dtype=jnp.float32) - low) / max(high - low, 1e-3)
  slow = jnp.clip(ramp, 0.0, 1.0)
  frequency = frequency * (1.0 - slow) + frequency / yarn.factor * slow
  return frequency, 0.1 * math.log(yarn.factor) + 1.0


def rotate(x_BTNH: jax.Array, position_BT: jax.Array,
           config: variants.ModelConfig) -> jax.Array:
  """Applies rotary positions to queries or keys (rotate-half layout)."""
  frequency, factor = rotary_frequencies(config)
  angle = position_BT[..., None, None].astype(jnp.float32) * frequency[
      None, None, None]
  cos, sin = factor * jnp.cos(angle), factor * jnp.sin(angle)
  first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate(
      [first * cos - second * sin, second * cos + first * sin], axis=-1)
  return rotated.astype(x_BTNH.dtype)
