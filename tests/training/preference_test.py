"""Frozen models beside a policy: who needs them, and what a batch gets."""
import math

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rljax import losses
from rljax.training import forward
from rljax.training import preference
from rljax.training import state
from rljax.training import update
from tests import toys
from tests.losses.preference import golden
from tests.training import pairs_test

LAYOUT = preference.Layout(8, pairs_test.ROW, 4, 2, True)
NEITHER = ('simpo', 'orpo', 'cpo')


def scorer(step):
  return forward.make_score_fn(forward.make_forward(step.model),
                               num_microbatches=LAYOUT.num_microbatches)


def kept(params, score):
  pairs = pairs_test.pairs()
  # Scored in twos, as other rows with other neighbours.
  values = [sides for i in range(0, len(pairs), 2)
            for sides in preference.score_pairs(score, params, LAYOUT,
                                                pairs[i:i + 2])]
  return dict(zip([p.id for p in pairs], values, strict=True))


class NeedsTest(parameterized.TestCase):

  @parameterized.parameters(*losses.names('preference'))
  def test_a_loss_is_asked(self, name):
    loss = losses.get('preference', name).loss
    wanted = preference.needs(loss)
    self.assertEqual('reference' in wanted, name not in NEITHER)
    self.assertEqual('guide' in wanted, name == 'tgdpo')

  def test_a_wrong_hyper_parameter_is_not_taken_for_a_need(self):
    loss = losses.get('preference', 'dpo', label_smoothing=3.0).loss
    with self.assertRaisesRegex(ValueError, 'label_smoothing'):
      preference.needs(loss)


class BatchTest(parameterized.TestCase):

  @parameterized.parameters(True, False)
  def test_a_policy_that_is_its_reference_loses_log_2(self, precompute):
    step = pairs_test.model_of()
    score = scorer(step)
    frozen = {'reference': step.params}
    batch, _ = preference.make_batch(
        LAYOUT, pairs_test.pairs(), score=score,
        kept={'reference': kept(step.params, score)} if precompute else {},
        frozen={} if precompute else frozen)
    loss = forward.compose(forward.make_forward(step.model),
                           losses.get('preference', 'dpo').loss)
    found, metrics = jax.jit(loss)(step.params, batch, jax.random.key(0))
    self.assertAlmostEqual(float(found), math.log(2), delta=1e-6)
    self.assertAlmostEqual(float(metrics['reward_margin']), 0, delta=1e-5)

  def test_kept_scores_give_the_step_of_fresh_ones(self):
    step = pairs_test.model_of()
    other = jax.tree.map(lambda x: 1.1 * x, step.params)
    third = jax.tree.map(lambda x: 0.9 * x, step.params)
    score = scorer(step)
    frozen = {'reference': other, 'guide': third}
    fresh, _ = preference.make_batch(LAYOUT, pairs_test.pairs(), kept={},
                                     frozen=frozen, score=score)
    stored, _ = preference.make_batch(
        LAYOUT, pairs_test.pairs(), frozen={}, score=score,
        kept={name: kept(params, score) for name, params in frozen.items()})
    for name in preference.FROZEN.values():
      a_BT, b_BT = (np.where(fresh.mask_BT, getattr(b, name), 0)
                    for b in (fresh, stored))
      np.testing.assert_allclose(a_BT, b_BT, atol=2e-5)
      self.assertGreater(np.abs(a_BT).max(), 1)
    # Negative control: the two frozen models are not the same.
    self.assertGreater(np.abs(np.where(
        fresh.mask_BT, fresh.ref_logp_BT - fresh.guide_logp_BT, 0)).max(), .1)

  def test_the_policy_cannot_be_its_own_guide_with_a_gradient(self):
    """TGDPO whose guide is the policy: the weights stay constants."""
    step = pairs_test.model_of()
    score = scorer(step)
    reference = jax.tree.map(lambda x: 1.1 * x, step.params)
    batch, _ = preference.make_batch(
        LAYOUT, pairs_test.pairs(), kept={}, score=score,
        frozen={'reference': reference, 'guide': step.params})
    objective = losses.get('preference', 'tgdpo', alpha=2.0, beta=0.5).loss
    apply = forward.make_forward(step.model)
    loss = forward.compose(apply, objective)
    grad = jax.jit(jax.grad(lambda p: loss(p, batch, None)[0]))(step.params)

    def with_live_guide(params):  # the loss stops it, whatever a caller does
      logp_BT = apply(params, batch).logp_BT
      return objective(logp_BT, batch.replace(guide_logp_BT=logp_BT))[0]

    live = jax.jit(jax.grad(with_live_guide))(step.params)
    toys.assert_trees_close(live, grad, atol=1e-5)
    # Negative control: with a gradient through the weights it is another one.
    def quadratic(params):
      rho_BT = jnp.where(batch.mask_BT, apply(params, batch).logp_BT
                         - batch.ref_logp_BT, 0)
      sign_BT = jnp.where(batch.chosen_BT, 1.0, -1.0)
      weighted_BT = (sign_BT + 2.0 * 0.5 * rho_BT) * 0.5 * rho_BT
      pair = jax.nn.one_hot(batch.pair_BT - 1, 4)
      margin_BP = jnp.einsum('bt,btp->bp', weighted_BT, pair)
      return jnp.sum(-batch.weight_BP * jax.nn.log_sigmoid(margin_BP))

    other = jax.jit(jax.grad(quadratic))(step.params)
    self.assertGreater(toys.largest_difference(other, grad), 1e-3)

  def test_a_kept_reference_is_not_what_the_update_donates(self):
    step = pairs_test.model_of()
    score = scorer(step)
    params = state.frozen_copy(step.params)
    reference = state.frozen_copy(params)
    run = update.make_update_fn(
        forward.compose(forward.make_forward(step.model),
                        losses.get('preference', 'dpo').loss), optax.sgd(1.0),
        num_microbatches=LAYOUT.num_microbatches)
    make = lambda: preference.make_batch(
        LAYOUT, pairs_test.pairs(), kept={}, score=score,
        frozen={'reference': reference})[0]
    begin = state.TrainState(np.int32(0), params, optax.sgd(1.0).init(params))
    key = jax.random.key(0)
    end, _ = run(begin, make(), key)
    toys.assert_trees_close(reference, step.params, atol=0)
    _, metrics = run(end, make(), key)
    self.assertLess(float(metrics['loss']), math.log(2))


class ByPairTest(parameterized.TestCase):

  @parameterized.parameters('dpo', 'tgdpo', 'simpo')
  def test_each_pair_by_itself(self, name):
    loss = preference.reported(losses.get('preference', name).loss)
    logp_BT, batch = golden.random()
    found = preference.make_by_pair(loss)(logp_BT, batch)
    self.assertContainsSubset(
        ('loss', 'reward_margin', 'logp_chosen', 'token_logp_rejected',
         'length_chosen'), found)
    for row, place in np.argwhere(np.asarray(batch.weight_BP) > 0):
      alone = batch.replace(weight_BP=jnp.zeros_like(batch.weight_BP).at[
          row, place].set(1.0))
      value, metrics = loss(logp_BT, alone)
      for key, want in (metrics | {'loss': value}).items():
        np.testing.assert_allclose(found[key][row, place], want, rtol=1e-4,
                                   atol=1e-6, err_msg=key)

  def test_held_out_pairs_in_their_order_whatever_the_batches(self):
    step = pairs_test.model_of()
    score = scorer(step)
    pairs = pairs_test.pairs()
    make = lambda some: preference.make_batch(
        LAYOUT, some, kept={}, frozen={}, score=score)
    by_pair = preference.make_by_pair(preference.reported(
        losses.get('preference', 'simpo').loss))
    found = [preference.evaluate(pairs, size, make, score, by_pair,
                                 step.params) for size in (6, 4)]
    for name, values in found[0].items():
      np.testing.assert_allclose(values, found[1][name], atol=1e-4)
    np.testing.assert_array_equal(
        found[0]['length_chosen'],
        [max(pair.chosen_mask.sum(), 1) for pair in pairs])
    alone = preference.evaluate(pairs[2:3], 6, make, score, by_pair,
                                step.params)
    np.testing.assert_allclose(alone['loss'][0], found[0]['loss'][2],
                               rtol=1e-5)


if __name__ == '__main__':
  absltest.main()
