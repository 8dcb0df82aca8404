import math

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np

from rljax.ops import logprobs


def example(seed=0):
  """Two rows: segments of 3 and 2 tokens with padding; one of 6 tokens."""
  rng = np.random.default_rng(seed)
  logits_BTV = jnp.asarray(rng.normal(size=(2, 6, 5)) * 2, jnp.float32)
  tokens_BT = rng.integers(0, 5, (2, 6), dtype=np.int32)
  segment_BT = np.array([[4, 4, 4, 9, 9, 0], [7] * 6], np.int32)
  return logits_BTV, tokens_BT, segment_BT


class TokenLogprobsTest(parameterized.TestCase):

  @parameterized.named_parameters(('eager', lambda f: f), ('jit', jax.jit))
  def test_hand_computed(self, transform):
    # Odds 1:3 at position 0, 1:1 at position 1. Token 1 is id 1: 3/4; token 2
    # is id 0: 1/2. H(1/4, 3/4) = 1/4 log 4 + 3/4 log 4/3; H(1/2, 1/2) = log 2.
    logits_BTV = jnp.log(jnp.array([[[1., 3.], [1., 1.], [1., 99.]]]))
    tokens_BT, segment_BT = np.array([[1, 1, 0]]), np.array([[5, 5, 5]])
    with jax.numpy_dtype_promotion('strict'):
      logp_BT, entropy_BT = transform(logprobs.token_logprobs)(
          logits_BTV, tokens_BT.astype(np.int32), segment_BT.astype(np.int32))
    np.testing.assert_allclose(
        logp_BT, [[0, math.log(3 / 4), math.log(1 / 2)]], rtol=1e-6)
    np.testing.assert_allclose(entropy_BT, [[
        0, math.log(4) / 4 + 3 * math.log(4 / 3) / 4, math.log(2)]], rtol=1e-6)

  def test_agrees_with_a_loop_over_positions(self):
    logits_BTV, tokens_BT, segment_BT = example()
    logp_BT, entropy_BT = logprobs.token_logprobs(logits_BTV, tokens_BT,
                                                  segment_BT, 0.7)
    for b in range(2):
      for t in range(6):
        want = want_entropy = 0.0
        if t and segment_BT[b, t] and segment_BT[b, t] == segment_BT[b, t - 1]:
          z = np.asarray(logits_BTV[b, t - 1], np.float64) / 0.7
          p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
          want = np.log(p[tokens_BT[b, t]])
          want_entropy = -(p * np.log(p)).sum()
        np.testing.assert_allclose(logp_BT[b, t], want, rtol=1e-5)
        np.testing.assert_allclose(entropy_BT[b, t], want_entropy, rtol=1e-5)

  def test_nothing_predicts_a_first_token_or_padding(self):
    logits_BTV, tokens_BT, segment_BT = example()
    logp_BT, entropy_BT = logprobs.token_logprobs(logits_BTV, tokens_BT,
                                                  segment_BT)
    first_or_pad = np.array([[1, 0, 0, 1, 0, 1], [1, 0, 0, 0, 0, 0]], bool)
    for values_BT in (logp_BT, entropy_BT):
      np.testing.assert_array_equal(np.asarray(values_BT) == 0, first_or_pad)

  def test_neither_the_last_logits_nor_those_of_padding_matter(self):
    # Row 0: positions 2 (end of a segment), 4 (end) and 5 (padding); row 1: 5.
    logits_BTV, tokens_BT, segment_BT = example()
    total = lambda x: sum(
        jnp.sum(y) for y in logprobs.token_logprobs(x, tokens_BT, segment_BT))
    moved_BT = np.any(np.asarray(jax.grad(total)(logits_BTV)) != 0, axis=-1)
    np.testing.assert_array_equal(
        moved_BT, np.array([[1, 1, 0, 1, 0, 0], [1, 1, 1, 1, 1, 0]], bool))

  def test_gradient_of_a_log_probability_is_onehot_minus_p(self):
    logits_BTV, tokens_BT, segment_BT = example()
    grad_TV = jax.grad(lambda x: logprobs.token_logprobs(
        x, tokens_BT, segment_BT)[0][1, 3])(logits_BTV)[1]
    p_V = jax.nn.softmax(logits_BTV[1, 2])
    np.testing.assert_allclose(
        grad_TV[2], np.eye(5)[tokens_BT[1, 3]] - p_V, atol=1e-6)
    np.testing.assert_array_equal(grad_TV[3:], 0)

  @parameterized.parameters(0, 1)
  def test_gradients_equal_finite_differences(self, which):
    logits_BTV, tokens_BT, segment_BT = example()
    value = lambda x: logprobs.token_logprobs(
        x, tokens_BT, segment_BT, 0.9)[which]
    check_grads(value, (logits_BTV,), order=1, modes=('rev',), atol=1e-2,
                rtol=1e-2, eps=1e-2)

  def test_large_logits_stay_finite(self):
    logits_BTV = jnp.array([[[1e4, -1e4], [0., 0.]]])
    logp_BT, entropy_BT = logprobs.token_logprobs(
        logits_BTV, np.array([[0, 1]], np.int32), np.ones((1, 2), np.int32))
    np.testing.assert_array_equal(logp_BT, [[0, -2e4]])
    np.testing.assert_array_equal(entropy_BT, [[0, 0]])

  def test_low_precision_logits_are_refused(self):
    logits_BTV, tokens_BT, segment_BT = example()
    with self.assertRaises(AssertionError):
      logprobs.token_logprobs(logits_BTV.astype(jnp.bfloat16), tokens_BT,
                              segment_BT)


if __name__ == '__main__':
  absltest.main()
