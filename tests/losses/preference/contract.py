"""What every preference loss promises, as checks of a module."""
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np

from tests.losses import checks
from tests.losses.checks import assert_close
from tests.losses.preference import golden

METRICS = ('reward_chosen', 'reward_rejected', 'reward_margin',
           'reward_accuracy')


def loss_of(module):
  """The loss at a β of which nothing is too flat to see."""
  return functools.partial(module.loss, **(
      {'beta': golden.BETA} if 'beta' in inspect.signature(
          module.loss).parameters else {}))


def draw(module):
  return loss_of(module), *golden.random()


def value_and_grad(module, logp_BT, batch):
  return jax.value_and_grad(loss_of(module), has_aux=True)(logp_BT, batch)


def fields(change, batch):
  """The batch with its token fields changed; those by row or pair stay."""
  return jax.tree.map(
      lambda x: change(x) if x.shape == batch.mask_BT.shape else x, batch)


def check_padding_invisible(module):
  """More rows, positions and places for pairs change nothing."""
  logp_BT, batch = golden.random()
  pad = lambda x, value: jnp.pad(
      x, ((0, 2), (0, 3))[:x.ndim], constant_values=value)
  wide = jax.tree.map(lambda x: pad(jnp.asarray(x), 0), batch)
  # What the models say of padding, and the ids there, are arbitrary.
  wide = wide.replace(**{name: pad(jnp.asarray(getattr(batch, name)), 3)
                         for name in ('tokens_BT', 'ref_logp_BT',
                                      'guide_logp_BT', 'ref_kl_BT')})
  assert_close(loss_of(module)(pad(logp_BT, -2.0), wide),
               loss_of(module)(logp_BT, batch))


def check_ids_mean_nothing(module):
  """Masks alone say what counts: token 0 is a token like any other."""
  logp_BT, batch = golden.random()
  for tokens_BT in (np.zeros_like(batch.tokens_BT), 7 + batch.tokens_BT):
    assert_close(loss_of(module)(logp_BT, batch.replace(tokens_BT=tokens_BT)),
                 loss_of(module)(logp_BT, batch))


def check_gradient(module):
  """Of all response tokens, and of nothing else, whatever is there."""
  logp_BT, batch = golden.random()
  (want, _), grad_BT = value_and_grad(module, logp_BT, batch)
  for junk in (jnp.nan, 200.0):
    spoilt = lambda x: jnp.where(batch.mask_BT, x, junk)
    dirty = batch.replace(**{
        name: spoilt(getattr(batch, name))
        for name in ('ref_logp_BT', 'guide_logp_BT', 'ref_kl_BT')})
    (got, metrics), dirty_BT = value_and_grad(module, spoilt(logp_BT), dirty)
    assert all(np.isfinite(x) for x in metrics.values()), metrics
    np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_allclose(dirty_BT, grad_BT, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(dirty_BT)[~batch.mask_BT], 0)
  assert np.abs(np.asarray(grad_BT)[batch.mask_BT]).min() > 0


def check_constants(module):
  """Reference, guide and estimate are constants: no gradient reaches them."""
  logp_BT, batch = golden.random()
  names = ('ref_logp_BT', 'guide_logp_BT', 'kl_B')
  grads = jax.grad(lambda given: loss_of(module)(
      logp_BT, batch.replace(**given))[0])(
          {name: getattr(batch, name) for name in names})
  for name, grad in grads.items():
    np.testing.assert_array_equal(grad, 0, name)


def check_finite(module):
  """Log-ratios of thousands of nats, of none, and almost certain responses."""
  logp_BT, batch = golden.random()
  for scale in (1e3, -1e3, 0.0, 1e-7):
    far_BT = jnp.minimum(scale * jnp.where(batch.chosen_BT, -1.0, 1.0), 0.0)
    out, grad_BT = value_and_grad(module, far_BT, batch)
    assert all(np.isfinite(x) for x in jax.tree.leaves(out)), (scale, out)
    assert np.isfinite(grad_BT).all(), scale
  # A policy that is its reference: every log-ratio is 0.
  out, grad_BT = value_and_grad(module, batch.ref_logp_BT, batch)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves((out, grad_BT)))


def check_empty_step(module):
  """No pair at all: loss, metrics and gradient are 0, not NaN."""
  logp_BT, batch = golden.random()
  nothing = lambda x: np.zeros_like(x)
  batch = batch.replace(
      mask_BT=nothing(batch.mask_BT), pair_BT=nothing(batch.pair_BT),
      segment_BT=nothing(batch.segment_BT),
      weight_BP=nothing(batch.weight_BP))
  checks.all_zero(loss_of(module), logp_BT, batch)


def check_empty_side(module):
  """A side that truncation left without a token is no division by zero."""
  logp_BT, batch = golden.random()
  batch = batch.replace(mask_BT=batch.mask_BT & batch.chosen_BT)
  out, grad_BT = value_and_grad(module, logp_BT, batch)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves((out, grad_BT)))


def check_packing(module):
  """A pair says the same in a row of its own and beside another one."""
  logp_BT, batch = golden.random()
  first_BT = batch.pair_BT <= 1
  alone = lambda keep_BT, number: batch.replace(
      mask_BT=batch.mask_BT & keep_BT,
      segment_BT=np.where(keep_BT, batch.segment_BT, 0),
      pair_BT=np.where(keep_BT & (batch.pair_BT > 0), 1, 0).astype(np.int32),
      weight_BP=batch.weight_BP[:, number:number + 1])
  parts = [loss_of(module)(logp_BT, alone(first_BT, 0)),
           loss_of(module)(logp_BT, alone(~first_BT, 1))]
  assert_close(jax.tree.map(jnp.add, *parts), loss_of(module)(logp_BT, batch))


def check_float32(module):
  """Of a whole step: beside a float32 reference, bfloat16 is promoted."""
  loss, logp_BT, batch = draw(module)
  for dtype in (jnp.bfloat16, jnp.float16):
    low = jax.tree.map(lambda x, dtype=dtype: (
        x.astype(dtype) if x.dtype == np.float32 else x), batch)
    try:
      loss(logp_BT.astype(dtype), low)
    except (AssertionError, TypeError, ValueError):
      continue
    raise AssertionError(f'{dtype.__name__} was accepted')


def check_reads(module):
  """What READS names is asked for, and nothing else is needed."""
  logp_BT, batch = golden.random()
  reads = getattr(module, 'READS', ())
  for name in ('ref_logp_BT', 'guide_logp_BT', 'kl_B', 'ref_kl_BT'):
    without = batch.replace(**{name: None})
    if name not in reads:
      assert_close(loss_of(module)(logp_BT, without),
                   loss_of(module)(logp_BT, batch))
      continue
    try:
      loss_of(module)(logp_BT, without)
    except ValueError as error:
      assert ', got ' in str(error), error
    else:
      raise AssertionError(f'{name} is in READS, but its lack was accepted')


def check_metrics(module):
  """Both rewards, not the margin alone: both may fall while it grows."""
  _, metrics = loss_of(module)(*golden.random())
  assert set(METRICS) <= set(metrics), metrics
  np.testing.assert_allclose(
      metrics['reward_margin'],
      metrics['reward_chosen'] - metrics['reward_rejected'], atol=1e-5)


CHECKS = checks.of(draw) | {
    'padding': check_padding_invisible,
    'ids': check_ids_mean_nothing,
    'gradient': check_gradient,
    'constants': check_constants,
    'finite': check_finite,
    'empty': check_empty_step,
    'empty_side': check_empty_side,
    'packing': check_packing,
    'float32': check_float32,
    'reads': check_reads,
    'metrics': check_metrics,
}
