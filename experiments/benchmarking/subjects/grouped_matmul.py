"""Products of rows with the matrix of their expert, forward and backward.

The block kernel against `jax.lax.ragged_dot`, and as `even` what a batched
product of as many rows takes, spread evenly as no real routing is. The limit is
the time of the three products at the rate of one large one.
"""
from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from rljax.ops import grouped_matmul


def run(interleaved, smoke: bool, team) -> list[dict]:
  del team  # all in this process
  sizes = [(512, 32, 64, 4)] if smoke else [
      (8_192, 256, 1_024, experts) for experts in (8, 16, 64)]
  return [measure(interleaved, *size) for size in sizes]


def measure(interleaved, num_rows: int, width: int, hidden: int,
            num_experts: int) -> dict:
  """Milliseconds of a product and its two gradients, fp32."""
  rng = np.random.default_rng(0)
  x_AD = jnp.asarray(rng.normal(size=(num_rows, width)), jnp.float32)
  w_EDF = jnp.asarray(rng.normal(size=(num_experts, width, hidden)),
                      jnp.float32)
  counts_E = jnp.asarray(np.bincount(
      rng.choice(num_experts, num_rows, p=rng.dirichlet([8] * num_experts)),
      minlength=num_experts), jnp.int32)

  def grads(product):
    # The product comes back as well: XLA would not compute it for a sum.
    def loss(x, w):
      y = product(x, w)
      return jnp.sum(y * y), y
    run = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    return lambda: run(x_AD, w_EDF)

  kernel = lambda name: functools.partial(
      lambda x, w: grouped_matmul.grouped_matmul(x, w, counts_E, name))
  even = lambda x, w: jnp.einsum(
      'end,edf->enf', x.reshape(num_experts, -1, width), w)
  block, ragged = grads(kernel('block')), grads(kernel('ragged'))
  for a, b in zip(jax.tree.leaves(block()), jax.tree.leaves(ragged()),
                  strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-2)
  size = 64 if num_rows < 1_000 else 3_072
  large = jnp.asarray(rng.normal(size=(size, size)), jnp.float32)
  multiply = jax.jit(jnp.matmul)
  found = interleaved({'block': block, 'ragged': ragged, 'even': grads(even),
                       'large': lambda: multiply(large, large)}, rounds=5)
  milliseconds = {name: 1e3 * seconds for name, seconds in found.items()}
  large_products = 3 * num_rows * width * hidden / size**3
  return dict(
      row='grouped_matmul', higher_is_better=False,
      metric=f'ms, {num_rows} x {width} by {num_experts} x {width} x {hidden}, '
      'forward and backward', rljax=milliseconds['block'],
      peers={'ragged_dot': milliseconds['ragged']}, even=milliseconds['even'],
      limit=large_products * milliseconds['large'])
