"""What the planner counts, against sums made by hand, and its verdict."""
from absl.testing import absltest
import jax
import jax.numpy as jnp
import optax
import pytest

from configs.policy import c3po_tiny
from experiments import plan_capacity
from experiments.job import starting_params
from rljax import models
from rljax import sharding
from rljax.models import transformer
from rljax.training import state as states


class LocalBytesTest(absltest.TestCase):

  def test_a_device_holds_its_shard(self):
    mesh = sharding.make_mesh(data=4, tensor=2)
    tree = [
        jax.ShapeDtypeStruct((64, 3), jnp.float32, sharding=sharding.batch(
            mesh)),                                     # 16 · 3 · 4 bytes
        jax.ShapeDtypeStruct((5,), jnp.bfloat16, sharding=sharding.replicated(
            mesh))]                                     # 5 · 2 bytes
    self.assertEqual(plan_capacity.local_bytes(tree), 192 + 10)


class PlanTest(absltest.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path):
    self.folder = tmp_path

  def setUp(self):
    super().setUp()
    self.config = c3po_tiny.get_config('smoke')

  def test_a_small_model_fits_and_a_small_memory_does_not_hold_it(self):
    found = plan_capacity.run(self.config, self.folder, 8, 'v5e')
    total, _ = transformer.count_params(models.create('tiny'))
    # Replicated over data: all parameters, and two moments and two counters.
    self.assertEqual(found['bytes']['parameters'], 4 * total)
    self.assertAlmostEqual(found['bytes']['optimizer'], 8 * total, delta=64)
    self.assertTrue(found['fits'])
    self.assertEqual([stage['name'] for stage in found['stages']],
                     ['update', 'prefill', 'decode'])
    # Gradients are summed over the devices: at least as large as parameters.
    self.assertGreaterEqual(sum(
        row['bytes'] for row in found['stages'][0]['collectives'].values()),
        4 * total)
    self.assertLen(list(self.folder.iterdir()), 2)
    plan_capacity.DEVICES['tiny'] = 1e-6
    self.addCleanup(plan_capacity.DEVICES.pop, 'tiny')
    found = plan_capacity.plan(self.config, 8, 'tiny')
    self.assertFalse(found['fits'])
    self.assertIn('DOES NOT FIT', plan_capacity.table(found))

  def test_a_critic_is_refused_by_name(self):
    self.config.advantage = 'gae'
    with self.assertRaisesRegex(ValueError, "got 'gae'"):
      plan_capacity.plan(self.config, 8, 'v5e')

  def test_the_rows_of_a_micro_batch_count(self):
    temporary = []
    for rows in (1, 4):
      self.config.packing.rows_per_device = rows
      stage = plan_capacity.plan(self.config, 8, 'v5e')['stages'][0]
      temporary.append(stage['memory']['temporary'])
    self.assertGreater(temporary[1], 1.5 * temporary[0])

  def test_parameters_are_split_over_fsdp(self):
    self.config.mesh.fsdp = 2
    whole = transformer.count_params(models.create('tiny'))[0] * 4
    found = plan_capacity.plan(self.config, 8, 'v5e')['bytes']['parameters']
    self.assertBetween(found, whole / 2, whole * 0.55)  # norms stay whole

  def test_adapters_are_merged_for_the_sampler_and_have_moments_alone(self):
    self.config.lora.rank = 2
    mesh, rules = sharding.make_mesh(data=4, fsdp=2), sharding.make_rules()
    model = models.create('tiny')
    plain, adapted = (states.abstract_state(
        model, optax.adam(1.0), mesh, rules, adapt=adapt)
                      for adapt in (
                          None, starting_params.adapting(self.config)))
    merged = plan_capacity.rollout_params(self.config, model, mesh, rules,
                                          adapted.params)
    kinds = lambda tree: jax.tree.map(
        lambda x: (x.shape, x.dtype, x.sharding), tree)
    self.assertEqual(kinds(merged), kinds(plain.params))
    self.assertLess(plan_capacity.local_bytes(adapted.opt_state),
                    plan_capacity.local_bytes(plain.opt_state) / 2)

  def test_an_unknown_device_is_refused(self):
    with self.assertRaisesRegex(ValueError, "v5p.*got 'v99'"):
      plan_capacity.plan(self.config, 8, 'v99')


if __name__ == '__main__':
  absltest.main()
