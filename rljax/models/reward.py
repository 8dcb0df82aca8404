"""A reward model: the decoder with scores in the place of the vocabulary.

  s_j = w_j · RMSNorm(x)

Its parameters are named as a language model's, so that it can start from one.
Several heads are an ensemble on one trunk; they differ by where they start. No
bias: comparisons say nothing of a constant.

Reference: arXiv 2009.01325, §3.4 and appendix B.1, for the start at N(0,
1 / (D + 1)) and the score at the last token; ensembles: arXiv 2310.02743.
"""
from __future__ import annotations

from flax import linen as nn
import jax
import jax.numpy as jnp

from rljax.models import transformer
from rljax.models import variants
from rljax.types import RouterStats

HEAD = 'reward_head'


class RewardModel(nn.Module):
  """Call it as a `Transformer`; position t scores the text up to token t."""
  config: variants.ModelConfig
  num_heads: int = 1

  @nn.compact
  def __call__(self, tokens_BT: jax.Array, position_BT: jax.Array,
               segment_BT: jax.Array, share_BT: jax.Array | None = None,
               prefix_BT: jax.Array | None = None,
               ) -> tuple[jax.Array, RouterStats]:
    """Scores score_BTJ after each token, float32, and routing statistics."""
    x_BTD, stats, _, _ = transformer.trunk(
        self.config, tokens_BT, position_BT, segment_BT, share_BT,
        prefix_BT=prefix_BT)
    return ScoreHead(self.config, self.num_heads, name=HEAD)(x_BTD), stats


class ScoreHead(nn.Module):
  """Vectors to scores, in float32 whatever the model computes in."""
  config: variants.ModelConfig
  num_heads: int

  @nn.compact
  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    init = nn.with_logical_partitioning(_draw, ('embed', None))
    kernel_DJ = self.param('kernel', init,
                           (self.config.model_dim, self.num_heads),
                           jnp.dtype(self.config.param_dtype))
    return jnp.einsum('btd,dj->btj', x_BTD.astype(jnp.float32),
                      kernel_DJ.astype(jnp.float32))


def _draw(key: jax.Array, shape, dtype) -> jax.Array:
  return nn.initializers.normal((shape[0] + 1) ** -0.5)(key, shape, dtype)


def from_language_model(params, num_heads: int, key: jax.Array):
  """Parameters of a reward model that reads as the language model does."""
  table_VD = params['embedding']['table']
  head = {'kernel': _draw(key, (table_VD.shape[-1], num_heads),
                          table_VD.dtype)}
  return {name: part for name, part in params.items() if name != 'head'} | {
      HEAD: head}
