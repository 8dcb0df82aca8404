"""Every loss on images, present or to come, is put through the contract."""
import importlib
import types

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp

from rljax import losses
from tests.losses import images_contract as contract

NAMES = [f'{family}.{name}' for family in contract.FAMILIES
         for name in losses.names(family)]


class ContractTest(parameterized.TestCase):

  @parameterized.product(name=NAMES, check=list(contract.CHECKS))
  def test_loss_keeps(self, name, check):
    contract.CHECKS[check](importlib.import_module(f'rljax.losses.{name}'))

  def test_every_file_has_a_formula(self):
    self.assertSameElements(NAMES, contract.FORMULAS)


def _mean_of_scores(logit_B, batch, *, positive_weight=1.0):
  """GAN-RM as a mean, masked after the logarithm; any number, any dtype."""
  loss_B = -(positive_weight * batch.label_B * jnp.log(jax.nn.sigmoid(logit_B))
             + (1 - batch.label_B) * jnp.log(jax.nn.sigmoid(-logit_B)))
  return jnp.mean(batch.weight_B * loss_B), {'score': logit_B}


def _better_alone(error_BG, batch, *, beta=1.0):
  """Diffusion-DPO without the worse image, as a mean of what is there."""
  margin_B = beta * (batch.ref_error_BG - error_BG)[:, 0]
  return jnp.mean(-jnp.log(jax.nn.sigmoid(margin_B))), {'margin': margin_B}


class NegativeControl(parameterized.TestCase):
  """The same checks, on a loss of each family with the mistakes in question."""

  @parameterized.product(
      wrong=[('discriminator.gan_rm', _mean_of_scores),
             ('denoising.dpo', _better_alone)],
      check=['additive', 'jit', 'float32', 'source', 'padding', 'formula',
             'finite', 'empty', 'hparams'])
  def test_wrong_loss_is_rejected(self, wrong, check):
    name, loss = wrong
    with self.assertRaises(AssertionError):
      contract.CHECKS[check](types.SimpleNamespace(
          __name__=f'rljax.losses.{name}', __doc__='A loss.', loss=loss))


if __name__ == '__main__':
  absltest.main()
