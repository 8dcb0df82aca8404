"""A vision transformer: images in, one vector for each patch and one for all.

  x = patches(image) W (+ b);  x = [class; x] + positions
  x += Attention(LayerNorm(x));  x += MLP(LayerNorm(x))

What differs between towers is data: a class token and a norm ahead of the
blocks (CLIP), attention pooling by a learned probe (SigLIP), a plain mean.

Images have values in [-1, 1] whatever the tower; each normalises by the mean
and deviation it was trained with. `resample` reads another resolution with the
positions of the old one.

Reference: ViT (arXiv 2010.11929); CLIP (arXiv 2103.00020); SigLIP (arXiv
2303.15343); sizes and resampling as in big_vision.
"""
from __future__ import annotations

import dataclasses

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp

from rljax.models import layers
from rljax.models import vision_variants

_ACTIVATIONS = {
    'gelu_tanh': lambda x: nn.gelu(x, approximate=True),
    'gelu': lambda x: nn.gelu(x, approximate=False),
    'quick_gelu': lambda x: x * nn.sigmoid(1.702 * x),
}


@struct.dataclass
class Encoded:
  token_BMD: jax.Array   # of the patches, the class token left out
  pooled_BD: jax.Array


class VisionEncoder(nn.Module):
  """Call it as `encoder.apply({'params': params}, image_BYWU)`."""
  config: vision_variants.VisionConfig

  @nn.compact
  def __call__(self, image_BYWU: jax.Array) -> Encoded:
    """Encodes images of the config's own size, values in [-1, 1].

    Raises:
      ValueError: another size or number of channels; see `fit`.
    """
    config = self.config
    x_BMD = _PatchEmbedding(config, name='embedding')(
        _normalised(image_BYWU, config))
    if config.pre_norm:
      x_BMD = LayerNorm(config, name='pre_norm')(x_BMD)
    stack = nn.scan(
        _Block, variable_axes={'params': 0}, split_rngs={'params': True},
        length=config.num_layers,
        metadata_params={nn.PARTITION_NAME: 'layers'})
    x_BMD, _ = stack(config, name='layers')(x_BMD, None)
    last_norm = LayerNorm(config, name='final_norm')
    if config.pool == 'class':  # CLIP's tokens are those before the norm
      token_BMD, pooled_BD = x_BMD[:, 1:], last_norm(x_BMD[:, :1])[:, 0]
    else:
      token_BMD = last_norm(x_BMD)[:, int(config.class_token):]
      pooled_BD = jnp.mean(token_BMD, axis=1) if config.pool == 'mean' else (
          _Probe(config, name='probe')(token_BMD))
    if config.projection_dim:
      projection_DC = layers.param(
          self, 'projection', (config.model_dim, config.projection_dim),
          ('embed', None), config.init_std)
      pooled_BD = pooled_BD @ projection_DC
    return Encoded(token_BMD, pooled_BD)


def _normalised(image_BYWU, config):
  expected = (config.image_size, config.image_size, config.num_channels)
  if image_BYWU.shape[1:] != expected:
    raise ValueError(
        f'Expected images of {list(expected)}, got '
        f'{list(image_BYWU.shape[1:])}. Bring them to size with vision.fit, or '
        'resample the positions with vision.resample.')
  per_channel = lambda values: jnp.broadcast_to(
      jnp.asarray(values, jnp.float32), (config.num_channels,))[None, None,
                                                                None]
  unit_BYWU = (image_BYWU.astype(jnp.float32) + 1.0) / 2.0
  return ((unit_BYWU - per_channel(config.image_mean))
          / per_channel(config.image_std)).astype(config.dtype)


class _PatchEmbedding(nn.Module):
  config: vision_variants.VisionConfig

  @nn.compact
  def __call__(self, image_BYWU):
    config, std = self.config, self.config.init_std
    size, grid, width = config.patch_size, config.grid, config.model_dim
    kernel_YWUD = layers.param(
        self, 'patch', (size, size, config.num_channels, width),
        (None, None, None, 'embed'), std)
    patches = image_BYWU.reshape(-1, grid, size, grid, size,
                                 config.num_channels)
    x_BMD = jnp.einsum('bgihju,ijud->bghd', patches, kernel_YWUD).reshape(
        -1, grid * grid, width)
    if config.patch_bias:
      x_BMD = x_BMD + layers.param(self, 'patch_bias', (width,), ('norm',),
                                   0.0)[None, None]
    if config.class_token:
      class_D = layers.param(self, 'class', (width,), ('norm',), std)
      x_BMD = jnp.concatenate([jnp.broadcast_to(
          class_D[None, None], (len(x_BMD), 1, width)), x_BMD], axis=1)
    position_MD = layers.param(self, 'position', (x_BMD.shape[1], width),
                               (None, 'embed'), std)
    return x_BMD + position_MD[None]


class LayerNorm(nn.Module):
  """With scale and bias; statistics in float32."""
  config: vision_variants.VisionConfig

  @nn.compact
  def __call__(self, x_BMD):
    config, width = self.config, x_BMD.shape[-1]
    leaf = lambda name, initial: self.param(
        name, nn.with_logical_partitioning(
            nn.initializers.constant(initial), ('norm',)), (width,),
        jnp.dtype(config.param_dtype))[None, None].astype(jnp.float32)
    x32_BMD = x_BMD.astype(jnp.float32)
    centred_BMD = x32_BMD - jnp.mean(x32_BMD, axis=-1, keepdims=True)
    variance_BM1 = jnp.mean(jnp.square(centred_BMD), axis=-1, keepdims=True)
    normed_BMD = centred_BMD * jax.lax.rsqrt(variance_BM1 + config.norm_eps)
    return (normed_BMD * leaf('scale', 1.0) + leaf('bias', 0.0)).astype(
        config.dtype)


class _Block(nn.Module):
  """One layer, in the form that `nn.scan` wants."""
  config: vision_variants.VisionConfig

  @nn.compact
  def __call__(self, x_BMD, _):
    config = self.config
    normed_BMD = LayerNorm(config, name='attention_norm')(x_BMD)
    x_BMD = x_BMD + _Attention(config, name='attention')(normed_BMD, normed_BMD)
    normed_BMD = LayerNorm(config, name='mlp_norm')(x_BMD)
    return x_BMD + _MLP(config, name='mlp')(normed_BMD), None


class _Attention(nn.Module):
  """Every query sees every key."""
  config: vision_variants.VisionConfig

  @nn.compact
  def __call__(self, query_BTD, key_BSD):
    config, std = self.config, self.config.init_std
    width, heads = config.model_dim, config.num_heads
    size = width // heads

    def projected(name, x_BTD):
      kernel_DNH = layers.param(self, name, (width, heads, size),
                                ('embed', 'heads', 'head_dim'), std)
      bias_NH = layers.param(self, f'{name}_bias', (heads, size),
                             ('heads', 'head_dim'), 0.0)
      return jnp.einsum('btd,dnh->btnh', x_BTD, kernel_DNH) + bias_NH[None,
                                                                      None]

    y_BTNH = jax.nn.dot_product_attention(
        projected('query', query_BTD), projected('key', key_BSD),
        projected('value', key_BSD))
    out_NHD = layers.param(self, 'out', (heads, size, width),
                           ('heads', 'head_dim', 'embed'), std)
    bias_D = layers.param(self, 'out_bias', (width,), ('norm',), 0.0)
    return jnp.einsum('btnh,nhd->btd', y_BTNH, out_NHD) + bias_D[None, None]


class _MLP(nn.Module):
  config: vision_variants.VisionConfig

  @nn.compact
  def __call__(self, x_BMD):
    config, std = self.config, self.config.init_std
    up_DF = layers.param(self, 'up', (config.model_dim, config.mlp_dim),
                         ('embed', 'mlp'), std)
    up_bias_F = layers.param(self, 'up_bias', (config.mlp_dim,), ('mlp',), 0.0)
    down_FD = layers.param(self, 'down', (config.mlp_dim, config.model_dim),
                           ('mlp', 'embed'), std)
    down_bias_D = layers.param(self, 'down_bias', (config.model_dim,),
                               ('norm',), 0.0)
    hidden_BMF = _ACTIVATIONS[config.activation](
        x_BMD @ up_DF + up_bias_F[None, None])
    return hidden_BMF @ down_FD + down_bias_D[None, None]


class _Probe(nn.Module):
  """SigLIP's pooling: a learned query over the tokens, and an MLP."""
  config: vision_variants.VisionConfig

  @nn.compact
  def __call__(self, token_BMD):
    config = self.config
    query_D = layers.param(self, 'query', (config.model_dim,), ('norm',),
                           config.init_std)
    query_B1D = jnp.broadcast_to(
        query_D[None, None], (len(token_BMD), 1, config.model_dim))
    x_B1D = _Attention(config, name='attention')(query_B1D, token_BMD)
    normed_B1D = LayerNorm(config, name='norm')(x_B1D)
    return (x_B1D + _MLP(config, name='mlp')(normed_B1D))[:, 0]


def fit(image_BYWU: jax.Array,
        config: vision_variants.VisionConfig) -> jax.Array:
  """Images in the tower's size and channels: bilinear; grey is repeated.

  Raises:
    ValueError: channels that are neither the tower's nor one.
  """
  rows, _, _, channels = image_BYWU.shape
  if channels not in (1, config.num_channels):
    raise ValueError(f'Expected images of {config.num_channels} channels, or '
                     f'grey ones, got {channels}. Convert them first.')
  size = (rows, config.image_size, config.image_size, channels)
  if image_BYWU.shape != size:
    image_BYWU = jax.image.resize(image_BYWU, size, 'linear')
  return jnp.repeat(image_BYWU, config.num_channels // channels, axis=-1)


def resample(params, config: vision_variants.VisionConfig,
             image_size: int):
  """(params, config) of the same tower for images of another size.

  The grid of positions is stretched bilinearly; a class token keeps its own.
  """
  wider = dataclasses.replace(config, image_size=image_size)
  vision_variants.check(wider)
  if wider.grid == config.grid:
    return params, wider
  table_MD = params['embedding']['position']
  first = int(config.class_token)
  grid_D = table_MD[first:].reshape(config.grid, config.grid, -1)
  grid_D = jax.image.resize(
      grid_D, (wider.grid, wider.grid, grid_D.shape[-1]), 'linear')
  table_MD = jnp.concatenate(
      [table_MD[:first], grid_D.reshape(wider.grid**2, -1)])
  return params | {'embedding': params['embedding'] | {
      'position': table_MD}}, wider


def abstract_params(model: VisionEncoder):
  """Shapes, dtypes and logical axes of the parameters; no memory is used."""
  c = model.config
  image_BYWU = jax.ShapeDtypeStruct(
      (1, c.image_size, c.image_size, c.num_channels), jnp.float32)
  return jax.eval_shape(model.init, jax.random.key(0), image_BYWU)['params']


def make_encode(model: VisionEncoder, params):
  """A frozen tower: `encode(image_BYWU) -> feature_BD`, any size of image.

  No gradient passes into the images or the parameters. Features are divided by
  their norm and multiplied by the root of their width, so that a linear map on
  top sees numbers of size 1.
  """
  params = jax.lax.stop_gradient(params)

  def encode(image_BYWU: jax.Array) -> jax.Array:
    pooled_BD = model.apply({'params': params},
                            fit(image_BYWU, model.config)).pooled_BD
    pooled_BD = jax.lax.stop_gradient(pooled_BD).astype(jnp.float32)
    norm_B1 = jnp.linalg.norm(pooled_BD, axis=-1, keepdims=True)
    return pooled_BD * jnp.sqrt(float(pooled_BD.shape[-1])) / jnp.maximum(
        norm_B1, 1e-6)

  return encode
