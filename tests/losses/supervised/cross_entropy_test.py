from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax.losses.supervised import cross_entropy
from rljax.types import SupervisedBatch


def make_batch(mask_BT):
  mask_BT = jnp.asarray(mask_BT, bool)
  return SupervisedBatch(
      tokens_BT=None, position_BT=None, segment_BT=None,
      weight_BT=cross_entropy.token_weights(mask_BT), share_BT=None,
      load_BLE=None)


class CrossEntropyTest(parameterized.TestCase):

  @parameterized.named_parameters(('eager', lambda f: f), ('jit', jax.jit))
  def test_hand_computed(self, transform):
    # Targets: -1, -2, -6; mean 3. The mask has a hole inside the first row.
    logp_BT = jnp.array([[-1.0, -50.0, -2.0], [-7.0, -6.0, 200.0]])
    batch = make_batch([[1, 0, 1], [0, 1, 0]])
    with jax.numpy_dtype_promotion('strict'):
      loss, metrics = transform(cross_entropy.loss)(logp_BT, batch)
    np.testing.assert_allclose(loss, 3.0)
    np.testing.assert_allclose(metrics['nll'], 3.0)

  def test_uniform_model_costs_the_log_of_the_vocabulary(self):
    logp_BT = jnp.full((3, 4), -np.log(256), jnp.float32)
    loss, _ = cross_entropy.loss(logp_BT, make_batch(np.ones((3, 4))))
    np.testing.assert_allclose(loss, np.log(256), rtol=1e-6)

  def test_micro_batches_add_up_however_unequal(self):
    logp_BT = jnp.asarray(
        -np.random.default_rng(0).random((4, 6)), jnp.float32)
    mask_BT = np.zeros((4, 6), bool)
    mask_BT[0, :] = mask_BT[3, 2] = True  # rows 1 and 2 are empty
    batch = make_batch(mask_BT)
    whole = cross_entropy.loss(logp_BT, batch)
    parts = [cross_entropy.loss(
        logp_BT[i::2], batch.replace(weight_BT=batch.weight_BT[i::2]))
             for i in range(2)]
    jax.tree.map(
        lambda a, b, c: np.testing.assert_allclose(a + b, c, rtol=1e-6),
        *parts, whole)
    # The mean of the micro-batches' own means is another number.
    means = [-logp_BT[i::2][mask_BT[i::2]].mean() for i in range(2)]
    self.assertGreater(abs(float(sum(means) / 2 - whole[0])), 1e-3)

  def test_gradient_is_minus_the_weight_and_zero_off_the_targets(self):
    batch = make_batch([[1, 0, 1], [0, 0, 0]])
    logp_BT = jnp.array([[-1.0, -jnp.inf, -2.0], [jnp.nan, 0.0, 1.0]])
    grad_BT = jax.grad(lambda x: cross_entropy.loss(x, batch)[0])(logp_BT)
    np.testing.assert_array_equal(grad_BT, [[-0.5, 0, -0.5], [0, 0, 0]])

  def test_half_precision_is_refused(self):
    with self.assertRaises(AssertionError):
      cross_entropy.loss(jnp.zeros((1, 2), jnp.bfloat16), make_batch([[1, 1]]))


if __name__ == '__main__':
  absltest.main()
