"""The shared checks, on a right loss and on ones with a mistake each."""
import types

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from tests.losses import checks

TRACER = jax.errors.TracerBoolConversionError
PROMOTION = jax.dtypes.TypePromotionError


def weighted(change=lambda x_B: x_B, total=jnp.sum):
  """A loss without a mistake, but for what is asked."""
  def loss(x_B, weight_B):
    chosen = total(weight_B * change(x_B))
    return chosen, {'sum': jnp.sum(weight_B * x_B)}
  return loss


def right(x_B, weight_B):
  assert x_B.dtype == jnp.float32, x_B.dtype
  return weighted()(x_B, weight_B)


def with_lowest(x_B, weight_B):
  return right(x_B, weight_B)[0], {'lowest': jnp.min(weight_B * x_B)}


MISTAKES = (
    ('a mean', 'additive', AssertionError, weighted(total=jnp.mean)),
    ('a metric that is no sum', 'additive', AssertionError, with_lowest),
    ('any dtype', 'float32', AssertionError, weighted()),
    ('knows its row', 'row_order', AssertionError,
     weighted(lambda x_B: x_B * (jnp.arange(len(x_B)) == 0))),
    ('knows its neighbour', 'row_order', AssertionError,
     weighted(lambda x_B: x_B * jnp.roll(x_B, 1))),
    ('branches on a value', 'jit', TRACER,
     weighted(total=lambda x_B: x_B.sum() if x_B.sum() > 0 else -x_B.sum())),
    ('promotes a type', 'jit', PROMOTION,
     weighted(lambda x_B: x_B * jnp.ones((), jnp.bfloat16))),
    ('is no scalar', 'jit', AssertionError,
     weighted(total=lambda x_B: jnp.sum(x_B)[None])),
    ('differs when traced', 'jit', AssertionError,
     weighted(lambda x_B: x_B * (
         2.0 if isinstance(x_B, jax.core.Tracer) else 1.0))))


class ChecksTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.arguments = [jnp.asarray(rng.random(6), jnp.float32) for _ in 'xw']
    self.checks = checks.of(lambda module: (module.loss, *self.arguments))

  @parameterized.named_parameters(*MISTAKES)
  def test_a_mistake_is_rejected(self, check, error, loss):
    self.checks[check](types.SimpleNamespace(loss=right))
    with self.assertRaises(error):
      self.checks[check](types.SimpleNamespace(loss=loss))

  def test_a_source_must_be_cited(self):
    self.checks['source'](types.SimpleNamespace(__doc__='Reference: a paper.'))
    with self.assertRaisesRegex(AssertionError, 'no source'):
      self.checks['source'](types.SimpleNamespace(__doc__='A loss.'))

  def test_a_constant_without_a_row_is_rejected(self):
    x_B, weight_B = self.arguments
    checks.all_zero(right, x_B, 0 * weight_B)
    with self.assertRaises(AssertionError):
      checks.all_zero(lambda x_B, weight_B: (1 - jnp.sum(weight_B), {}),
                      x_B, 0 * weight_B)


if __name__ == '__main__':
  absltest.main()
