"""The decoder: embedding, scanned blocks, norm, head.

  x += Attention(RMSNorm(x));  x += MoE(RMSNorm(x))

Without experts, a dense gated MLP stands in the place of the mixture.

Pure: parameters and cache go in; what the head makes logits of, where they are
needed, routing statistics and cache come out. Layers are scanned, so compile
time does not grow with depth.

Reference: Ling technical report (arXiv 2503.05139); Ring-lite (arXiv
2506.14731) §4.
"""
from __future__ import annotations

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp

from rljax.models import attention
from rljax.models import heads
from rljax.models import layers
from rljax.models import lora
from rljax.models import moe
from rljax.models import variants
from rljax.ops import vocabulary
from rljax.types import RouterStats


@struct.dataclass
class ModelOutput:
  head: vocabulary.Projection  # position t predicts token t + 1
  router: RouterStats
  cache: attention.KVCache | None

  @property
  def logits_BTV(self) -> jax.Array:
    """All logits, float32; training never asks for them."""
    return self.head.logits_BTV


class Block(nn.Module):
  """One layer, in the form that `nn.scan` wants: carry in, statistics out."""
  config: variants.ModelConfig

  @nn.compact
  def __call__(self, carry, layer, position_BT, segment_BT, share_BT,
               prefix_BT=None, replay_BTX=None):
    x_BTD, cache = carry
    config = self.config
    normed_BTD = layers.RMSNorm(config, name='attention_norm')(x_BTD)
    y_BTD, cache = attention.Attention(config, name='attention')(
        normed_BTD, position_BT, segment_BT, cache, layer, prefix_BT)
    x_BTD = x_BTD + y_BTD
    if config.num_experts:
      normed_BTD = layers.RMSNorm(config, name='moe_norm')(x_BTD)
      y_BTD, stats = moe.MoE(config, name='moe')(
          normed_BTD, segment_BT, share_BT, replay_BTX)
    else:
      normed_BTD = layers.RMSNorm(config, name='mlp_norm')(x_BTD)
      y_BTD = layers.GatedMLP(config, config.mlp_dim, name='mlp')(normed_BTD)
      stats = _no_routing(segment_BT, replay_BTX)
    x_BTD = nn.with_logical_constraint(
        x_BTD + y_BTD, ('act_batch', 'act_length', 'act_embed'))
    return (x_BTD, cache), stats


def _no_routing(segment_BT, replay_BTX) -> RouterStats:
  """The statistics of no expert at all: every sum over experts is zero."""
  zero, none_E = jnp.zeros((), jnp.float32), jnp.zeros(0, jnp.float32)
  return RouterStats(
      mean_prob_LE=none_E, load_LE=none_E, z_L=zero, entropy_L=zero,
      experts_LBTX=jnp.zeros((*segment_BT.shape, 0), jnp.int32),
      disagreement_L=None if replay_BTX is None else zero)


class Transformer(nn.Module):
  """A language model, of mixtures of experts or dense.

  Call it as `model.apply(lora.variables(params), tokens_BT, position_BT,
  segment_BT)`, or with {'params': params} where there is no adapter.
  """
  config: variants.ModelConfig

  @nn.compact
  def __call__(
      self,
      tokens_BT: jax.Array,
      position_BT: jax.Array,
      segment_BT: jax.Array,
      share_BT: jax.Array | None = None,
      cache: attention.KVCache | None = None,
      replay_BTLX: jax.Array | None = None,
      prefix_BT: jax.Array | None = None,
  ) -> ModelOutput:
    """Runs the decoder.

    Args:
      tokens_BT: int32 token ids.
      position_BT: int32 position in the segment; with a cache, also the index
        the token is written to.
      segment_BT: int32; tokens see their own segment only; 0 is padding.
      share_BT: float32 share of each token in the router statistics; None
        stands for 1 / (real tokens at hand).
      cache: keys and values so far; None for training.
      replay_BTLX: experts to route to, as `ops.routes` stores them; None lets
        the routers choose.
      prefix_BT: int32; a segment that a token sees besides its own, 0 for none.
        It stands before the token in its row. Not with a cache.

    Returns:
      The head, routing statistics and the cache with the new tokens in it.
    """
    config = self.config
    x_BTD, stats, cache, embedding = trunk(
        config, tokens_BT, position_BT, segment_BT, share_BT, cache,
        replay_BTLX, prefix_BT)
    tied_VD = nn.meta.unbox(embedding.get_variable('params', 'table')) if (
        config.tied_head) else None
    head = heads.Head(config, name='head')(x_BTD, tied_VD)
    return ModelOutput(head, stats, cache)


def trunk(config: variants.ModelConfig, tokens_BT, position_BT, segment_BT,
          share_BT=None, cache=None, replay_BTLX=None, prefix_BT=None):
  """All of the decoder but its head, within a compact module.

  Arguments as those of `Transformer`.

  Returns:
    x_BTD, routing statistics, the cache, and the embedding.
  """
  if share_BT is None:
    real_BT = (segment_BT > 0).astype(jnp.float32)
    share_BT = real_BT / jnp.maximum(jnp.sum(real_BT), 1.0)
  embedding = heads.Embedding(config, name='embedding')
  x_BTD = embedding(tokens_BT)
  x_BTD = nn.with_logical_constraint(
      x_BTD, ('act_batch', 'act_length', 'act_embed'))

  stack = nn.scan(
      _remat(Block, config.remat),
      variable_axes={'params': 0, lora.COLLECTION: 0},
      split_rngs={'params': True}, in_axes=(0, *[nn.broadcast] * 4, 0),
      length=config.num_layers,
      metadata_params={nn.PARTITION_NAME: 'layers'})
  replay_LBTX = None if replay_BTLX is None else jnp.moveaxis(
      replay_BTLX, 2, 0)
  (x_BTD, cache), stats = stack(config, name='layers')(
      (x_BTD, cache), jnp.arange(config.num_layers), position_BT,
      segment_BT, share_BT, prefix_BT, replay_LBTX)

  x_BTD = layers.RMSNorm(config, config.final_norm_init,
                         name='final_norm')(x_BTD)
  return x_BTD, stats, cache, embedding


def _remat(block, policy: str):
  """Trades memory for a second forward pass, by policy name."""
  policies = dict(full=jax.checkpoint_policies.nothing_saveable,
                  dots=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)
  if policy == 'none':
    return block
  return nn.remat(block, policy=policies[policy], prevent_cse=False)


def abstract_params(model: Transformer):
  """Shapes, dtypes and logical axes of the parameters; no memory is used."""
  tokens_BT = jax.ShapeDtypeStruct((1, 8), jnp.int32)
  return jax.eval_shape(model.init, jax.random.key(0), tokens_BT, tokens_BT,
                        tokens_BT)['params']


def count_params(model: Transformer) -> tuple[int, int]:
  """Parameters in all, and those active for one token.

  A token uses `top_k` of the experts and everything else, the embedding and
  the head included.
  """
  leaves = jax.tree_util.tree_leaves_with_path(
      abstract_params(model),
      is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata))
  config, total, active = model.config, 0, 0
  for path, leaf in leaves:
    names = [key.key for key in path]
    is_expert = names[-2] == 'moe' and names[-1] in ('gate_up', 'down')
    size = leaf.value.size
    total += size
    active += size * config.top_k // config.num_experts if is_expert else size
  return total, active
