"""Routing replay from the sampler, through packing, into the update."""
import dataclasses
import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax import losses
from rljax import packing
from rljax import sharding
from rljax.training import batch as batches
from rljax.training import forward
from rljax.training import state
from rljax.training import update
from tests import toys
from tests.rollout import samplers
from tests.training import steps

ROWS, LENGTH = 8, 48


@functools.cache
def packed():
  """Rows of a rollout, with the routes that its sampler took."""
  _, params, sample = samplers.make('tiny_wide', record_experts=True)
  found = sample(params, samplers.prompts(3), samplers.KEY,
                 samples_per_prompt=2)
  selection = packing.select(found.length_PG.ravel(), token_budget=200, seed=0)
  advantage_R = np.linspace(-1, 1, 6, dtype=np.float32)
  return packing.pack(found, advantage_R, selection, num_rows=ROWS,
                      row_length=LENGTH, num_microbatches=4,
                      max_response_length=24)


@functools.cache
def drifted(**overrides):
  """The sampler's model, whose routers have moved a little since."""
  model, params = toys.model_and_params('tiny_wide', **overrides)
  params = jax.tree.map(jnp.copy, params)
  router_LDE = params['layers']['moe']['router']
  noise = jax.random.normal(jax.random.key(5), router_LDE.shape)
  params['layers']['moe']['router'] = router_LDE + 0.05 * noise
  return model, params


@functools.cache
def score_fn(num_microbatches=1, **overrides):
  return forward.make_score_fn(
      forward.make_forward(drifted(**overrides)[0]),
      num_microbatches=num_microbatches, record_experts=True)


def make_batch(replay, reference=None, params=None):
  """The step's batch, scored by the drifted model."""
  rows = packed()
  objective = losses.get('policy', 'c3po', clip_eps=0.2, kl_coef=0.0)
  return batches.policy_batch(
      rows, np.asarray(objective.token_weights(rows)),
      packing.policy_shares(rows.segment_BT), score_fn(),
      drifted()[1] if params is None else params, reference, replay=replay)


def loss_fn(model):
  objective = losses.get('policy', 'c3po', clip_eps=0.2, kl_coef=0.0)
  return forward.compose(forward.make_forward(model), objective.loss,
                         entropy_coef=0.05, balance_coef=0.2, z_coef=0.05)


@functools.cache
def gradients(**overrides):
  model, _ = drifted(**overrides)
  return jax.jit(jax.grad(loss_fn(model), has_aux=True))


def sgd_step(batch, mesh=None, num_microbatches=1, **overrides):
  """New parameters and metrics after one step of plain SGD."""
  model, params = drifted(**overrides)
  mesh = mesh or sharding.make_mesh(devices=jax.devices()[:1])
  with sharding.use(mesh):
    begin, shardings = state.init_state(
        model, steps.SGD, jax.random.key(0), mesh, params=params)
    run = update.make_update_fn(
        loss_fn(model), steps.SGD, num_microbatches=num_microbatches,
        state_sharding=shardings, batch_sharding=sharding.batch(mesh))
    end, metrics = run(begin, batch, jax.random.key(0))
  return end.params, metrics


class RolloutReplayTest(parameterized.TestCase):

  def test_it_closes_the_gap_to_the_sampler(self):
    # Without the drift of the routers' gates there would be none at all.
    rows = packed()
    gap = lambda batch: np.abs(
        np.asarray(batch.old_logp_BT) - rows.sampled_logp_BT)[rows.mask_BT]
    off, replayed = gap(make_batch('off')), gap(make_batch('rollout'))
    self.assertLess(replayed.mean(), 0.8 * off.mean())
    same = toys.model_and_params('tiny_wide')[1]
    self.assertLess(gap(make_batch('rollout', params=same)).max(), 1e-4)

  def test_every_recorded_token_goes_where_the_sampler_sent_it(self):
    rows, (_, params) = packed(), drifted()
    inputs = batches.ModelInputs(
        rows.tokens_BT, rows.position_BT, rows.segment_BT,
        packing.policy_shares(rows.segment_BT), rows.experts_BTLX)
    taken_BTLX = np.asarray(score_fn()(params, inputs)[3])
    recorded_BT = rows.experts_BTLX[..., 0, 0] != 255
    np.testing.assert_array_equal(taken_BTLX[recorded_BT],
                                  rows.experts_BTLX[recorded_BT])
    # All but the last token of every response.
    self.assertEqual(int(recorded_BT.sum()), int(
        (rows.segment_BT > 0).sum() - len(np.unique(rows.segment_BT)) + 1))
    own_BTLX = np.asarray(score_fn()(params, dataclasses.replace(
        inputs, experts_BTLX=np.full_like(rows.experts_BTLX, 255)))[3])
    self.assertGreater(
        np.mean(own_BTLX[recorded_BT] != taken_BTLX[recorded_BT]), 0.01)

  def test_the_disagreement_rate_is_a_metric(self):
    metrics = gradients()(drifted()[1], make_batch('rollout'),
                          jax.random.key(0))[1]
    self.assertBetween(float(metrics['route_disagreement']), 0.005, 0.5)
    same = toys.model_and_params('tiny_wide')[1]
    metrics = gradients()(same, make_batch('rollout'), jax.random.key(0))[1]
    self.assertLess(float(metrics['route_disagreement']), 1e-3)
    metrics = gradients()(same, make_batch('off'), jax.random.key(0))[1]
    self.assertNotIn('route_disagreement', metrics)

  def test_the_reference_has_routes_of_its_own(self):
    reference = toys.model_and_params('tiny_wide', seed=3)[1]
    replayed = make_batch('rollout', reference)
    alone = make_batch('off', reference)
    np.testing.assert_allclose(replayed.ref_logp_BT, alone.ref_logp_BT,
                               atol=1e-6)

  def test_without_a_record_it_is_refused(self):
    rows = packed().replace(experts_BTLX=None)
    weight_BT = np.zeros(rows.tokens_BT.shape, np.float32)
    for replay, message in (('rollout', 'record_experts=True'),
                            ('r3', "got 'r3'")):
      with self.assertRaisesRegex(ValueError, message):
        batches.policy_batch(rows, weight_BT, weight_BT, None, None,
                             replay=replay)
    silent = lambda params, inputs: (weight_BT, weight_BT, np.ones((3, 16)))
    with self.assertRaisesRegex(ValueError, 'record_experts=True'):
      batches.policy_batch(rows, weight_BT, weight_BT, silent, None,
                           replay='recompute')


class RecomputeReplayTest(parameterized.TestCase):

  def test_first_update_has_ratio_one_and_no_disagreement(self):
    batch = make_batch('recompute')
    self.assertEqual(batch.experts_BTLX.dtype, np.uint8)
    metrics = gradients()(drifted()[1], batch, jax.random.key(0))[1]
    self.assertEqual(float(metrics['route_disagreement']), 0)
    np.testing.assert_allclose(metrics['clip_fraction'], 0)

  def test_later_updates_keep_the_routes_of_the_old_policy(self):
    batch = make_batch('recompute')
    later, _ = sgd_step(batch)
    grads, metrics = gradients()(later, batch, jax.random.key(0))
    self.assertGreater(float(metrics['route_disagreement']), 0)
    router_LDE = grads['layers']['moe']['router']
    self.assertTrue(np.all(np.abs(router_LDE).max(axis=(1, 2)) > 1e-5))


class SameStepTest(parameterized.TestCase):

  @parameterized.parameters('rollout', 'recompute')
  def test_micro_batches_and_remat_take_the_same_step(self, replay):
    batch = make_batch(replay)
    want, want_metrics = sgd_step(batch)
    got, metrics = sgd_step(batch, num_microbatches=4, remat='full')
    toys.assert_trees_close(got, want, atol=2e-5, rtol=0)
    np.testing.assert_allclose(metrics['route_disagreement'],
                               want_metrics['route_disagreement'], rtol=1e-5)
    # Own routes make another step, unless they are those that are replayed.
    other, _ = sgd_step(batch.replace(experts_BTLX=None))
    self.assertEqual(replay == 'rollout', toys.largest_difference(
        want['layers']['moe'], other['layers']['moe']) > 1e-3)

  @parameterized.parameters(dict(data=1, expert=8),
                            dict(data=2, expert=2, tensor=2))
  def test_experts_over_devices_take_the_same_step(self, **sizes):
    batch = make_batch('rollout')
    want, _ = sgd_step(batch)
    got, _ = sgd_step(batch, sharding.make_mesh(**sizes), 2, remat='full',
                      moe_dispatch='block')
    toys.assert_trees_close(got, want, atol=2e-5, rtol=0)


if __name__ == '__main__':
  absltest.main()
