"""Arithmetic on arrays of which only some entries mean anything.

Everything here masks what *enters* an operation. Masking what leaves it is not
enough: the derivative of `where(inside, exp(x), 0)` at an outside x that
overflows is 0 · ∞ = NaN, in forward and reverse mode alike.
"""
import chex
import jax
import jax.numpy as jnp


def masked_difference(
    a_BT: jax.Array, b_BT: jax.Array, inside_BT: jax.Array
) -> jax.Array:
  """a - b inside; 0 outside, with gradient 0 there whatever a and b hold."""
  chex.assert_equal_shape([a_BT, b_BT, inside_BT])
  return jnp.where(inside_BT, a_BT - b_BT, 0.0)


def weighted_sum(weight_BT: jax.Array, values_BT: jax.Array) -> jax.Array:
  """Σ weight · values over the entries whose weight is not 0."""
  chex.assert_equal_shape([weight_BT, values_BT])
  return jnp.sum(weight_BT * jnp.where(weight_BT != 0, values_BT, 0.0))


def uniform_weights(mask_BT: jax.Array) -> jax.Array:
  """1 / (number of masked-in entries) on each of them, 0 elsewhere."""
  mask_BT = jnp.asarray(mask_BT, jnp.float32)
  return mask_BT / jnp.maximum(jnp.sum(mask_BT), 1.0)
