"""Model variants as data: name -> hyper-parameters.

A new size is a new entry, never a new model file. Counts are checked to the
last parameter in the tests.

Reference: Ring-lite (arXiv 2506.14731) and the configuration files published
with its weights; Ling technical report (arXiv 2503.05139).
"""
from __future__ import annotations

import dataclasses
import difflib


@dataclasses.dataclass(frozen=True)
class Yarn:
  """YaRN context extension (arXiv 2309.00071) of the rotary frequencies."""
  factor: float
  original_max_positions: int
  beta_fast: float = 32.0
  beta_slow: float = 1.0


@dataclasses.dataclass(frozen=True)
class Llama3Rope:
  """Context extension of Llama 3.1: slow rotations divided by the factor."""
  factor: float
  original_max_positions: int
  low_freq_factor: float = 1.0
  high_freq_factor: float = 4.0


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Hyper-parameters of the decoder; sizes are numbers of elements."""
  vocab_size: int
  num_layers: int
  model_dim: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  num_experts: int           # 0: dense layers, of width mlp_dim
  top_k: int
  expert_dim: int            # hidden width of one expert
  num_shared_experts: int    # fused into one MLP of this multiple of the width
  rope_theta: float
  max_positions: int
  yarn: Yarn | None
  norm_eps: float
  norm_head: bool
  init_std: float
  final_norm_init: float = 1.0  # NormHead's logits can grow by this norm only
  dtype: str = 'float32'        # matrix products, activations, cache
  param_dtype: str = 'float32'
  remat: str = 'none'           # none, full, dots
  moe_dispatch: str = 'auto'    # auto, block, ragged, megablox, dense
  norm_topk_prob: bool = True   # gates of the chosen experts sum to 1
  router_bias: bool = False     # balance by a bias on the choice
  query_chunk: int = 1024       # attention rows held at once, 0 = all
  mlp_dim: int = 0              # hidden width of a dense layer
  llama3_rope: Llama3Rope | None = None
  qkv_bias: bool = False        # on queries, keys and values
  qk_norm: str = 'none'         # head: each head; all: all heads as one vector
  tied_head: bool = False       # the head is the embedding table


def _moe(**fields) -> ModelConfig:
  shared = dict(yarn=None, norm_eps=1e-6, norm_head=True, rope_theta=10_000.0,
                num_shared_experts=1, init_std=0.02, max_positions=4_096)
  return ModelConfig(**(shared | fields))


def _dense(**fields) -> ModelConfig:
  shared = dict(num_experts=0, top_k=0, expert_dim=0, num_shared_experts=0,
                yarn=None, norm_head=False, init_std=0.02)
  return ModelConfig(**(shared | fields))


VARIANTS = {
    # Tests: seconds on a CPU, yet with every feature of the full model.
    'tiny': _moe(
        vocab_size=272, num_layers=2, model_dim=32, num_heads=4,
        num_kv_heads=2, head_dim=8, num_experts=4, top_k=2, expert_dim=32),
    'tiny_wide': _moe(  # 16 experts, 4 chosen: uneven loads
        vocab_size=272, num_layers=3, model_dim=64, num_heads=4,
        num_kv_heads=2, head_dim=16, num_experts=16, top_k=4, expert_dim=32,
        num_shared_experts=2),
    'tiny_dense': _dense(
        vocab_size=272, num_layers=2, model_dim=32, num_heads=4,
        num_kv_heads=2, head_dim=8, mlp_dim=64, rope_theta=10_000.0,
        max_positions=4_096, norm_eps=1e-6, tied_head=True),
    'tiny_yarn': _moe(
        vocab_size=272, num_layers=2, model_dim=32, num_heads=4,
        num_kv_heads=2, head_dim=8, num_experts=4, top_k=2, expert_dim=32,
        yarn=Yarn(factor=4.0, original_max_positions=64), max_positions=256),
    # The demo: learns on two CPU cores. Short texts want fast rotations, and
    # logits that start large enough to become sure in some hundred steps.
    'mini': _moe(
        vocab_size=272, num_layers=2, model_dim=128, num_heads=4,
        num_kv_heads=2, head_dim=32, num_experts=8, top_k=2, expert_dim=128,
        init_std=0.09, rope_theta=100.0, final_norm_init=3.0, remat='full'),
    # 128K positions are YaRN, factor 4 over 32,768.
    'ring_lite_16b_a2_75b': _moe(
        vocab_size=126_464, num_layers=28, model_dim=2_048, num_heads=16,
        num_kv_heads=4, head_dim=128, num_experts=64, top_k=6,
        expert_dim=1_408, num_shared_experts=2, rope_theta=600_000.0,
        yarn=Yarn(factor=4.0, original_max_positions=32_768),
        max_positions=131_072, init_std=0.006, dtype='bfloat16',
        remat='full'),
    # Published by others; `interop` reads their weights.
    'smollm2_135m': _dense(
        vocab_size=49_152, num_layers=30, model_dim=576, num_heads=9,
        num_kv_heads=3, head_dim=64, mlp_dim=1_536, rope_theta=100_000.0,
        max_positions=8_192, norm_eps=1e-5, init_std=0.042, tied_head=True),
}

_REMAT = ('none', 'full', 'dots')
_DISPATCH = ('auto', 'block', 'ragged', 'megablox', 'dense')
_DTYPES = ('float32', 'bfloat16', 'float16')
_QK_NORMS = ('none', 'head', 'all')
_SIZES = ('vocab_size', 'num_layers', 'model_dim', 'num_heads', 'num_kv_heads',
          'head_dim')
_EXPERT_SIZES = ('num_experts', 'top_k', 'expert_dim')


def get(variant: str, **overrides) -> ModelConfig:
  """Returns a variant with some fields replaced.

  Raises:
    ValueError: unknown variant or field (the message lists the known ones), or
      fields that contradict each other.
  """
  if variant not in VARIANTS:
    raise ValueError(
        f'Unknown model variant {variant!r}. Known: {", ".join(VARIANTS)}.'
        f'{_closest(variant, VARIANTS)}')
  fields = [f.name for f in dataclasses.fields(ModelConfig)]
  for name in overrides:
    if name not in fields:
      raise ValueError(f'Unknown model field {name!r}. Known: '
                       f'{", ".join(fields)}.{_closest(name, fields)}')
  config = dataclasses.replace(VARIANTS[variant], **overrides)
  check(config)
  return config


def _closest(name, known) -> str:
  close = difflib.get_close_matches(name, known, n=1)
  return f' Did you mean {close[0]!r}?' if close else ''


def check(config: ModelConfig):
  """Rejects contradictions now, not in the middle of a trace."""
  is_dense = config.num_experts == 0
  for name in (*_SIZES, *(['mlp_dim'] if is_dense else _EXPERT_SIZES)):
    size = getattr(config, name)
    if not isinstance(size, int) or size < 1:
      raise ValueError(f'{name} must be a positive integer, got {size!r}. '
                       'Change the variant or its overrides.')
  rules = [
      (config.num_heads % config.num_kv_heads == 0,
       f'num_heads ({config.num_heads}) must be a multiple of num_kv_heads '
       f'({config.num_kv_heads})'),
      (config.head_dim % 2 == 0,
       f'head_dim must be even for rotary positions, got {config.head_dim}'),
      (config.top_k <= config.num_experts,
       f'top_k must lie in 1..num_experts ({config.num_experts}), got '
       f'{config.top_k}'),
      (config.remat in _REMAT,
       f'remat must be one of {_REMAT}, got {config.remat!r}'),
      (config.moe_dispatch in _DISPATCH,
       f'moe_dispatch must be one of {_DISPATCH}, got '
       f'{config.moe_dispatch!r}'),
      (config.dtype in _DTYPES,
       f'dtype must be one of {_DTYPES}, got {config.dtype!r}'),
      (config.param_dtype in _DTYPES,
       f'param_dtype must be one of {_DTYPES}, got {config.param_dtype!r}'),
      (config.yarn is None or isinstance(config.yarn, Yarn),
       f'yarn must be None or a variants.Yarn, got {config.yarn!r}'),
      (config.llama3_rope is None or config.yarn is None and isinstance(
          config.llama3_rope, Llama3Rope),
       'llama3_rope must be None or, without yarn, a variants.Llama3Rope, got '
       f'{config.llama3_rope!r}'),
      (config.qk_norm in _QK_NORMS,
       f'qk_norm must be one of {_QK_NORMS}, got {config.qk_norm!r}'),
      (not (config.tied_head and config.norm_head),
       'norm_head and tied_head exclude each other, got both'),
      (is_dense or not config.mlp_dim,
       f'mlp_dim ({config.mlp_dim}) is of dense layers, but there are '
       f'{config.num_experts} experts'),
      (not is_dense or not (config.top_k or config.num_shared_experts
                            or config.router_bias),
       'without experts, top_k, num_shared_experts and router_bias must be '
       f'off, got {config.top_k}, {config.num_shared_experts} and '
       f'{config.router_bias}'),
      (config.query_chunk >= 0,
       f'query_chunk must be 0 or positive, got {config.query_chunk}'),
  ]
  for holds, message in rules:
    if not holds:
      raise ValueError(f'{message}. Change the variant or its overrides.')
