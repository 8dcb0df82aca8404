import functools
import math
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rljax.models import moe
from rljax.models import variants
from rljax.ops import logprobs
from tests import toys

DISPATCHES = {'dense': moe.dense, 'block': moe.block, 'ragged': moe.ragged}


def choices(kind, num_tokens, num_experts, top_k, rng):
  """Experts of each token, all different for one token."""
  if kind == 'one_set':
    return np.tile(np.arange(top_k, dtype=np.int32)[::-1], (num_tokens, 1))
  # Skewed: expert e is e + 1 times as wanted as expert 0 is.
  noise = rng.gumbel(size=(num_tokens, num_experts))
  wish = np.log1p(np.arange(num_experts)) * (kind == 'skewed')
  return np.argsort(-(wish + noise), axis=1)[:, :top_k].astype(np.int32)


def example(kind='even', num_tokens=37, num_experts=8, top_k=3, seed=0):
  """Inputs of a dispatch: x, experts, gates, valid, gate_up, down."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / 2, jnp.float32)
  gates_MX = rng.uniform(0.1, 1, (num_tokens, top_k))
  gates_MX /= gates_MX.sum(axis=1, keepdims=True)
  valid_M = jnp.asarray(rng.uniform(size=num_tokens) < 0.8)
  return (draw(num_tokens, 6),
          jnp.asarray(choices(kind, num_tokens, num_experts, top_k, rng)),
          jnp.asarray(gates_MX, jnp.float32), valid_M,
          draw(num_experts, 6, 2, 5), draw(num_experts, 5, 6))


def oracle(x_MD, experts_MX, gates_MX, valid_M, gate_up_ED2F, down_EFD):
  """A loop over tokens and their experts, in double precision."""
  x_MD, gates_MX, gate_up_ED2F, down_EFD = (
      np.asarray(a, np.float64)
      for a in (x_MD, gates_MX, gate_up_ED2F, down_EFD))
  out_MD = np.zeros_like(x_MD)
  for m in np.flatnonzero(valid_M):
    for gate, e in zip(gates_MX[m], np.asarray(experts_MX[m]), strict=True):
      gate_F, up_F = (x_MD[m] @ gate_up_ED2F[e, :, i] for i in (0, 1))
      out_MD[m] += gate * (gate_F / (1 + np.exp(-gate_F)) * up_F) @ down_EFD[e]
  return out_MD


@functools.partial(jax.jit, static_argnums=0)
def out_and_grads(dispatch, x, experts, gates, valid, gate_up, down):
  """Output, and gradients by tokens, gates and both weights."""
  out_MD, pullback = jax.vjp(
      lambda x, g, u, d: dispatch(x, experts, g, valid, u, d),
      x, gates, gate_up, down)
  c_MD = jnp.cos(jnp.arange(out_MD.size)).reshape(out_MD.shape)
  return out_MD, pullback(c_MD.astype(out_MD.dtype))


RAGGED_DOT = jax.lax.ragged_dot


@jax.custom_vjp
def careless_ragged_dot(lhs, rhs, counts):
  """Writes no row beyond the last group, in the gradient by lhs neither.

  The gradient by rhs reads these rows, times 0: and 0 · NaN is NaN.
  """
  return _unwritten(RAGGED_DOT(lhs, rhs, counts), counts)


def _unwritten(rows, counts):
  inside = jnp.arange(rows.shape[0]) < jnp.sum(counts)
  return jnp.where(inside[:, None], rows, jnp.nan)


def _careless_forward(lhs, rhs, counts):
  return careless_ragged_dot(lhs, rhs, counts), (lhs, rhs, counts)


def _careless_backward(kept, grad):
  lhs, rhs, counts = kept
  _, pullback = jax.vjp(lambda a, b: RAGGED_DOT(a, b, counts), lhs, rhs)
  by_lhs, by_rhs = pullback(grad)
  read = 0 * (jnp.sum(lhs) + jnp.sum(grad))
  return _unwritten(by_lhs, counts), by_rhs + read, None


careless_ragged_dot.defvjp(_careless_forward, _careless_backward)


class DispatchTest(parameterized.TestCase):

  @parameterized.product(
      name=tuple(DISPATCHES),
      shape=(('even', 37, 8, 3), ('skewed', 120, 8, 3), ('one_set', 70, 8, 1),
             ('even', 3, 8, 2), ('even', 40, 4, 4)))
  def test_equals_a_loop_over_tokens(self, name, shape):
    inputs = example(*shape)
    out_MD, _ = out_and_grads(DISPATCHES[name], *inputs)
    np.testing.assert_allclose(out_MD, oracle(*inputs), atol=2e-6)

  @parameterized.product(
      name=('block', 'ragged'),
      shape=(('even', 37, 8, 3), ('skewed', 120, 8, 3), ('one_set', 70, 8, 1)))
  def test_gradients_equal_those_of_dense(self, name, shape):
    inputs = example(*shape)
    want = out_and_grads(moe.dense, *inputs)
    self.assertGreater(float(jnp.abs(want[1][1]).max()), 0.1)
    toys.assert_trees_close(
        out_and_grads(DISPATCHES[name], *inputs), want, atol=1e-5)

  @parameterized.parameters(*DISPATCHES)
  def test_one_lost_token_would_be_seen(self, name):
    # What a capacity limit does to the last token of a full expert.
    x, experts, gates, valid, gate_up, down = example('one_set', 70, 8, 1)
    last = int(np.flatnonzero(valid)[-1])
    out_MD, _ = out_and_grads(DISPATCHES[name], x, experts, gates,
                              valid.at[last].set(False), gate_up, down)
    missing = jnp.abs(out_MD - oracle(x, experts, gates, valid, gate_up, down))
    self.assertGreater(float(missing.max()), 1e-2)

  @parameterized.parameters(*DISPATCHES)
  def test_padding_is_not_routed(self, name):
    inputs = example('skewed')
    valid_M = inputs[3]
    self.assertFalse(bool(valid_M.all()))
    # Other values and other experts on padding change nothing.
    other = (jnp.where(valid_M[:, None], inputs[0], 1e3),
             jnp.where(valid_M[:, None], inputs[1], 0), *inputs[2:])
    got, want = (out_and_grads(DISPATCHES[name], *i) for i in (other, inputs))
    np.testing.assert_array_equal(want[0][~valid_M], 0)
    np.testing.assert_allclose(got[0], want[0], atol=1e-6)
    toys.assert_trees_close(got[1], want[1], atol=1e-5)

  @parameterized.parameters(*DISPATCHES)
  def test_all_padding_gives_zeros(self, name):
    inputs = list(example())
    inputs[3] = jnp.zeros_like(inputs[3])
    out_MD, grads = out_and_grads(DISPATCHES[name], *inputs)
    np.testing.assert_array_equal(out_MD, 0)
    for grad in grads:
      np.testing.assert_array_equal(grad, 0)

  @parameterized.parameters('even', 'skewed')
  def test_rows_that_a_backend_leaves_unwritten_reach_nothing(self, kind):
    inputs = example(kind)
    self.assertFalse(bool(inputs[3].all()))
    # Not the compiled function: it would keep the product it was traced with.
    with mock.patch.object(jax.lax, 'ragged_dot', careless_ragged_dot):
      got = out_and_grads.__wrapped__(moe.ragged, *inputs)
    toys.assert_trees_close(got, out_and_grads(moe.block, *inputs), atol=1e-5)

  def test_the_careless_product_spoils_rows_both_ways(self):
    counts_E = jnp.array([1, 1])
    out, pullback = jax.vjp(
        lambda a, b: careless_ragged_dot(a, b, counts_E),
        jnp.ones((3, 2)), jnp.ones((2, 2, 2)))
    for rows in (out, pullback(jnp.ones((3, 2)))[0]):
      np.testing.assert_array_equal(rows, [[2, 2], [2, 2], [np.nan, np.nan]])

  @parameterized.parameters(*DISPATCHES)
  def test_bfloat16_is_near_float32(self, name):
    inputs = example('skewed')
    low = [a.astype(jnp.bfloat16) if a.dtype == jnp.float32 else a
           for a in inputs]
    with jax.numpy_dtype_promotion('strict'):
      out_MD = jax.jit(DISPATCHES[name])(*low)
    self.assertEqual(out_MD.dtype, jnp.bfloat16)
    np.testing.assert_allclose(
        out_MD.astype(jnp.float32), oracle(*inputs), atol=0.02)

  def test_three_sgd_steps_are_equal(self):
    tokens_BT, position_BT, segment_BT = toys.rows([[10, 13], [20]], 24)

    def train(name):
      model, params = toys.model_and_params('tiny_wide', moe_dispatch=name)
      optimizer = optax.sgd(0.3)

      def loss(params):
        out = model.apply({'params': params}, tokens_BT, position_BT,
                          segment_BT)
        logp_BT, _ = logprobs.token_logprobs(out.logits_BTV, tokens_BT,
                                             segment_BT)
        return -jnp.sum(logp_BT) / 43

      @jax.jit
      def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

      state, losses = optimizer.init(params), []
      for _ in range(3):
        params, state, value = step(params, state)
        losses.append(float(value))
      return params, losses

    want, losses = train('dense')
    self.assertLess(losses[2], losses[0] - 0.1)
    for name in ('block', 'ragged'):
      got, values = train(name)
      np.testing.assert_allclose(values, losses, rtol=1e-5)
      toys.assert_trees_close(got, want, atol=2e-5)

  def test_automatic_choice_by_size_and_platform(self):
    # 4 experts, 2 chosen: 2 tokens make 4 choices.
    config = variants.get('tiny')
    self.assertIs(moe.choose_dispatch(config, 2), moe.dense)
    self.assertIs(moe.choose_dispatch(config, 3), moe.block)
    with mock.patch.object(jax, 'default_backend', lambda: 'tpu'):
      self.assertIs(moe.choose_dispatch(config, 64), moe.ragged)
    forced = variants.get('tiny', moe_dispatch='ragged')
    self.assertIs(moe.choose_dispatch(forced, 64), moe.ragged)


route = jax.jit(moe.route, static_argnums=2)


class RouteTest(parameterized.TestCase):

  def test_hand_computed(self):
    # p = (1, 2, 4, 1) / 8; the best two are experts 2 and 1, gates 2/3, 1/3.
    gates_MX, experts_MX, stats = route(
        jnp.log(jnp.array([[1., 2., 4., 1.]])), jnp.ones(1), 2)
    np.testing.assert_array_equal(experts_MX, [[2, 1]])
    np.testing.assert_allclose(gates_MX, [[2 / 3, 1 / 3]], rtol=1e-6)
    np.testing.assert_allclose(stats.mean_prob_LE, [1/8, 2/8, 4/8, 1/8],
                               rtol=1e-6)
    np.testing.assert_allclose(stats.load_LE, [0, 2, 2, 0])
    np.testing.assert_allclose(stats.z_L, math.log(8)**2, rtol=1e-6)
    # H = 2 · 1/8 · log 8 + 1/4 · log 4 + 1/2 · log 2 = 1.75 log 2.
    np.testing.assert_allclose(stats.entropy_L, 1.75 * math.log(2), rtol=1e-6)

  def test_gates_are_a_softmax_over_the_chosen_logits(self):
    logits_ME = jnp.asarray(np.random.default_rng(0).normal(size=(9, 6)),
                            jnp.float32)
    gates_MX, experts_MX, _ = route(logits_ME, jnp.ones(9) / 9, 3)
    np.testing.assert_allclose(gates_MX.sum(axis=1), 1, rtol=1e-6)
    chosen_MX = jnp.take_along_axis(logits_ME, experts_MX, axis=1)
    np.testing.assert_allclose(gates_MX, jax.nn.softmax(chosen_MX, axis=1),
                               rtol=1e-5)

  @parameterized.parameters(0.0, 3.0, -50.0)
  def test_uniform_router_is_balanced_and_has_the_known_z(self, c):
    share_M = jnp.full(10, 0.1)
    _, _, stats = route(jnp.full((10, 8), c), share_M, 2)
    balance = jnp.sum(stats.load_LE * stats.mean_prob_LE)
    np.testing.assert_allclose(balance, 1, rtol=1e-5)
    np.testing.assert_allclose(stats.z_L, (c + math.log(8))**2, rtol=1e-5)
    np.testing.assert_allclose(stats.entropy_L, math.log(8), rtol=1e-5)

  def test_one_fixed_set_has_balance_experts_over_top_k(self):
    logits_ME = jnp.full((10, 8), -40.).at[:, 2:5].set(0.)
    _, experts_MX, stats = route(logits_ME, jnp.full(10, 0.1), 3)
    self.assertEqual(set(np.unique(experts_MX)), {2, 3, 4})
    balance = jnp.sum(stats.load_LE * stats.mean_prob_LE)
    np.testing.assert_allclose(balance, 8 / 3, rtol=1e-5)

  def test_load_carries_no_gradient_and_the_mean_probability_does(self):
    logits_ME = jnp.asarray(np.random.default_rng(0).normal(size=(9, 6)),
                            jnp.float32)
    weight_E = jnp.arange(6.)
    value = lambda field: lambda x: jnp.sum(
        weight_E * getattr(route(x, jnp.ones(9) / 9, 2)[2], field))
    np.testing.assert_array_equal(jax.grad(value('load_LE'))(logits_ME), 0)
    grad_ME = jax.grad(value('mean_prob_LE'))(logits_ME)
    p_ME = jax.nn.softmax(logits_ME, axis=1)
    mean_M1 = (p_ME @ weight_E)[:, None]
    np.testing.assert_allclose(
        grad_ME, p_ME * (weight_E[None] - mean_M1) / 9, atol=1e-6)

  def test_sums_over_parts_given_the_shares_of_the_whole(self):
    logits_ME = jnp.asarray(np.random.default_rng(0).normal(size=(12, 6)),
                            jnp.float32)
    share_M = jnp.asarray([0.1] * 10 + [0., 0.])  # the last two are padding
    stats = lambda part: route(logits_ME[part], share_M[part], 2)[2]
    whole = stats(slice(None))
    parts = jax.tree.map(jnp.add, stats(slice(0, None, 2)),
                         stats(slice(1, None, 2)))
    toys.assert_trees_close(parts, whole, rtol=1e-5)
    toys.assert_trees_close(stats(slice(0, 10)), whole, rtol=1e-5)
    np.testing.assert_allclose(jnp.mean(whole.load_LE), 1, rtol=1e-6)


if __name__ == '__main__':
  absltest.main()
