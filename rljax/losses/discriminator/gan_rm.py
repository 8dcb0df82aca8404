"""GAN-RM: binary cross-entropy against soft labels, on frozen features.

  L = -Σ w (y log σ(s) + (1 - y) log σ(-s)),  R = σ(s)

y is 1 for a target, 0 for an ordinary output of the generator, and exp(-α r)
for the output that an earlier fit ranked r-th. The minimum is at σ(s) = y, and
the slope σ(s) - y. With equal weights on both sides, s is log p_target / p_gen;
other shares of the sides add a constant and leave the ranking alone.

No min-max game is played: the generator is trained afterwards, on what this
ranks best. The reward learns what tells the targets from the outputs, their
content or any other mark they share.

Reference: GAN-RM (arXiv 2506.13846), of which abstract, a caption and reviews
are public, and no code.

Differs from the paper:

            paper                        ours
  loss      cross-entropy                with soft labels and weights
  encoder   CLIP's vision tower, frozen  any, by a function; features scaled to
                                         entries of size 1
  head      an MLP                       its sizes; starts at R = 1/2
  prompts   not seen                     not seen; `conditioned` as an extension
"""
import chex
import jax
import jax.numpy as jnp

from rljax.ops import masking
from rljax.types import DiscriminatorBatch


def loss(
    logit_B: jax.Array,
    batch: DiscriminatorBatch,
    *,
    positive_weight: float = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over rows.

  Args:
    logit_B: s of each image.
    batch: labels and weights.
    positive_weight: of the target's term, over that of the other; above 0.

  Raises:
    ValueError: a weight out of range.
  """
  if not positive_weight > 0:
    raise ValueError(f'Expected positive_weight > 0, got {positive_weight}. '
                     'Correct config.loss.')
  chex.assert_equal_shape([logit_B, batch.label_B, batch.weight_B])
  chex.assert_type([logit_B, batch.label_B, batch.weight_B], jnp.float32)
  label_B = batch.label_B
  logit_B = jnp.where(batch.weight_B > 0, logit_B, 0.0)
  loss_B = -(positive_weight * label_B * jax.nn.log_sigmoid(logit_B)
             + (1 - label_B) * jax.nn.log_sigmoid(-logit_B))
  total = lambda x_B: masking.weighted_sum(batch.weight_B, x_B)
  right_B = ((logit_B > 0) == (label_B > 0.5)).astype(jnp.float32)
  metrics = {'accuracy': total(right_B),
             'score': total(jax.nn.sigmoid(logit_B))}
  return total(loss_B), jax.lax.stop_gradient(metrics)
