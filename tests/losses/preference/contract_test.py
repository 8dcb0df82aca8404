"""Every loss on pairs, present or to come, is put through the contract."""
import importlib
import types

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp

from rljax import losses
from rljax.losses import preference
from rljax.losses.preference import dpo
from rljax.ops import pairs
from tests.losses.preference import contract
from tests.losses.preference import golden


class ContractTest(parameterized.TestCase):

  @parameterized.product(name=losses.names('preference'),
                         check=list(contract.CHECKS))
  def test_preference_loss_keeps(self, name, check):
    contract.CHECKS[check](
        importlib.import_module(f'rljax.losses.preference.{name}'))


# Each loss that has one of these says in which range it is.
_OWN_RANGE = {'divergence', 'form', 'label_smoothing', 'length'}
_ANY_SIGN = {'alpha', 'gamma'}


class RangesTest(parameterized.TestCase):

  def numbers(self, name):
    """The hyper-parameters that are no switches."""
    return {key for key, value in losses.get('preference', name).hparams.items()
            if not isinstance(value, bool)}

  @parameterized.parameters(*losses.names('preference'))
  def test_no_number_of_a_loss_is_without_a_range(self, name):
    ranges = [set(preference.POSITIVE), set(preference.NOT_NEGATIVE),
              _OWN_RANGE, _ANY_SIGN]
    for key in self.numbers(name):
      self.assertEqual(sum(key in one for one in ranges), 1, (
          f'{key}: give it a range in rljax/losses/preference/__init__.py, or '
          'list it above'))

  @parameterized.parameters(*losses.names('preference'))
  def test_numbers_out_of_range_are_refused_when_bound(self, name):
    for key in self.numbers(name) - _OWN_RANGE - _ANY_SIGN:
      positive = key in preference.POSITIVE
      bad = (-0.1, -5, float('nan'), float('inf'), '0.1')
      bad += (0, 0.0) if positive else ()
      bad += () if key in preference.OPTIONAL else (None,)
      for value in bad:
        with self.subTest(f'{key}={value}'), self.assertRaisesRegex(
            ValueError, f'Expected {key} .* of the preference loss {name!r}, '
            f'got {value!r}. Correct config.loss'):
          losses.get('preference', name, **{key: value})
      self.assertEqual(losses.get('preference', name, **{
          key: 0.1 if positive else 0.0}).name, name)

  @parameterized.parameters(('simpo', 'gamma'), ('tgdpo', 'alpha'),
                            ('tdpo', 'alpha'))
  def test_other_numbers_may_be_0_or_negative(self, name, key):
    for value in (0.0, -0.5):
      batch = golden.random()
      loss, _ = losses.get('preference', name, **{key: value}).loss(*batch)
      self.assertTrue(jnp.isfinite(loss))


def module(loss, reads=('ref_logp_BT',), doc='A loss.'):
  return types.SimpleNamespace(loss=loss, READS=reads, __doc__=doc)


def _mean_of_what_is_there(logp_BT, batch):
  """A mean over the rows at hand, masked after `exp`, by the padding's id."""
  inside_BT = batch.tokens_BT != 0
  ratio_BT = jnp.exp(logp_BT - batch.ref_logp_BT) * inside_BT
  return -jnp.mean(ratio_BT * jnp.where(batch.chosen_BT, 1.0, -1.0)), {}


def _knows_its_neighbour(logp_BT, batch):
  rho = pairs.log_ratio_sums(logp_BT, batch)
  loss_BP = -jax.nn.log_sigmoid(rho.margin_BP)
  return pairs.outcome(batch, loss_BP + jnp.roll(loss_BP, 1, axis=1), rho)


def _by_counted_ratios(logp_BT, batch):
  """Divides by the log-ratios that are not 0, instead of by the mask."""
  ratio_BT = pairs.log_ratios(logp_BT, batch)
  count = pairs.sums((ratio_BT != 0).astype(jnp.float32), batch)
  mean = pairs.sums(ratio_BT, batch).map(jnp.divide, count)
  return pairs.outcome(batch, -jax.nn.log_sigmoid(mean.margin_BP), mean)


def _divided_by_no_token(logp_BT, batch):
  count = pairs.sums(batch.mask_BT.astype(jnp.float32), batch)
  mean = pairs.sums(logp_BT, batch).map(jnp.divide, count)
  return pairs.outcome(batch, -jax.nn.log_sigmoid(mean.margin_BP), mean)


def _one_less_the_weights(logp_BT, batch):
  rho = pairs.log_ratio_sums(logp_BT, batch)
  loss, metrics = pairs.outcome(batch, rho.margin_BP, rho)
  return 1 - jnp.sum(batch.weight_BP) - loss, metrics


def _naive_logarithm(logp_BT, batch):
  rho = pairs.log_ratio_sums(logp_BT, batch)
  return pairs.outcome(batch, -jnp.log(jax.nn.sigmoid(rho.margin_BP)), rho)


def _live_reference(logp_BT, batch):
  rho = pairs.sums(jnp.where(
      batch.mask_BT, logp_BT - batch.ref_logp_BT, 0.0), batch)
  return pairs.outcome(batch, -jax.nn.log_sigmoid(rho.margin_BP), rho)


class NegativeControl(parameterized.TestCase):
  """The same checks, on losses with the mistakes they are there for."""

  @parameterized.parameters(
      'additive', 'padding', 'ids', 'gradient', 'constants', 'packing',
      'source', 'float32', 'metrics')
  def test_a_loss_with_every_mistake_is_rejected(self, check):
    with self.assertRaises(AssertionError):
      contract.CHECKS[check](module(_mean_of_what_is_there))

  @parameterized.named_parameters(
      ('counted ratios', _by_counted_ratios, 'finite'),
      ('log of a sigmoid', _naive_logarithm, 'finite'),
      ('a neighbour', _knows_its_neighbour, 'packing'),
      ('no token', _divided_by_no_token, 'empty_side'),
      ('no pair', _one_less_the_weights, 'empty'),
      ('a live reference', _live_reference, 'constants'))
  def test_a_known_mistake_is_rejected(self, loss, check):
    contract.check_metrics(module(loss))
    with self.assertRaises(AssertionError):
      contract.CHECKS[check](module(loss))

  @parameterized.parameters((('guide_logp_BT', 'ref_logp_BT'),), ((),))
  def test_reads_that_lie_are_rejected(self, reads):
    contract.check_reads(module(dpo.loss))
    with self.assertRaises((AssertionError, ValueError)):
      contract.check_reads(module(dpo.loss, reads))


if __name__ == '__main__':
  absltest.main()
