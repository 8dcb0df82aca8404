import functools
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rljax.training import checkpoint
from rljax.training import router_bias
from rljax.training import state
from rljax.training import update
from tests import toys
from tests.training import steps

KEY = jax.random.key(0)


def crowded():
  """A step of a model whose routers favour expert 0 of every layer."""
  step = steps.example(router_bias=True)
  router_LDE = step.params['layers']['moe']['router']
  params = jax.tree.map(jnp.copy, step.params)
  params['layers']['moe']['router'] = router_LDE.at[..., 0].set(
      jnp.mean(router_LDE, axis=-1) * 2)
  params['layers']['moe']['router_bias'] = jnp.zeros(
      (2, 4)).at[:, 0].set(0.3)
  return step, params


STILL = optax.sgd(0.0)
ADAMW = optax.adamw(0.1, weight_decay=0.5)


@functools.cache
def make_update(model, optimizer, rate, num_microbatches):
  """One compilation for many tests."""
  return update.make_update_fn(
      steps.loss_fn(model), optimizer, router_bias_rate=rate,
      num_microbatches=num_microbatches)


def run(step, params, num_steps, rate, optimizer=STILL, num_microbatches=1):
  """State and the loads of some updates."""
  loop = make_update(step.model, optimizer, rate, num_microbatches)
  params = state.frozen_copy(params)
  current = state.TrainState(np.int32(0), params, optimizer.init(params))
  loads = []
  for _ in range(num_steps):
    current, metrics = loop(current, step.batch, KEY)
    loads.append(np.asarray(metrics['expert_load']))
  return current, loads


def bias_of(params):
  return params['layers']['moe']['router_bias']


class MoveTest(parameterized.TestCase):

  def test_hand_computed(self):
    old = {'moe': {'router_bias': jnp.array([[0.5, 0., 0., 0.]]),
                   'router': jnp.ones(3)}}
    new = {'moe': {'router_bias': jnp.full((1, 4), 9.),
                   'router': jnp.zeros(3)}}
    got = router_bias.move(old, new, jnp.array([[2., 0., 1., 1.]]), 0.1)
    np.testing.assert_allclose(got['moe']['router_bias'],
                               [[0.4, 0.1, 0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(got['moe']['router'], 0)

  def test_a_rate_without_a_bias_or_a_load_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'got none.*model.router_bias'):
      router_bias.move({'w': 1.}, {'w': 1.}, jnp.ones((1, 4)), 0.1)
    with self.assertRaisesRegex(ValueError, 'got no load'):
      router_bias.move({'router_bias': 1.}, {'router_bias': 1.}, None, 0.1)


class TrainingTest(parameterized.TestCase):

  def test_it_balances_what_stays_crowded_without_it(self):
    step, params = crowded()
    _, without = run(step, params, 25, 0.0)
    _, loads = run(step, params, 25, 0.05)
    crowd = lambda load_LE: float(np.abs(load_LE - 1).mean())
    np.testing.assert_array_equal(without[-1], without[0])
    self.assertLess(crowd(loads[-1]), 0.5 * crowd(without[-1]))

  def test_an_optimiser_that_decays_leaves_it_alone(self):
    step, params = crowded()
    end, _ = run(step, params, 2, 0.0, ADAMW)
    np.testing.assert_array_equal(bias_of(end.params), bias_of(params))
    self.assertGreater(float(jnp.abs(  # it does change what it may
        end.params['layers']['moe']['router']
        - params['layers']['moe']['router']).max()), 0.1)

  def test_micro_batches_move_it_by_the_load_of_the_step(self):
    step, params = crowded()
    want, _ = run(step, params, 3, 0.05)
    got, _ = run(step, params, 3, 0.05, num_microbatches=4)
    np.testing.assert_array_equal(bias_of(got.params), bias_of(want.params))
    self.assertGreater(toys.largest_difference(
        bias_of(got.params), bias_of(params)), 0.04)

  def test_a_resumed_run_ends_in_the_same_bias(self):
    step, params = crowded()
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    want, _ = run(step, params, 4, 0.05)
    half, _ = run(step, params, 2, 0.05)
    with checkpoint.Checkpointer(folder / 'c', fingerprint={}) as saver:
      saver.save(2, half, {})
    with checkpoint.Checkpointer(folder / 'c', fingerprint={}) as saver:
      restored, _ = saver.restore_or(
          jax.tree.map(jnp.zeros_like, half), {})
    np.testing.assert_array_equal(bias_of(restored.params),
                                  bias_of(half.params))
    end, _ = run(step, restored.params, 2, 0.05)
    np.testing.assert_array_equal(bias_of(end.params), bias_of(want.params))
    forgotten, _ = run(step, params, 2, 0.05)
    self.assertGreater(toys.largest_difference(
        bias_of(forgotten.params), bias_of(want.params)), 0.04)


if __name__ == '__main__':
  absltest.main()
