"""Every reward loss, present or to come, is put through the contract."""
import importlib
import types

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp

from rljax import losses
from tests.losses.reward import contract


class ContractTest(parameterized.TestCase):

  @parameterized.product(name=losses.names('reward'),
                         check=list(contract.CHECKS))
  def test_reward_loss_keeps(self, name, check):
    contract.CHECKS[check](
        importlib.import_module(f'rljax.losses.reward.{name}'))

  def test_the_family_is_found(self):
    self.assertLessEqual({'bradley_terry', 'gram', 'plackett_luce'},
                         set(losses.names('reward')))


def gap(score_BPC, batch):
  """The score of rank 0 less that of rank 1, masked too late."""
  first_BP = batch.rank_BPC[..., 0] == 0
  gap_BP = score_BPC[..., 0] - score_BPC[..., 1]
  return jnp.where(first_BP, gap_BP, -gap_BP)


def of_loss(loss, doc='Reference: none.'):
  return types.SimpleNamespace(loss=loss, __doc__=doc)


def mean_of_rows(score_BPC, batch):
  return jnp.mean(-jax.nn.log_sigmoid(gap(score_BPC, batch))), {}


def log_of_exp(score_BPC, batch):
  loss_BP = jnp.log(1 + jnp.exp(-gap(score_BPC, batch)))
  return jnp.sum(batch.weight_BP * loss_BP), {}


def first_is_better(score_BPC, batch):
  gap_BP = score_BPC[..., 0] - score_BPC[..., 1]
  here_BP = batch.weight_BP > 0
  loss_BP = -jax.nn.log_sigmoid(jnp.where(here_BP, gap_BP, 0.0))
  return jnp.sum(batch.weight_BP * loss_BP), {'accuracy': jnp.sum(
      batch.weight_BP * (gap_BP >= 0))}


class NegativeControl(parameterized.TestCase):
  """The same checks, on losses with the mistakes they are there for."""

  @parameterized.parameters(
      (mean_of_rows, 'additive'), (mean_of_rows, 'padding'),
      (mean_of_rows, 'empty'), (mean_of_rows, 'float32'),
      (log_of_exp, 'gradient'), (log_of_exp, 'float32'),
      (first_is_better, 'candidate_order'),
      (first_is_better, 'better_scores_more'))
  def test_wrong_loss_is_rejected(self, loss, check):
    with self.assertRaises(AssertionError):
      contract.CHECKS[check](of_loss(loss))

  def test_a_loss_of_nobody_is_rejected(self):
    with self.assertRaises(AssertionError):
      contract.CHECKS['source'](of_loss(mean_of_rows, 'A loss.'))


if __name__ == '__main__':
  absltest.main()
