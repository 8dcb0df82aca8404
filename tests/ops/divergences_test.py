from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax.ops import divergences

POLICY_V = np.array([0.5, 0.3, 0.2])
REFERENCE_V = np.array([0.2, 0.2, 0.6])


def expected_gradient(estimator):
  """Σ_v π(v) ∂k(v)/∂logits, the draw itself not differentiated."""

  def total(logits_V):
    logp_BT = jax.nn.log_softmax(logits_V)[None]
    k_BT = estimator(logp_BT, jnp.log(REFERENCE_V)[None].astype(jnp.float32),
                     jnp.ones((1, 3), bool))
    return jnp.sum(jnp.asarray(POLICY_V, jnp.float32)[None] * k_BT)

  return jax.grad(total)(jnp.log(jnp.asarray(POLICY_V, jnp.float32)))


class DivergencesTest(parameterized.TestCase):

  def test_hand_computed(self):
    # d = log π - log π_ref = log 2: k1 = 0.6931, k2 = 0.2402,
    # k3 = 1/2 - 1 + log 2 = 0.1931.
    logp_BT = jnp.log(jnp.array([[0.5]]))
    ref_BT = jnp.log(jnp.array([[0.25]]))
    inside_BT = jnp.array([[True]])
    for estimator, expected in ((divergences.k1, 0.693147),
                                (divergences.k2, 0.240227),
                                (divergences.k3, 0.193147)):
      with jax.numpy_dtype_promotion('strict'):
        np.testing.assert_allclose(
            estimator(logp_BT, ref_BT, inside_BT), [[expected]], rtol=1e-5)

  @parameterized.parameters(divergences.k1, divergences.k3)
  def test_unbiased_over_the_policy(self, estimator):
    logp_BT = jnp.log(jnp.asarray(POLICY_V, jnp.float32))[None]
    ref_BT = jnp.log(jnp.asarray(REFERENCE_V, jnp.float32))[None]
    k_BT = estimator(logp_BT, ref_BT, jnp.ones((1, 3), bool))
    kl = np.sum(POLICY_V * np.log(POLICY_V / REFERENCE_V))
    np.testing.assert_allclose(np.sum(POLICY_V * k_BT[0]), kl, rtol=1e-5)

  def test_expected_gradients_are_those_the_docstring_names(self):
    def reverse_kl(logits_V):
      logp_V = jax.nn.log_softmax(logits_V)
      return jnp.sum(jnp.exp(logp_V) * (logp_V - jnp.log(REFERENCE_V)))

    def forward_kl(logits_V):
      logp_V = jax.nn.log_softmax(logits_V)
      return jnp.sum(REFERENCE_V * (jnp.log(REFERENCE_V) - logp_V))

    at_V = jnp.log(jnp.asarray(POLICY_V, jnp.float32))
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6)
    close(expected_gradient(divergences.k1), np.zeros(3))
    close(expected_gradient(divergences.k2), jax.grad(reverse_kl)(at_V))
    close(expected_gradient(divergences.k3), jax.grad(forward_kl)(at_V))

  def test_k3_is_never_negative_and_zero_at_equality_only(self):
    # Eighths are exact in float32, so that position 24 is the reference.
    logp_BT = jnp.arange(-48, 1, dtype=jnp.float32)[None] / 8
    ref_BT = jnp.full_like(logp_BT, -3.0)
    k3_BT = divergences.k3(logp_BT, ref_BT, jnp.ones_like(logp_BT, bool))
    self.assertEqual(float(k3_BT[0, 24]), 0.0)
    self.assertGreater(float(jnp.delete(k3_BT[0], 24).min()), 0.0)

  def test_k3_keeps_its_digits_next_to_the_reference(self):
    # k3 ≈ d²/2 = 5e-9 at d = 1e-4; exp(x) - 1 - x in float32 is off by 100 %.
    logp_BT = jnp.full((1, 1), 1e-4)
    k3_BT = divergences.k3(logp_BT, jnp.zeros((1, 1)), jnp.ones((1, 1), bool))
    np.testing.assert_allclose(k3_BT, [[5e-9]], rtol=1e-2)

  @parameterized.parameters(divergences.k1, divergences.k2, divergences.k3)
  def test_outside_tokens_have_value_and_gradient_zero(self, estimator):
    inside_BT = jnp.array([[True, False]])
    ref_BT = jnp.array([[-1.0, 200.0]])
    f = lambda x_BT: jnp.sum(estimator(x_BT, ref_BT, inside_BT))
    logp_BT = jnp.array([[-1.0, -200.0]])
    self.assertEqual(float(f(logp_BT)), 0.0)
    grad_BT = jax.grad(f)(logp_BT)
    self.assertTrue(np.isfinite(grad_BT).all())
    self.assertEqual(float(grad_BT[0, 1]), 0.0)


if __name__ == '__main__':
  absltest.main()
