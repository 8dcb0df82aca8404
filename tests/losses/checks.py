"""What the contracts of all families share: checks of a sum over rows.

A loss takes its argument `x` and a batch, rows first in all their arrays.
"""
import jax
import jax.numpy as jnp
import numpy as np


def assert_close(a, b):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(
      x, y, rtol=2e-5, atol=1e-6), a, b)


def additive(loss, x, batch):
  """Loss and metrics of the rows i::n add up to those of all rows."""
  whole = loss(x, batch)
  for n in (2, len(x)):
    parts = [loss(*jax.tree.map(lambda leaf: leaf[i::n], (x, batch)))
             for i in range(n)]
    assert_close(jax.tree.map(lambda *leaves: sum(leaves), *parts), whole)


def compiled_alike(loss, x, batch):
  """jit = eager without promotion; all outcomes are float32 scalars."""
  with jax.numpy_dtype_promotion('strict'):
    x, batch = jax.tree.map(jnp.asarray, (x, batch))
    outcome = loss(x, batch)
    assert_close(jax.jit(loss)(x, batch), outcome)
  for leaf in jax.tree.leaves(outcome):
    assert leaf.shape == () and leaf.dtype == jnp.float32, leaf


def row_order(loss, x, batch):
  """Permuted rows give the same loss and the permuted gradient."""
  order_B = np.random.default_rng(0).permutation(len(x))
  grad_fn = jax.value_and_grad(loss, has_aux=True)
  outcome, grad = grad_fn(jnp.asarray(x), batch)
  assert_close(
      grad_fn(*jax.tree.map(lambda leaf: leaf[order_B], (x, batch))),
      (outcome, grad[order_B]))


def float32(loss, x, batch):
  """Nothing of lower precision is accepted."""
  for dtype in (jnp.bfloat16, jnp.float16):
    try:
      loss(jnp.asarray(x, dtype), batch)
    except (AssertionError, TypeError, ValueError):
      continue
    raise AssertionError(f'{dtype.__name__} was accepted')


def all_zero(loss, x, batch):
  """Loss, metrics and gradient are 0, not NaN: for a batch of nothing."""
  outcome, grad = jax.value_and_grad(loss, has_aux=True)(x, batch)
  for leaf in (*jax.tree.leaves(outcome), grad):
    np.testing.assert_array_equal(leaf, 0.0)


def source(module):
  assert 'Reference:' in (module.__doc__ or ''), 'no source is cited'


def of(draw):
  """These checks of a module by name; `draw(module)` -> (loss, x, batch)."""
  of_rows = {'additive': additive, 'jit': compiled_alike,
             'row_order': row_order, 'float32': float32}
  drawn = lambda check: lambda module: check(*draw(module))
  return {'source': source} | {
      name: drawn(check) for name, check in of_rows.items()}
