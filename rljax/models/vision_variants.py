"""Vision towers as data: name -> hyper-parameters.

Reference: ViT (arXiv 2010.11929); the sizes are those of big_vision, So400m of
SigLIP (arXiv 2303.15343) and "mu" for tests among them.
"""
from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class VisionConfig:
  """Hyper-parameters of a tower; sizes are numbers of elements."""
  image_size: int            # rows, and columns, of the image
  patch_size: int
  num_channels: int
  num_layers: int
  model_dim: int
  num_heads: int
  mlp_dim: int
  pool: str = 'mean'         # mean, class, attention
  activation: str = 'gelu_tanh'
  class_token: bool = False  # in front of the patches
  patch_bias: bool = True
  pre_norm: bool = False     # ahead of the blocks
  projection_dim: int = 0    # of a last linear map; 0: there is none
  norm_eps: float = 1e-6
  image_mean: tuple[float, ...] = (0.5,)  # of values in [0, 1]; one or by
  image_std: tuple[float, ...] = (0.5,)   # channel
  init_std: float = 0.02
  dtype: str = 'float32'
  param_dtype: str = 'float32'

  @property
  def grid(self) -> int:
    """Patches in a row."""
    return self.image_size // self.patch_size

  @property
  def feature_dim(self) -> int:
    return self.projection_dim or self.model_dim


VARIANTS = {
    'mu': VisionConfig(  # tests and 8 x 8 digits
        image_size=8, patch_size=2, num_channels=1, num_layers=1, model_dim=32,
        num_heads=2, mlp_dim=128, init_std=0.15),
    'base_16': VisionConfig(
        image_size=224, patch_size=16, num_channels=3, num_layers=12,
        model_dim=768, num_heads=12, mlp_dim=3_072, pool='attention'),
    'so400m_14': VisionConfig(
        image_size=224, patch_size=14, num_channels=3, num_layers=27,
        model_dim=1_152, num_heads=16, mlp_dim=4_304, pool='attention'),
}
_POOLS = ('mean', 'class', 'attention')
_ACTIVATIONS = ('gelu_tanh', 'gelu', 'quick_gelu')


def get(variant: str, **overrides) -> VisionConfig:
  """A variant with some fields replaced.

  Raises:
    ValueError: unknown variant or field, or fields that contradict each other.
  """
  fields = [f.name for f in dataclasses.fields(VisionConfig)]
  strange = sorted(set(overrides) - set(fields))
  if variant not in VARIANTS or strange:
    raise ValueError(
        f'Expected a vision variant among {sorted(VARIANTS)} and fields among '
        f'{fields}, got {variant!r} with {strange}. Correct the config.')
  config = dataclasses.replace(VARIANTS[variant], **overrides)
  check(config)
  return config


def check(config: VisionConfig):
  """Raises ValueError for sizes that contradict each other."""
  channels = (1, config.num_channels)
  rules = [
      (config.image_size % config.patch_size == 0,
       f'image_size {config.image_size} to be a multiple of patch_size '
       f'{config.patch_size}'),
      (config.model_dim % config.num_heads == 0,
       f'model_dim {config.model_dim} to be a multiple of num_heads '
       f'{config.num_heads}'),
      (config.pool in _POOLS, f'pool among {_POOLS}, got {config.pool!r}'),
      (config.activation in _ACTIVATIONS,
       f'activation among {_ACTIVATIONS}, got {config.activation!r}'),
      (config.pool != 'class' or config.class_token,
       "a class token where pool is 'class'"),
      (len(config.image_mean) in channels and len(config.image_std) in channels,
       f'one mean and deviation, or {config.num_channels}, got '
       f'{config.image_mean} and {config.image_std}'),
  ]
  for holds, message in rules:
    if not holds:
      raise ValueError(f'Expected {message}. Change the variant or its '
                       'overrides.')
