import functools

from absl.testing import absltest
from absl.testing import parameterized
from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rljax.ops import masking
from rljax.training import forward
from rljax.training import metrics as logging
from rljax.training import state
from rljax.training import update
from rljax.types import TrainState
from tests import toys
from tests.training import steps

TOLERANCE = 2e-5


@functools.cache
def one_batch():
  """The step that every other layout must repeat."""
  step = steps.example()
  params, metrics = steps.sgd_step(step, step.batch)
  return step, params, metrics


class SameStepTest(parameterized.TestCase):
  """An SGD step depends on the responses, not on how they are laid out."""

  def check(self, layout, num_microbatches):
    step, want, want_metrics = one_batch()
    got, metrics = steps.sgd_step(step, steps.lay_out(step.batch, layout),
                                  num_microbatches=num_microbatches)
    toys.assert_trees_close(got, want, atol=TOLERANCE, rtol=0)
    toys.assert_trees_close(metrics, want_metrics, atol=TOLERANCE, rtol=1e-5)

  def test_the_step_is_worth_comparing(self):
    step, params, metrics = one_batch()
    for path, change in jax.tree_util.tree_leaves_with_path(
        jax.tree.map(lambda a, b: np.abs(a - b).max(), params, step.params)):
      self.assertGreater(change, 50 * TOLERANCE, jax.tree_util.keystr(path))
    self.assertGreater(metrics['clip_fraction'], 0.05)
    self.assertLess(metrics['budget_fill'], 0.9)  # 64 of 80 tokens
    self.assertGreater(metrics['router_balance'], 1.0)
    self.assertEqual(metrics['nonfinite_grads'], 0)

  @parameterized.parameters(2, 4, 8)
  def test_micro_batches(self, num_microbatches):
    self.check(steps.ALONE, num_microbatches)

  def test_permuted_rows(self):
    self.check(steps.PERMUTED, 4)

  def test_packed_rows(self):
    self.check(steps.PACKED, 1)

  def test_packed_rows_with_empty_micro_batches(self):
    self.check(steps.WITH_EMPTY_ROWS, 8)

  def test_what_stands_at_padding(self):
    step, want, _ = one_batch()
    pad_BT = step.batch.segment_BT == 0
    batch = step.batch.replace(
        tokens_BT=np.where(pad_BT, 3, step.batch.tokens_BT),
        position_BT=np.where(pad_BT, 77, step.batch.position_BT))
    got, _ = steps.sgd_step(step, batch)
    toys.assert_trees_close(got, want, atol=TOLERANCE, rtol=0)

  def test_a_mean_per_micro_batch_is_another_step(self):
    # Negative control: every micro-batch divides by its own tokens.
    step, _, _ = one_batch()
    whole = steps.loss_fn(step.model)

    def mean_loss(params, batch, key):
      return whole(params, batch.replace(
          weight_BT=masking.uniform_weights(batch.weight_BT > 0) / 4,
          share_BT=masking.uniform_weights(batch.segment_BT > 0) / 4), key)

    want, _ = steps.sgd_step(step, step.batch.replace(weight_BT=np.asarray(
        masking.uniform_weights(step.batch.weight_BT > 0))))
    got, _ = steps.sgd_step(step, step.batch, loss=mean_loss,
                            num_microbatches=4)
    self.assertGreater(toys.largest_difference(got, want), 100 * TOLERANCE)

  def test_the_load_must_be_that_of_the_step(self):
    # Without it one batch finds the same load itself; micro-batches do not.
    step, want, _ = one_batch()
    batch = step.batch.replace(load_BLE=None)
    alone, _ = steps.sgd_step(step, batch)
    toys.assert_trees_close(alone, want, atol=TOLERANCE, rtol=0)
    apart, _ = steps.sgd_step(step, batch, num_microbatches=8)
    self.assertGreater(toys.largest_difference(apart, want), 10 * TOLERANCE)


@struct.dataclass
class Points:
  """A batch for losses that need no model."""
  segment_BT: jax.Array
  x_BT: jax.Array


def points(rows=4):
  return Points(np.ones((rows, 2), np.int32),
                np.arange(2 * rows, dtype=np.float32).reshape(rows, 2) / 8)


def square_loss(params, batch, key):
  noise = jax.random.normal(key, ())
  loss = jnp.sum(jnp.square(params['w'] - batch.x_BT)) / 8
  return loss, {'draw': noise, 'rows': jnp.float32(batch.x_BT.shape[0])}


def begin(optimizer, w=2.0):
  params = {'w': jnp.float32(w)}
  return TrainState(jnp.int32(0), params, optimizer.init(params))


class UpdateTest(parameterized.TestCase):

  def test_hand_computed(self):
    # x = 0, 1/8, ..., 7/8, mean 7/16. d/dw Σ(w - x)² / 8 = 2 (w - 7/16), at 2
    # 3.125. A step of 0.1: w = 1.6875. The loss is 2.66796875 before it:
    # Σ (16 - i)² / 64 / 8 with i = 0..7: (256 + ... + 81) / 512 = 1292 / 512.
    optimizer = optax.sgd(0.1)
    run = update.make_update_fn(square_loss, optimizer, num_microbatches=2)
    new, metrics = run(begin(optimizer), points(), jax.random.key(0))
    np.testing.assert_allclose(new.params['w'], 1.6875, rtol=1e-6)
    np.testing.assert_allclose(metrics['grad_norm'], 3.125, rtol=1e-6)
    np.testing.assert_allclose(metrics['loss'], 1292 / 512, rtol=1e-6)
    self.assertEqual(metrics['rows'], 4)
    self.assertEqual(new.step, 1)
    self.assertEqual(new.step.dtype, jnp.int32)

  def test_keys_differ_by_step_and_micro_batch_and_repeat(self):
    optimizer = optax.sgd(0.1)
    one = update.make_update_fn(square_loss, optimizer)
    two = update.make_update_fn(square_loss, optimizer, num_microbatches=2)
    draw = lambda run, step: float(run(
        begin(optimizer).replace(step=jnp.int32(step)), points(),
        jax.random.key(0))[1]['draw'])
    self.assertNotEqual(draw(one, 0), draw(one, 1))
    self.assertEqual(draw(one, 1), draw(one, 1))
    # Alike keys in both micro-batches would give twice the first draw.
    self.assertGreater(abs(draw(two, 0) - 2 * draw(one, 0)), 1e-3)

  def test_the_state_is_donated_and_a_copy_survives(self):
    optimizer = optax.sgd(0.1)
    run = update.make_update_fn(square_loss, optimizer)
    old = begin(optimizer)
    alias, copy = old.params, state.frozen_copy(old.params)
    run(old, points(), jax.random.key(0))
    self.assertEqual(copy['w'], 2)
    with self.assertRaisesRegex(RuntimeError, 'deleted'):
      np.asarray(alias['w'])

  @parameterized.parameters(np.nan, np.inf)
  def test_gradients_that_are_not_finite_are_counted(self, bad):
    optimizer = optax.sgd(0.1)
    run = update.make_update_fn(square_loss, optimizer, num_microbatches=2)
    batch = points()
    batch.x_BT[1, 1] = bad
    _, metrics = run(begin(optimizer), batch, jax.random.key(0))
    self.assertEqual(metrics['nonfinite_grads'], 1)
    _, metrics = run(begin(optimizer), points(), jax.random.key(0))
    self.assertEqual(metrics['nonfinite_grads'], 0)

  def test_rows_that_do_not_split_are_refused(self):
    optimizer = optax.sgd(0.1)
    run = update.make_update_fn(square_loss, optimizer, num_microbatches=3)
    with self.assertRaisesRegex(ValueError, '4 rows.*3 micro-batches.*Choose'):
      run(begin(optimizer), points(), jax.random.key(0))

  def test_a_run_resumed_from_stored_arrays_gives_the_same_bits(self):
    step = steps.example()
    optimizer = optax.adamw(1e-2)
    run = update.make_update_fn(
        steps.loss_fn(step.model), optimizer, num_microbatches=8)
    key = state.named_keys(3, 'update')['update']

    def train(now, count):
      for _ in range(count):
        now, _ = run(now, step.batch, key)
      return now

    def fresh():
      params = state.frozen_copy(step.params)
      return TrainState(jnp.int32(0), params, optimizer.init(params))

    whole = train(fresh(), 4)
    stored = jax.tree.map(np.asarray, train(fresh(), 2))
    resumed = train(jax.tree.map(jnp.asarray, stored), 2)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)

  def test_one_compilation_for_all_steps(self):
    step = steps.example()
    run = steps.sgd_update(steps.loss_fn(step.model), 8)
    steps.take(run, step, step.batch)
    with logging.CompilationCounter() as counter:
      for layout in (steps.PERMUTED, steps.WITH_EMPTY_ROWS):
        steps.take(run, step, steps.lay_out(step.batch, layout))
    self.assertEqual(counter.counts['update'], 0)


class SupervisedTest(absltest.TestCase):

  def test_the_objective_may_be_any_sum(self):
    # compose adds the terms; without coefficients only the objective is left.
    step = steps.example()
    plain = forward.compose(
        forward.make_forward(step.model),
        lambda logp_BT, batch: (-jnp.sum(batch.weight_BT * logp_BT), {}))
    value, _ = jax.jit(plain)(step.params, step.batch, jax.random.key(0))
    scores = jax.jit(forward.make_forward(step.model))(step.params, step.batch)
    np.testing.assert_allclose(
        value, -np.sum(step.batch.weight_BT * scores.logp_BT), rtol=1e-5)


if __name__ == '__main__':
  absltest.main()
