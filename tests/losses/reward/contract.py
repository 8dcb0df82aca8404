"""What every reward loss promises, as checks of a module."""
import jax
import jax.numpy as jnp
import numpy as np

from tests.losses.reward import lists


def assert_close(a, b):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(
      x, y, rtol=2e-5, atol=1e-6), a, b)


def there(batch):
  """bool [B, P, C]: the candidates that count."""
  return (np.asarray(batch.rank_BPC) >= 0) & (
      np.asarray(batch.weight_BP) != 0)[..., None]


def check_additive(module):
  """Loss and metrics of the rows i::n add up to those of all rows."""
  score_BPC, batch = lists.random()
  whole = module.loss(score_BPC, batch)
  for n in (2, 3):
    parts = [module.loss(*jax.tree.map(lambda x: x[i::n], (score_BPC, batch)))
             for i in range(n)]
    assert_close(jax.tree.map(lambda *x: sum(x), *parts), whole)


def check_padding_invisible(module):
  """Rows and places without a list change nothing, whatever is read there."""
  score_BPC, batch = lists.random()
  pad = lambda x, value=0: np.pad(
      x, ((0, 2), (0, 3)) + ((0, 0),) * (x.ndim - 2), constant_values=value)
  wide = jax.tree.map(lambda x: pad(x, 1), batch).replace(
      weight_BP=pad(batch.weight_BP), rank_BPC=pad(batch.rank_BPC, -1))
  assert_close(module.loss(jnp.asarray(pad(score_BPC, 77.0)), wide),
               module.loss(score_BPC, batch))


def check_jit_equals_eager(module):
  with jax.numpy_dtype_promotion('strict'):
    arguments = jax.tree.map(jnp.asarray, lists.random())
    outcome = module.loss(*arguments)
    assert_close(jax.jit(module.loss)(*arguments), outcome)
    for leaf in jax.tree.leaves(outcome):
      assert leaf.shape == () and leaf.dtype == jnp.float32, leaf


def check_gradient(module):
  """Finite for any gap; exactly 0 where no candidate is, whatever is there."""
  score_BPC, batch = lists.random()
  inside_BPC = there(batch)
  for scale, outside in ((1.0, np.nan), (1e4, np.inf), (-1e4, -np.inf)):
    far_BPC = jnp.where(inside_BPC, scale * score_BPC, outside)
    outcome, grad_BPC = jax.value_and_grad(
        module.loss, has_aux=True)(far_BPC, batch)
    assert all(np.isfinite(x) for x in jax.tree.leaves(outcome)), outcome
    assert np.isfinite(grad_BPC).all(), grad_BPC
    np.testing.assert_array_equal(np.asarray(grad_BPC)[~inside_BPC], 0.0)
    assert np.abs(np.asarray(grad_BPC)[inside_BPC]).max() > 0


def check_empty_step(module):
  """No list at all: loss, metrics and gradient are 0, not NaN."""
  score_BPC, batch = lists.random()
  batch = batch.replace(weight_BP=np.zeros_like(batch.weight_BP),
                        rank_BPC=np.full_like(batch.rank_BPC, -1))
  outcome, grad_BPC = jax.value_and_grad(module.loss, has_aux=True)(
      score_BPC, batch)
  for leaf in (*jax.tree.leaves(outcome), grad_BPC):
    np.testing.assert_array_equal(leaf, 0.0)


def check_row_order(module):
  """Permuted rows give the same loss and the permuted gradient."""
  order_B = np.array([3, 0, 5, 2, 4, 1])
  score_BPC, batch = lists.random()
  grad_fn = jax.grad(lambda x, b: module.loss(x, b)[0])
  shuffled = jax.tree.map(lambda x: x[order_B], batch)
  assert_close(module.loss(score_BPC[order_B], shuffled),
               module.loss(score_BPC, batch))
  assert_close(grad_fn(score_BPC[order_B], shuffled),
               grad_fn(score_BPC, batch)[order_B])


def check_candidate_order(module):
  """Which side a candidate stands on says nothing of its rank."""
  score_BPC, batch = lists.random()
  swapped = batch.replace(rank_BPC=batch.rank_BPC[..., ::-1],
                          read_BPC=batch.read_BPC[..., ::-1])
  assert_close(module.loss(score_BPC[..., ::-1], swapped),
               module.loss(score_BPC, batch))


def check_better_should_score_more(module):
  """A step against the gradient parts the two of a pair that score alike."""
  score_BPC, batch = lists.pair(0.0, better=1)
  grad_BPC = jax.grad(lambda x: module.loss(x, batch)[0])(score_BPC)
  assert grad_BPC[0, 0, 1] < 0 < grad_BPC[0, 0, 0], grad_BPC
  loss, metrics = module.loss(score_BPC, batch)
  np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
  assert metrics['accuracy'] == 0.0, 'a tie counts as right'


def check_source(module):
  assert 'Reference:' in (module.__doc__ or ''), 'no source is cited'


def check_float32(module):
  score_BPC, batch = lists.random()
  for dtype in (jnp.bfloat16, jnp.float16):
    try:
      module.loss(jnp.asarray(score_BPC, dtype), batch)
    except (AssertionError, TypeError, ValueError):
      continue
    raise AssertionError(f'{dtype.__name__} was accepted')


CHECKS = {
    'additive': check_additive,
    'padding': check_padding_invisible,
    'jit': check_jit_equals_eager,
    'gradient': check_gradient,
    'empty': check_empty_step,
    'row_order': check_row_order,
    'candidate_order': check_candidate_order,
    'better_scores_more': check_better_should_score_more,
    'source': check_source,
    'float32': check_float32,
}
