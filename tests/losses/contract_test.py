"""Every loss, present or to come, is put through its family's contract."""
import functools
import importlib
import pkgutil
import types

from absl.testing import absltest
from absl.testing import parameterized
import jax.numpy as jnp

from rljax.losses import policy
from rljax.losses import supervised
from rljax.losses import value
from rljax.losses.policy import reinforce
from rljax.losses.supervised import cross_entropy
from rljax.losses.value import clipped
from tests.losses import contract


def names(package):
  return [m.name for m in pkgutil.iter_modules(package.__path__)]


class ContractTest(parameterized.TestCase):

  @parameterized.product(name=names(policy), check=list(contract.CHECKS))
  def test_policy_loss_keeps(self, name, check):
    contract.CHECKS[check](
        importlib.import_module(f'rljax.losses.policy.{name}'))

  @parameterized.product(
      name=names(supervised),
      check=[c for c in contract.CHECKS if c != 'reference'])
  def test_supervised_loss_keeps(self, name, check):
    contract.CHECKS[check](contract.as_policy(
        importlib.import_module(f'rljax.losses.supervised.{name}')))

  @parameterized.product(
      name=names(value),
      check=[c for c in contract.CHECKS if c != 'reference'])
  def test_value_loss_keeps(self, name, check):
    contract.CHECKS[check](contract.value_as_policy(
        importlib.import_module(f'rljax.losses.value.{name}')))


def _wrong_token_weights(rows):
  return jnp.asarray(rows.mask_BT, jnp.float32)


def _wrong_loss(logp_BT, batch, *, kl_coef=0.0):
  """A mean over the micro-batch, masked after `exp`; any dtype, any source."""
  ratio_BT = jnp.where(
      batch.weight_BT > 0, jnp.exp(logp_BT - batch.old_logp_BT), 0.0)
  return -jnp.mean(ratio_BT * batch.advantage_BT) + kl_coef, {}


class NegativeControl(parameterized.TestCase):
  """The same checks, on a loss with the mistakes they are there for."""

  @parameterized.parameters(
      'additive', 'padding', 'gradient', 'source', 'float32', 'reference')
  def test_wrong_loss_is_rejected(self, check):
    wrong = types.SimpleNamespace(
        token_weights=_wrong_token_weights, loss=_wrong_loss, __doc__='A loss.')
    with self.assertRaises(AssertionError):
      contract.CHECKS[check](wrong)

  def test_masked_mean_of_the_micro_batch_is_rejected(self):
    # Padding cannot be seen in this one; only the sum over rows gives it away.
    def loss(logp_BT, batch):
      weight_BT = batch.weight_BT
      count = jnp.maximum(jnp.sum(weight_BT > 0), 1)
      return -jnp.sum(jnp.where(weight_BT > 0, logp_BT, 0.0)) / count, {}

    wrong = types.SimpleNamespace(
        token_weights=_wrong_token_weights, loss=loss)
    contract.check_padding_invisible(wrong)
    with self.assertRaises(AssertionError):
      contract.CHECKS['additive'](wrong)

  def test_weights_that_count_padding_are_rejected(self):
    def token_weights(rows):
      return jnp.asarray(rows.mask_BT, jnp.float32) / rows.mask_BT.size

    wrong = types.SimpleNamespace(
        token_weights=token_weights,
        loss=functools.partial(reinforce.loss, kl_coef=0.0))
    with self.assertRaises(AssertionError):
      contract.check_padding_invisible(wrong)

  def test_a_mean_over_nothing_is_rejected(self):
    def token_weights(rows):
      mask_BT = jnp.asarray(rows.mask_BT, jnp.float32)
      return mask_BT / jnp.sum(mask_BT)

    wrong = types.SimpleNamespace(
        token_weights=token_weights,
        loss=functools.partial(reinforce.loss, kl_coef=0.0))
    contract.CHECKS['additive'](wrong)
    with self.assertRaises(AssertionError):
      contract.check_empty_step(wrong)

  def test_weights_that_know_their_row_are_rejected(self):
    def token_weights(rows):
      weight_BT = jnp.asarray(rows.mask_BT, jnp.float32)
      return weight_BT / jnp.arange(1.0, 1.0 + len(weight_BT))[:, None]

    wrong = types.SimpleNamespace(
        token_weights=token_weights,
        loss=functools.partial(reinforce.loss, kl_coef=0.0))
    contract.CHECKS['additive'](wrong)
    with self.assertRaises(AssertionError):
      contract.check_weights(wrong)

  @parameterized.parameters('additive', 'padding', 'gradient', 'source')
  def test_wrong_supervised_loss_is_rejected(self, check):
    # The mean of whatever rows it is given, targets or not.
    wrong = types.SimpleNamespace(
        token_weights=cross_entropy.token_weights,
        loss=lambda logp_BT, batch: (-jnp.mean(logp_BT), {}),
        __doc__='A loss.')
    with self.assertRaises(AssertionError):
      contract.CHECKS[check](contract.as_policy(wrong))

  @parameterized.parameters('additive', 'padding', 'gradient', 'source')
  def test_wrong_value_loss_is_rejected(self, check):
    # The mean of whatever rows it is given.
    wrong = types.SimpleNamespace(
        token_weights=clipped.token_weights,
        loss=lambda value_BT, batch: (
            jnp.mean(jnp.square(value_BT - batch.return_BT)), {}),
        __doc__='A loss.')
    with self.assertRaises(AssertionError):
      contract.CHECKS[check](contract.value_as_policy(wrong))


if __name__ == '__main__':
  absltest.main()
