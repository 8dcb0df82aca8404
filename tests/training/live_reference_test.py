"""Losses on pairs in an update: a live reference, micro-batches, devices."""
import functools
import math

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rljax import losses
from rljax import sharding
from rljax.training import forward
from rljax.training import state as states
from rljax.training import update
from rljax.types import PreferenceBatch
from tests import toys

ROWS, LENGTH, PROMPT = 8, 24, 4
SGD = optax.sgd(0.5)


@functools.cache
def example():
  """A model, a reference that is another one, and eight pairs in eight rows."""
  model, params = toys.model_and_params('tiny')
  reference = jax.tree.map(lambda x: 0.9 * x, params)
  tokens_BT, position_BT, segment_BT = toys.rows(
      [[8 + b % 3, 12 - b % 4] for b in range(ROWS)], LENGTH)
  real_BT = segment_BT > 0
  batch = PreferenceBatch(
      tokens_BT=tokens_BT, position_BT=position_BT, segment_BT=segment_BT,
      pair_BT=real_BT.astype(np.int32),
      chosen_BT=real_BT & (segment_BT % 2 == 1),
      mask_BT=real_BT & (position_BT >= PROMPT),
      weight_BP=np.full((ROWS, 1), 1 / ROWS, np.float32),
      share_BT=real_BT.astype(np.float32) / np.float32(real_BT.sum()),
      ref_logp_BT=None, guide_logp_BT=None, load_BLE=None)
  score = forward.make_score_fn(forward.make_forward(model))
  ref_logp_BT, _, load_LE = score(reference, batch)
  return model, params, reference, batch.replace(
      ref_logp_BT=np.asarray(ref_logp_BT),
      load_BLE=np.broadcast_to(load_LE, (ROWS, *load_LE.shape)))


@functools.cache
def loss_fn(name='tdpo', **hparams):
  objective = losses.get('preference', name, beta=0.5, **hparams)
  return forward.compose(forward.make_forward(example()[0]), objective.loss,
                         entropy_coef=0.05, balance_coef=0.1)


def step(reference, batch, **options):
  """New parameters and metrics of one SGD step from the example's."""
  run = update.make_update_fn(loss_fn(), SGD, takes_reference=True, **options)
  params = states.frozen_copy(example()[1])
  end, metrics = run(states.TrainState(np.int32(0), params, SGD.init(params)),
                     batch, jax.random.key(0), reference)
  return end.params, metrics


class LiveReferenceTest(parameterized.TestCase):

  def test_the_divergence_is_that_of_whole_logits(self):
    model, params, reference, batch = example()
    log_p, log_q = (jax.nn.log_softmax(model.apply(
        {'params': x}, batch.tokens_BT, batch.position_BT,
        batch.segment_BT).logits_BTV) for x in (params, reference))
    kl_BT = jnp.pad(jnp.sum(jnp.exp(log_q) * (log_q - log_p), -1)[:, :-1],
                    ((0, 0), (1, 0)))
    total = lambda inside_BT: float(
        jnp.sum(jnp.where(batch.mask_BT & inside_BT, kl_BT, 0)) / ROWS)
    _, metrics = loss_fn()(params, batch, None, reference)
    np.testing.assert_allclose(metrics['ref_kl_chosen'],
                               total(batch.chosen_BT), rtol=1e-4)
    np.testing.assert_allclose(metrics['ref_kl_rejected'],
                               total(~batch.chosen_BT), rtol=1e-4)
    self.assertGreater(float(metrics['ref_kl_chosen']), 0.01)

  def test_a_policy_that_is_the_reference(self):
    model, params, _, batch = example()
    score = forward.make_score_fn(forward.make_forward(model))
    batch = batch.replace(ref_logp_BT=score(params, batch)[0])
    silent = forward.compose(
        forward.make_forward(model),
        losses.get('preference', 'tdpo').loss)
    loss, metrics = silent(params, batch, None, params)
    self.assertAlmostEqual(float(loss), math.log(2), places=5)
    self.assertAlmostEqual(float(metrics['ref_kl_chosen']), 0, places=5)

  def test_the_reference_is_neither_moved_nor_given_away(self):
    _, params, reference, batch = example()
    before = jax.tree.map(np.array, reference)
    new, metrics = step(reference, batch)
    jax.tree.map(np.testing.assert_array_equal, reference, before)
    self.assertGreater(toys.largest_difference(new, params), 1e-4)
    self.assertTrue(np.isfinite(metrics['loss']))

  def test_the_divergence_moves_the_policy(self):
    # Without its gradient this would be DPO with shifted margins.
    _, params, reference, batch = example()
    tdpo = jax.grad(lambda x: loss_fn(form=1)(x, batch, None, reference)[0])
    still = batch.replace(ref_kl_BT=forward.make_forward(example()[0])(
        params, batch, reference).ref_kl_BT)
    constant = jax.grad(lambda x: loss_fn(form=1)(x, still, None)[0])
    self.assertGreater(toys.largest_difference(
        tdpo(params), constant(params)), 1e-4)

  def test_no_gradient_reaches_the_reference(self):
    _, params, reference, batch = example()
    grads = jax.grad(lambda x: loss_fn()(params, batch, None, x)[0])(reference)
    for leaf in jax.tree.leaves(grads):
      np.testing.assert_array_equal(leaf, 0)

  def test_micro_batches_and_eight_devices_take_the_same_step(self):
    _, params, reference, batch = example()
    want, _ = step(reference, batch)
    parts, _ = step(reference, batch, num_microbatches=4)
    toys.assert_trees_close(parts, want, atol=2e-5)
    mesh = sharding.make_mesh()
    with sharding.use(mesh):
      rows = sharding.batch(mesh)
      at = jax.tree.map(lambda _: sharding.replicated(mesh),
                        states.TrainState(0, params, SGD.init(params)))
      split, _ = step(reference, batch, state_sharding=at, batch_sharding=rows)
    toys.assert_trees_close(split, want, atol=2e-5)

  def test_without_a_reference_it_is_refused(self):
    _, params, _, batch = example()
    with self.assertRaisesRegex(ValueError, 'ref_kl_BT, got none'):
      loss_fn()(params, batch, None)

  def test_a_loss_that_reads_none_gets_none(self):
    _, params, _, batch = example()
    loss, metrics = loss_fn('dpo')(params, batch, None)
    self.assertTrue(np.isfinite(loss))
    # The bonus is on a mean over pairs, sides and tokens.
    self.assertBetween(float(metrics['entropy']), 0.1, math.log(272))


if __name__ == '__main__':
  absltest.main()
