import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import optax

from rljax import models
from rljax import sharding
from rljax.training import optimizer as optimizers
from rljax.training import state
from tests import toys


def init(optimizer=None, seed=0, params=None, variant='tiny', **mesh):
  mesh = sharding.make_mesh(**(mesh or dict(data=2, fsdp=2, expert=2)))
  key = state.named_keys(seed, 'init')['init']
  return state.init_state(models.create(variant), optimizer or optax.sgd(0.1),
                          key, mesh, params=params)


@functools.cache
def made_by_adamw():
  return init(optax.adamw(0.1))


class InitTest(parameterized.TestCase):

  def test_parameters_are_made_in_their_shards(self):
    made, shardings = made_by_adamw()
    self.assertEqual(made.step, 0)
    experts = made.params['layers']['moe']['down']
    self.assertEqual(experts.sharding.spec,
                     PartitionSpec(None, 'expert', 'tensor', 'fsdp'))
    self.assertEqual(experts.addressable_shards[0].data.shape,
                     (2, 4 // 2, 32, 32 // 2))
    jax.tree.map(lambda x, s: self.assertTrue(
        x.sharding.is_equivalent_to(s, x.ndim)), made, shardings)

  def test_moments_lie_where_their_parameters_lie(self):
    made, _ = made_by_adamw()
    for moment in (made.opt_state[0].mu, made.opt_state[0].nu):
      jax.tree.map(lambda m, p: self.assertEqual(m.sharding, p.sharding),
                   moment, made.params)

  @parameterized.parameters(('adafactor', 'mini'), ('novograd', 'tiny'))
  def test_moments_unlike_their_parameters_can_be_placed(self, name, variant):
    # `mini` is wide enough for adafactor to factor its second moments.
    optimizer = optimizers.make_optimizer(name, 0.1)
    made, shardings = init(optimizer, variant=variant)
    jax.tree.map(lambda x, s: self.assertTrue(
        x.sharding.is_equivalent_to(s, x.ndim)), made, shardings)
    adopted, _ = init(optimizer, params=made.params, variant=variant)
    self.assertEqual(jax.tree.structure(adopted), jax.tree.structure(made))

  def test_the_seed_decides_the_bits_and_the_mesh_does_not(self):
    first, _ = init(seed=5)
    again, _ = init(seed=5, data=1, fsdp=4, tensor=2)
    other, _ = init(seed=6)
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    self.assertGreater(toys.largest_difference(first.params, other.params),
                       0.01)

  def test_given_parameters_are_copied(self):
    _, params = toys.model_and_params()
    made, _ = init(params=params)
    jax.tree.map(np.testing.assert_array_equal, made.params, params)
    jax.tree.map(lambda x: x.delete(), made.params)
    np.asarray(params['head']['kernel'])  # still there

  def test_a_mesh_that_does_not_divide_the_model_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'kv_heads|key.*2 elements.*8 dev'):
      init(data=1, tensor=8)


class CopyTest(absltest.TestCase):

  def test_a_copy_survives_donation_and_an_alias_does_not(self):
    double = jax.jit(lambda p: jax.tree.map(lambda x: 2 * x, p),
                     donate_argnums=0)
    params = {'w': jnp.arange(3.)}
    alias, copy = dict(params), state.frozen_copy(params)
    double(params)
    np.testing.assert_array_equal(copy['w'], [0, 1, 2])
    with self.assertRaisesRegex(RuntimeError, 'deleted'):
      np.asarray(alias['w'])


class KeysTest(absltest.TestCase):

  def test_streams_differ_and_repeat(self):
    bits = lambda seed, name: tuple(np.asarray(jax.random.key_data(
        state.named_keys(seed, 'init', 'sample', 'update')[name])))
    self.assertLen({bits(s, n) for s in (0, 1)
                    for n in ('init', 'sample', 'update')}, 6)
    self.assertEqual(bits(1, 'sample'), bits(1, 'sample'))

  def test_a_stream_depends_on_its_place_and_not_on_later_ones(self):
    short = state.named_keys(0, 'init', 'sample')['sample']
    long = state.named_keys(0, 'init', 'sample', 'update')['sample']
    self.assertEqual(short, long)


if __name__ == '__main__':
  absltest.main()
