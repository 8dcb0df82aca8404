"""What every policy loss promises, as checks of a module."""
import inspect
import types

import jax
import jax.numpy as jnp
import numpy as np

from rljax.types import PackedRows
from rljax.types import PolicyBatch
from rljax.types import SupervisedBatch
from rljax.types import ValueBatch
from tests.losses import checks


def random_rows(seed=0):
  """6 rows of 8: packed, with holes in the mask, one row empty."""
  rng = np.random.default_rng(seed)
  segment_BT = np.array([
      [1, 1, 1, 1, 5, 5, 5, 0], [2, 2, 2, 2, 2, 2, 2, 2],
      [0, 0, 0, 0, 0, 0, 0, 0], [9, 9, 3, 3, 3, 7, 7, 0],
      [4, 4, 4, 0, 0, 0, 0, 0], [8, 8, 8, 6, 6, 6, 6, 6]], np.int32)
  mask_BT = (segment_BT > 0) & (rng.random(segment_BT.shape) < 0.7)
  return PackedRows(
      # Token 0 occurs inside responses: masks, not ids, say what is padding.
      tokens_BT=rng.integers(0, 2, segment_BT.shape).astype(np.int32),
      position_BT=np.zeros_like(segment_BT), segment_BT=segment_BT,
      mask_BT=mask_BT, response_BT=segment_BT > 0,
      advantage_BT=rng.normal(size=segment_BT.shape).astype(np.float32),
      sampled_logp_BT=np.zeros(segment_BT.shape, np.float32),
      num_responses=np.int32(len(np.unique(segment_BT[mask_BT]))),
      token_budget=32, max_response_length=8)


def make_batch(module, rows, with_reference=True, seed=1):
  """Log-probabilities and the batch of `rows` under the module's weights."""
  rng = np.random.default_rng(seed)
  draw = lambda: jnp.asarray(
      -rng.exponential(size=rows.mask_BT.shape), jnp.float32)
  logp_BT, old_BT, ref_BT = draw(), draw(), draw()
  batch = PolicyBatch(
      tokens_BT=rows.tokens_BT, position_BT=rows.position_BT,
      segment_BT=rows.segment_BT, weight_BT=module.token_weights(rows),
      share_BT=(rows.segment_BT > 0).astype(np.float32),
      advantage_BT=jnp.asarray(rows.advantage_BT), old_logp_BT=old_BT,
      ref_logp_BT=ref_BT if with_reference else None, load_BLE=None,
      # For the losses that tell hinted answers apart.
      guided_BT=rows.segment_BT % 3 == 2,
      gamma_B=jnp.full(len(rows.mask_BT), 0.7, jnp.float32))
  return logp_BT, batch


def as_policy(module):
  """A supervised loss behind the policy signature, for the same checks."""
  def token_weights(rows):
    return module.token_weights(rows.mask_BT)

  def loss(logp_BT, batch):
    return module.loss(logp_BT, SupervisedBatch(
        tokens_BT=batch.tokens_BT, position_BT=batch.position_BT,
        segment_BT=batch.segment_BT, weight_BT=batch.weight_BT,
        share_BT=batch.share_BT, load_BLE=batch.load_BLE))

  return types.SimpleNamespace(
      token_weights=token_weights, loss=loss, __doc__=module.__doc__)


def value_as_policy(module):
  """A critic's loss behind the policy signature, for the same checks.

  The log-probabilities stand for values, the advantages for their targets.
  """
  def loss(value_BT, batch):
    return module.loss(value_BT, ValueBatch(
        tokens_BT=batch.tokens_BT, position_BT=batch.position_BT,
        segment_BT=batch.segment_BT, weight_BT=batch.weight_BT,
        share_BT=batch.share_BT, return_BT=batch.advantage_BT,
        old_value_BT=batch.old_logp_BT, load_BLE=batch.load_BLE))

  return types.SimpleNamespace(
      token_weights=module.token_weights, loss=loss, __doc__=module.__doc__)


def draw(module):
  return module.loss, *make_batch(module, random_rows())


def check_weights(module):
  """Compiled or not, and in whatever order the rows come."""
  order_B = np.array([3, 0, 5, 2, 4, 1])
  rows = random_rows()
  shuffled = jax.tree.map(lambda x: x[order_B] if np.ndim(x) else x, rows)
  with jax.numpy_dtype_promotion('strict'):
    weight_BT = np.asarray(module.token_weights(rows))
    checks.assert_close(jax.jit(module.token_weights)(rows), weight_BT)
  np.testing.assert_array_equal(
      module.token_weights(shuffled), weight_BT[order_B])


def check_padding_invisible(module):
  """Rows and columns of padding change neither weights nor the outcome."""
  rows = random_rows()
  logp_BT, batch = make_batch(module, rows)
  pad = lambda x, value=0: np.pad(
      x, ((0, 2), (0, 3))[:np.ndim(x)], constant_values=value)
  wide_rows = jax.tree.map(lambda x: pad(x) if np.ndim(x) == 2 else x, rows)
  weight_BT = np.asarray(module.token_weights(wide_rows))
  np.testing.assert_allclose(weight_BT, pad(batch.weight_BT), rtol=1e-6)
  np.testing.assert_array_equal(weight_BT[~wide_rows.mask_BT], 0.0)
  # What the model says of padding is arbitrary.
  wide = jax.tree.map(lambda x: jnp.asarray(pad(x, 3)), batch)
  wide = wide.replace(weight_BT=jnp.asarray(weight_BT))
  checks.assert_close(module.loss(jnp.asarray(pad(logp_BT, -2.0)), wide),
                      module.loss(logp_BT, batch))


def check_gradient(module):
  """Finite everywhere; exactly 0 where the weight is, whatever is there."""
  logp_BT, batch = make_batch(module, random_rows())
  inside_BT = np.asarray(batch.weight_BT) > 0
  logp_BT = jnp.where(inside_BT, logp_BT, 200.0)  # exp overflows float32
  (value, metrics), grad_BT = jax.value_and_grad(
      module.loss, has_aux=True)(logp_BT, batch)
  assert all(np.isfinite(x) for x in jax.tree.leaves((value, metrics)))
  assert np.isfinite(grad_BT).all(), grad_BT
  np.testing.assert_array_equal(np.asarray(grad_BT)[~inside_BT], 0.0)
  assert np.abs(np.asarray(grad_BT)[inside_BT]).max() > 0


def check_empty_step(module):
  """No loss token at all: loss, metrics and gradient are 0, not NaN."""
  rows = random_rows()
  rows = rows.replace(mask_BT=np.zeros_like(rows.mask_BT),
                      num_responses=np.int32(0))
  checks.all_zero(module.loss, *make_batch(module, rows))


def check_reference(module):
  """A penalty needs a reference; without a penalty none is needed."""
  if 'kl_coef' not in inspect.signature(module.loss).parameters:
    return
  logp_BT, batch = make_batch(module, random_rows(), with_reference=False)
  value, metrics = module.loss(logp_BT, batch, kl_coef=0.0)
  assert np.isfinite(value) and 'kl' not in metrics
  try:
    module.loss(logp_BT, batch, kl_coef=0.1)
  except ValueError:
    return
  raise AssertionError('kl_coef=0.1 was accepted without a reference')


CHECKS = checks.of(draw) | {
    'weights': check_weights,
    'padding': check_padding_invisible,
    'gradient': check_gradient,
    'empty': check_empty_step,
    'reference': check_reference,
}
