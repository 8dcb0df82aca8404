"""Cross entropy of the demonstrated tokens, averaged over those of the step.

  L = -(1/N) Σ_t log π(y_t), over the N target tokens of the step

The mean is over tokens, not over demonstrations, and N is that of the whole
step: a micro-batch with few targets weighs as little as it should.

Reference: DeepSeekMath (arXiv 2402.03300), appendix A.1.1, with the token mean
of the step in place of the mean of each demonstration.
"""
import chex
import jax
import jax.numpy as jnp

from rljax.ops import masking
from rljax.types import SupervisedBatch


def token_weights(mask_BT: jax.Array) -> jax.Array:
  """Weight 1 / (target tokens of the step) on each of them."""
  return masking.uniform_weights(mask_BT)


def loss(
    logp_BT: jax.Array, batch: SupervisedBatch
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over micro-batches."""
  chex.assert_equal_shape([logp_BT, batch.weight_BT])
  chex.assert_type([logp_BT, batch.weight_BT], jnp.float32)
  nll = -masking.weighted_sum(batch.weight_BT, logp_BT)
  return nll, {'nll': nll}
