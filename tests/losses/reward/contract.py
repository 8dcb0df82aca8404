"""What every reward loss promises, as checks of a module."""
import jax
import jax.numpy as jnp
import numpy as np

from tests.losses import checks
from tests.losses.checks import assert_close
from tests.losses.reward import lists


def draw(module):
  return module.loss, *lists.random()


def there(batch):
  """bool [B, P, C]: the candidates that count."""
  return (np.asarray(batch.rank_BPC) >= 0) & (
      np.asarray(batch.weight_BP) != 0)[..., None]


def check_padding_invisible(module):
  """Rows and places without a list change nothing, whatever is read there."""
  score_BPC, batch = lists.random()
  pad = lambda x, value=0: np.pad(
      x, ((0, 2), (0, 3)) + ((0, 0),) * (x.ndim - 2), constant_values=value)
  wide = jax.tree.map(lambda x: pad(x, 1), batch).replace(
      weight_BP=pad(batch.weight_BP), rank_BPC=pad(batch.rank_BPC, -1))
  assert_close(module.loss(jnp.asarray(pad(score_BPC, 77.0)), wide),
               module.loss(score_BPC, batch))


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
  checks.all_zero(module.loss, score_BPC, batch)


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


CHECKS = checks.of(draw) | {
    'padding': check_padding_invisible,
    'gradient': check_gradient,
    'empty': check_empty_step,
    'candidate_order': check_candidate_order,
    'better_scores_more': check_better_should_score_more,
}
