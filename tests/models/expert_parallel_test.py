import functools
import math
import re
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np
import optax

from rljax import sharding
from rljax.models import expert_parallel
from rljax.models import moe
from rljax.ops import logprobs
from rljax.training import state
from tests import toys

WIDTH, EXPERTS, TOP_K, HIDDEN = 6, 8, 3, 4
MESHES = {
    'expert2': dict(data=1, expert=2), 'expert4': dict(data=1, expert=4),
    'expert8': dict(data=1, expert=8),
    'data2_expert4': dict(data=2, expert=4),
    'fsdp2_expert4': dict(data=1, fsdp=2, expert=4),
    'expert4_tensor2': dict(data=1, expert=4, tensor=2),
    'fsdp2_expert2_tensor2': dict(data=1, fsdp=2, expert=2, tensor=2),
    'data2_expert2_tensor2': dict(data=2, expert=2, tensor=2),
    'data8': dict(data=8)}


def make_mesh(name):
  sizes = MESHES[name]
  return sharding.make_mesh(
      **sizes, devices=jax.devices()[:math.prod(sizes.values())])


def example(kind='even', rows=8, length=8, seed=0):
  """x, experts, gates, gate_up, down; a fifth of the tokens is padding."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / 2, jnp.float32)
  wish = rng.normal(size=(rows, length, EXPERTS))
  if kind == 'crowded':  # all choices fall on the first three experts
    wish[..., :TOP_K] -= 100
  experts = np.argsort(wish, axis=-1)[..., :TOP_K].astype(np.int32)
  real = rng.uniform(size=(rows, length, 1)) < 0.8
  return (draw(rows, length, WIDTH), jnp.asarray(np.where(
      real, experts, EXPERTS)), jnp.abs(draw(rows, length, TOP_K)),
          draw(EXPERTS, WIDTH, 2, HIDDEN), draw(EXPERTS, HIDDEN, WIDTH))


def block(num_choices):
  del num_choices
  return functools.partial(moe.grouped, kernel='block')


def dense(num_choices):
  del num_choices
  return moe.dense


def out_and_grads(choose, x, experts, gates, gate_up, down):
  y_BTD, pullback = jax.vjp(
      lambda x, g, u, d: expert_parallel.apply(choose, x, experts, g, u, d),
      x, gates, gate_up, down)
  c_BTD = jnp.cos(jnp.arange(y_BTD.size, dtype=jnp.float32))
  return y_BTD, *pullback(c_BTD.reshape(y_BTD.shape))


def placed(mesh, inputs):
  """Expert weights in their shards, tokens over the data axes."""
  specs = [PartitionSpec(('data', 'fsdp'))] * 3 + [
      PartitionSpec('expert', 'fsdp', None, 'tensor'),
      PartitionSpec('expert', 'tensor', 'fsdp')]
  return [jax.device_put(x, NamedSharding(mesh, spec))
          for x, spec in zip(inputs, specs, strict=True)]


def gathers_experts(text: str) -> bool:
  """Whether an all-gather of the compiled text makes all experts' weights."""
  shapes = re.findall(r'= \(?\w+\[([\d,]*)\][^=]*? all-gather(?:-start)?\(',
                      text)
  sizes = [[int(n) for n in shape.split(',') if n] for shape in shapes]
  return any(len(s) > 2 and s[0] == EXPERTS for s in sizes)


class ExpertParallelTest(parameterized.TestCase):

  @parameterized.parameters(*MESHES)
  def test_output_and_gradients_equal_the_dense_oracle(self, name):
    want = [jax.jit(functools.partial(out_and_grads, dense))(*example(kind))
            for kind in ('even', 'crowded')]
    mesh = make_mesh(name)
    with sharding.use(mesh):
      run = jax.jit(functools.partial(out_and_grads, block))
      for kind, expected in zip(('even', 'crowded'), want, strict=True):
        got = run(*placed(mesh, example(kind)))
        toys.assert_trees_close(got, expected, atol=2e-6)

  @parameterized.parameters((8, 1), (3, 5), (1, 8), (5, 1))
  def test_rows_and_lengths_that_the_mesh_does_not_divide(self, rows, length):
    inputs = example('crowded', rows, length)
    want = jax.jit(functools.partial(out_and_grads, dense))(*inputs)
    with sharding.use(make_mesh('data2_expert4')):
      got = jax.jit(functools.partial(out_and_grads, block))(*inputs)
    toys.assert_trees_close(got, want, atol=2e-6)

  def test_experts_over_two_axes(self):
    inputs = example('crowded')
    want = jax.jit(functools.partial(out_and_grads, dense))(*inputs)
    rules = sharding.make_rules({'experts': ('expert', 'fsdp')})
    with sharding.use(make_mesh('fsdp2_expert4'), rules):
      got = jax.jit(functools.partial(out_and_grads, block))(*inputs)
    toys.assert_trees_close(got, want, atol=2e-6)

  def test_without_the_second_exchange_choices_would_be_lost(self):
    inputs = example('crowded')
    want, *_ = jax.jit(functools.partial(out_and_grads, dense))(*inputs)
    no_overflow = mock.patch.object(
        jax.lax, 'pmax', lambda x, axes: jnp.zeros_like(x))
    with sharding.use(make_mesh('expert8')), no_overflow:
      got, *_ = jax.jit(functools.partial(out_and_grads, block))(*inputs)
    self.assertGreater(float(jnp.abs(got - want).max()), 0.01)

  @parameterized.parameters(
      'expert8', 'data2_expert4', 'expert4_tensor2', 'fsdp2_expert2_tensor2')
  def test_tokens_travel_and_weights_stay(self, name):
    mesh = make_mesh(name)
    inputs = placed(mesh, example(rows=2, length=4))
    with sharding.use(mesh):
      text = jax.jit(functools.partial(out_and_grads, block)).lower(
          *inputs).compile().as_text()
    self.assertIn(' all-to-all(', text)
    self.assertIn(' all-gather(', text)  # of fsdp shards and of results
    self.assertFalse(gathers_experts(text))

  def test_left_to_the_compiler_weights_would_be_gathered(self):
    mesh = make_mesh('expert8')
    inputs = placed(mesh, example(rows=2, length=4))
    text = jax.jit(functools.partial(out_and_grads, block)).lower(
        *inputs).compile().as_text()  # no mesh in use: the local path
    self.assertTrue(gathers_experts(text))
    self.assertNotIn(' all-to-all(', text)

  @parameterized.parameters((6, 'expert4'), (2, 'expert4'), (4, 'expert8'))
  def test_experts_that_do_not_divide_are_refused(self, experts, name):
    x, ids, gates, gate_up, down = example()
    ids = ids % experts
    with sharding.use(make_mesh(name)), self.assertRaisesRegex(
        ValueError, f'Expected the {experts} experts to divide .*expert.* = '
        r'\d devices.*Change config.mesh'):
      expert_parallel.apply(block, x, ids, gates, gate_up[:experts],
                            down[:experts])


class TrainingTest(parameterized.TestCase):

  @parameterized.parameters('expert2', 'expert4', 'expert8',
                            'fsdp2_expert2_tensor2', 'data2_expert4')
  def test_three_sgd_steps_equal_those_of_dense_on_one_device(self, name):
    tokens_BT, position_BT, segment_BT = toys.rows([[10, 13], [20]], 24)
    optimizer = optax.sgd(0.3)

    def train(dispatch, mesh):
      model, params = toys.model_and_params(
          'tiny_wide', moe_dispatch=dispatch, num_layers=1)

      def loss(params):
        out = model.apply({'params': params}, tokens_BT, position_BT,
                          segment_BT)
        logp_BT, _ = logprobs.token_logprobs(out.logits_BTV, tokens_BT,
                                             segment_BT)
        return -jnp.sum(logp_BT) / 43

      @jax.jit
      def step(params):
        value, grads = jax.value_and_grad(loss)(params)
        updates, _ = optimizer.update(grads, optimizer.init(params))
        return optax.apply_updates(params, updates), value

      losses = []
      with sharding.use(mesh):
        begin, _ = state.init_state(model, optimizer, jax.random.key(0), mesh,
                                    params=params)
        params = begin.params
        for _ in range(3):
          params, value = step(params)
          losses.append(float(value))
      return params, losses

    want, losses = train('dense', sharding.make_mesh(
        devices=jax.devices()[:1]))
    self.assertLess(losses[2], losses[0] - 0.1)
    got, values = train('block', make_mesh(name))
    np.testing.assert_allclose(values, losses, rtol=1e-5)
    toys.assert_trees_close(got, want, atol=2e-5)


if __name__ == '__main__':
  absltest.main()
