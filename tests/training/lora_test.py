"""Training adapters: the base stays, in bits, and out of the files."""
import functools
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rljax import sharding
from rljax.models import lora
from rljax.models import transformer
from rljax.training import checkpoint
from rljax.training import forward
from rljax.training import metrics
from rljax.training import state as states
from rljax.training import update
from tests import toys
from tests.training import live_reference_test
from tests.training import steps

ADAPT = functools.partial(lora.create, rank=3, alpha=12.0)


def supervised(model):
  """Cross-entropy on the policy's responses."""
  return forward.compose(forward.make_forward(model), lambda logp_BT, batch: (
      -jnp.sum(batch.weight_BT * logp_BT), {}))


def start(optimizer, step=None, mesh=None, adapt=ADAPT):
  """A state with adapters on the example's parameters, and its sharding."""
  step = step or steps.example()
  params = step.params
  if mesh is not None:
    params = jax.device_put(params, sharding.tree_sharding(
        mesh, transformer.abstract_params(step.model)))
  return states.init_state(
      step.model, optimizer, jax.random.key(5),
      mesh or sharding.make_mesh(devices=jax.devices()[:1]), params=params,
      adapt=adapt)


def spread(state, seed=1):
  """With a B that is not 0, so that A has a gradient too."""
  rng = np.random.default_rng(seed)
  return state.replace(params=state.params.replace(trained=jax.tree.map(
      lambda x: jax.device_put(
          0.1 * rng.normal(size=x.shape).astype(np.float32), x.sharding),
      state.params.trained)))


class UpdateTest(parameterized.TestCase):

  def test_the_loss_falls_and_the_base_stays_bit_for_bit(self):
    step, optimizer = steps.example(), optax.adam(2e-2)
    run = update.make_update_fn(supervised(step.model), optimizer,
                                num_microbatches=2)
    state, _ = start(optimizer)
    base, found = state.params.base, []
    for _ in range(12):
      state, metrics = run(state, step.batch, jax.random.key(0))
      found.append(float(metrics['loss']))
    self.assertLess(found[-1], 0.8 * found[0])
    for ours, before, given in zip(
        *map(jax.tree.leaves, (state.params.base, base, step.params)),
        strict=True):
      self.assertIs(ours, before)  # neither donated nor copied
      np.testing.assert_array_equal(ours, given)
    for leaf in jax.tree.leaves(state.params.trained):
      self.assertGreater(np.abs(leaf).max(), 0)

  def test_moments_are_those_of_the_adapters(self):
    state, _ = start(optax.adam(1e-3))
    trained = len(jax.tree.leaves(state.params.trained))
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    self.assertLen(moments, 2 * trained)
    self.assertEqual(trained, 2 * 8)

  def test_it_is_the_step_along_the_gradient_of_the_merged_model(self):
    # dL/dA = s dL/dW Bᵀ, dL/dB = s Aᵀ dL/dW, for the query of layer 1.
    step = steps.example()
    state = spread(start(steps.SGD)[0])
    loss = steps.loss_fn(step.model)
    full = jax.grad(lambda p: loss(p, step.batch, None)[0])(
        lora.merge(state.params))['layers']['attention']['query'][1]
    at = lambda s: jax.tree.map(
        lambda x: np.array(x[1]),
        s.params.trained['lora']['layers']['attention']['query'])
    before = at(state)
    after = at(update.make_update_fn(loss, steps.SGD)(
        state, step.batch, jax.random.key(0))[0])
    want_a = 4.0 * jnp.einsum('dnh,rnh->dr', full, before['b'])
    want_b = 4.0 * jnp.einsum('dnh,dr->rnh', full, before['a'])
    np.testing.assert_allclose(before['a'] - after['a'], want_a, atol=2e-5)
    np.testing.assert_allclose(before['b'] - after['b'], want_b, atol=2e-5)

  @parameterized.parameters(
      dict(), dict(fsdp=2, expert=2, tensor=2), dict(data=2, fsdp=4))
  def test_eight_devices_take_the_same_step(self, **mesh):
    step = steps.example()
    loss = steps.loss_fn(step.model)
    single, _ = update.make_update_fn(loss, steps.SGD)(
        spread(start(steps.SGD)[0]), step.batch, jax.random.key(0))
    mesh = sharding.make_mesh(**{'data': -1} | mesh)
    with sharding.use(mesh):
      state, at = start(steps.SGD, mesh=mesh)
      run = update.make_update_fn(
          loss, steps.SGD, num_microbatches=1, state_sharding=at,
          batch_sharding=sharding.batch(mesh))
      split, _ = run(spread(state), step.batch, jax.random.key(0))
    toys.assert_trees_close(split.params.trained, single.params.trained,
                            atol=5e-5)

  def test_adapters_lie_where_their_kernel_does(self):
    mesh = sharding.make_mesh(fsdp=2, expert=2, tensor=2, data=1)
    state, _ = start(steps.SGD, mesh=mesh)
    pair = state.params.trained['lora']['layers']['moe']['gate_up']
    spec = lambda x: tuple(x.sharding.spec) + (None,) * (
        x.ndim - len(x.sharding.spec))
    self.assertEqual(spec(pair['a']), (None, 'expert', 'fsdp', None, None))
    self.assertEqual(spec(pair['b']), (None, 'expert', None, None, 'tensor'))

  def test_the_base_is_the_reference_and_may_be_both_in_one_call(self):
    model, params, _, batch = live_reference_test.example()
    step = steps.Step(model, params, None)
    state, _ = start(steps.SGD, step)
    reference = lora.without(state.params)
    run = update.make_update_fn(live_reference_test.loss_fn(), steps.SGD,
                                takes_reference=True)
    state, first = run(state, batch, jax.random.key(0), reference)
    self.assertAlmostEqual(float(first['ref_kl_chosen']), 0, places=5)
    _, second = run(state, batch, jax.random.key(0), reference)
    self.assertGreater(float(second['ref_kl_chosen']), 1e-5)

  def test_one_program_scores_policy_and_reference(self):
    step = steps.example()
    state = spread(start(steps.SGD)[0])
    score = forward.make_score_fn(forward.make_forward(step.model))
    with metrics.CompilationCounter() as counter:
      policy, *_ = score(state.params, step.batch)
      reference, *_ = score(lora.without(state.params), step.batch)
    self.assertEqual(counter.counts['score'], 1)
    plain, *_ = score(step.params, step.batch)
    np.testing.assert_allclose(reference, plain, atol=1e-5)
    self.assertGreater(np.abs(policy - plain).max(), 0.01)

  def test_parts_trained_in_full_move_with_the_adapters(self):
    step = steps.example()
    state, _ = start(steps.SGD, adapt=functools.partial(
        ADAPT, whole=('head',)))
    before = np.array(state.params.trained['head']['kernel'])
    np.testing.assert_array_equal(before, step.params['head']['kernel'])
    state, _ = update.make_update_fn(steps.loss_fn(step.model), steps.SGD)(
        state, step.batch, jax.random.key(0))
    after = state.params.trained['head']['kernel']
    self.assertGreater(np.abs(after - before).max(), 1e-5)

  def test_a_router_bias_beneath_adapters_is_refused(self):
    step = steps.example()
    run = update.make_update_fn(steps.loss_fn(step.model), steps.SGD,
                                router_bias_rate=0.1)
    with self.assertRaisesRegex(ValueError, 'router_bias_rate=0.1'):
      run(start(steps.SGD)[0], step.batch, jax.random.key(0))


class StateTest(parameterized.TestCase):

  def test_random_parameters_are_those_without_adapters(self):
    step, mesh = steps.example(), sharding.make_mesh()
    make = lambda **options: states.init_state(
        step.model, steps.SGD, jax.random.key(2), mesh, **options)[0].params
    jax.tree.map(np.testing.assert_array_equal, make(adapt=ADAPT).base, make())

  def test_adapters_are_the_same_on_given_and_on_random_parameters(self):
    step, mesh = steps.example(), sharding.make_mesh()
    make = lambda params: states.init_state(
        step.model, steps.SGD, jax.random.key(2), mesh, params=params,
        adapt=ADAPT)[0].params.trained
    jax.tree.map(np.testing.assert_array_equal, make(step.params), make(None))

  def test_files_hold_the_adapters_alone_and_come_back(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    optimizer = optax.adam(1e-3)
    state = spread(start(optimizer)[0])
    mesh = sharding.make_mesh(fsdp=2, expert=2, tensor=2, data=1)
    blank, _ = start(optimizer, mesh=mesh)
    with checkpoint.Checkpointer(folder, fingerprint={'a': 1}) as saver:
      saver.save(1, state, {}, force=True)
      saver.wait()
      size = sum(path.stat().st_size
                 for path in (folder / '1').rglob('*') if path.is_file())
      restored, _ = saver.restore(1, blank)
      again = saver.restore_params(blank.params)
    numbers = lambda tree: sum(4 * x.size for x in jax.tree.leaves(tree))
    self.assertLess(size, 3 * numbers(state.params.trained) + 100_000)
    self.assertGreater(numbers(state.params.base),
                       2 * numbers(state.params.trained))
    for found in (restored.params, again):
      jax.tree.map(np.testing.assert_array_equal, found, state.params)
      for ours, theirs in zip(*map(jax.tree.leaves, (
          found.base, blank.params.base)), strict=True):
        self.assertIs(ours, theirs)
      for ours, theirs in zip(*map(jax.tree.leaves, (
          found.trained, blank.params.trained)), strict=True):
        self.assertEqual(ours.sharding, theirs.sharding)


if __name__ == '__main__':
  absltest.main()
