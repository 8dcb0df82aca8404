"""Diffusion-DPO: a preference between two images as one between two errors.

  L = -Σ w log σ(-β/2 (d - d_ref)),  d = mse(x_w) - mse(x_l)

Both images are under the same noise at the same time, or the difference would
be that of two noises. The mse is a mean over dimensions: β belongs to that, and
would be smaller by their number for a sum.

Reference: Diffusion-DPO (arXiv 2311.12908), eq. 14 and the authors' train.py,
whose β is 5000.
"""
import chex
import jax
import jax.numpy as jnp

from rljax.ops import masking
from rljax.types import DenoisingBatch


def loss(
    error_BG: jax.Array,
    batch: DenoisingBatch,
    *,
    beta: float = 5_000.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over rows.

  Args:
    error_BG: mean squared error of the better and the worse image.
    batch: weights, and the errors of the reference.
    beta: β, above 0.

  Raises:
    ValueError: no pairs, no reference, or a β out of range.
  """
  chex.assert_type(error_BG, jnp.float32)
  if not beta > 0:
    raise ValueError(f'Expected beta > 0, got {beta}. Correct config.loss.')
  if error_BG.shape[1] != 2 or batch.ref_error_BG is None:
    raise ValueError(
        'Expected the errors of two images a row and those of a reference, got '
        f'{error_BG.shape[1]} and '
        f'{"none" if batch.ref_error_BG is None else "a reference"}. Build '
        'pairs and score them, or choose the loss mse.')
  chex.assert_equal_shape([error_BG, batch.ref_error_BG])
  change_BG = error_BG - jax.lax.stop_gradient(batch.ref_error_BG)
  change_BG = jnp.where(batch.weight_B[:, None] > 0, change_BG, 0.0)
  margin_B = -0.5 * beta * (change_BG[:, 0] - change_BG[:, 1])
  total = lambda x_B: masking.weighted_sum(batch.weight_B, x_B)
  metrics = {
      'reward_margin': total(margin_B),
      'reward_accuracy': total((margin_B > 0).astype(jnp.float32)),
      'error_chosen': total(error_BG[:, 0]),
      'error_rejected': total(error_BG[:, 1])}
  return -total(jax.nn.log_sigmoid(margin_B)), jax.lax.stop_gradient(metrics)
