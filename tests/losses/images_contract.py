"""What every discriminator and denoising loss promises: checks of a module."""
import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np

from rljax import losses
from tests.losses import checks
from tests.losses import images

FAMILIES = ('discriminator', 'denoising')
_WEIGHT = (1, 0, 2, 1, 0.5, 0)
_HPARAMS = {'beta': 3.0, 'positive_weight': 2.0}  # nothing is too flat to see


def _gan_rm(logit_B, batch, positive_weight):
  score_B = 1 / (1 + np.exp(-logit_B))
  return -np.sum(batch.weight_B * (
      positive_weight * batch.label_B * np.log(score_B)
      + (1 - batch.label_B) * np.log(1 - score_B)))


def _dpo(error_BG, batch, beta):
  (better_B, worse_B), (ref_better_B, ref_worse_B) = (
      error_BG.T, batch.ref_error_BG.T)
  margin_B = beta / 2 * (worse_B - better_B - ref_worse_B + ref_better_B)
  return np.sum(batch.weight_B * np.log(1 + np.exp(-margin_B)))


def _mse(error_BG, batch):
  return np.sum(batch.weight_B[:, None] * error_BG) / error_BG.shape[1]


# Of each file, in float64.
FORMULAS = {'discriminator.gan_rm': _gan_rm, 'denoising.dpo': _dpo,
            'denoising.mse': _mse}


def name_of(module):
  """'family.name'."""
  return module.__name__.removeprefix('rljax.losses.')


def hparams_of(module, value=None):
  """Values of the hyper-parameters, by name."""
  return {key: _HPARAMS[key] if value is None else value
          for key, parameter in inspect.signature(
              module.loss).parameters.items()
          if parameter.kind is inspect.Parameter.KEYWORD_ONLY}


def draw(module):
  """(loss, x, batch); two of the six rows have no weight."""
  rng = np.random.default_rng(0)
  label_B, logit_B = rng.random(6), rng.normal(size=6)
  noisy = images.noisy(6, weight=_WEIGHT)
  x, batch = {
      'discriminator': (logit_B, images.labelled(label_B, _WEIGHT)),
      'denoising': (noisy.ref_error_BG * (1 + rng.random((6, 2))), noisy),
  }[name_of(module).split('.')[0]]
  loss = functools.partial(module.loss, **hparams_of(module))
  return loss, jnp.asarray(x, jnp.float32), batch


def check_padding_invisible(module):
  """Rows without weight change nothing, whatever they hold."""
  loss, x, batch = draw(module)
  grad_fn = jax.value_and_grad(loss, has_aux=True)
  live_B = np.asarray(batch.weight_B) > 0
  want, want_grad = grad_fn(*jax.tree.map(lambda y: y[live_B], (x, batch)))
  for junk in (np.nan, np.inf, -np.inf, 1e30):
    def spoilt(y, junk=junk):
      live = live_B.reshape(-1, *(1,) * (y.ndim - 1))
      return jnp.where(live, y, jnp.asarray(junk, y.dtype))
    dirty = jax.tree.map(
        lambda y, spoilt=spoilt: spoilt(y) if y.dtype == np.float32 else y,
        batch).replace(weight_B=batch.weight_B)
    got, grad = grad_fn(spoilt(x), dirty)
    checks.assert_close((got, grad[live_B]), (want, want_grad))
    np.testing.assert_array_equal(grad[~live_B], 0.0)


def check_formula(module):
  """Value and gradient are those of the formula in float64."""
  loss, x, batch = draw(module)
  x64, batch64 = jax.tree.map(lambda y: np.asarray(y, np.float64), (x, batch))
  formula = lambda y: FORMULAS[name_of(module)](
      y, batch64, **hparams_of(module))
  size, slope = 1e-6, np.zeros_like(x64)
  for place in np.ndindex(x64.shape):
    step = np.zeros_like(x64)
    step[place] = size
    slope[place] = (formula(x64 + step) - formula(x64 - step)) / (2 * size)
  value, grad = jax.value_and_grad(lambda y: loss(y, batch)[0])(x)
  checks.assert_close((value, grad), (formula(x64), slope))


def check_finite(module):
  """Far from where anything begins, nothing overflows."""
  loss, x, batch = draw(module)
  for scale in (1e4, -1e4, 0.0):
    outcome = jax.value_and_grad(loss, has_aux=True)(scale * x, batch)
    assert all(np.isfinite(y).all() for y in jax.tree.leaves(outcome)), scale


def check_empty_step(module):
  """No row with a weight."""
  loss, x, batch = draw(module)
  checks.all_zero(loss, x, batch.replace(weight_B=0 * batch.weight_B))


def check_hparams(module):
  """Unknown ones are refused, and known ones of -1, 0 or NaN."""
  with np.testing.assert_raises_regex(ValueError, 'no_such.*; use one of'):
    losses.get(*name_of(module).split('.'), no_such=1.0)
  _, x, batch = draw(module)
  for key in hparams_of(module):
    for value in (-1.0, 0.0, np.nan):
      try:
        module.loss(x, batch, **{key: value})
      except ValueError as error:
        assert re.fullmatch(rf'Expected {key} .*, got {value}\. .+\.',
                            str(error)), error
      else:
        raise AssertionError(f'{key}={value} was accepted')


CHECKS = checks.of(draw) | {
    'padding': check_padding_invisible,
    'formula': check_formula,
    'finite': check_finite,
    'empty': check_empty_step,
    'hparams': check_hparams,
}
