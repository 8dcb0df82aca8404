import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax.losses.policy import c3po
from rljax.losses.policy import dapo
from rljax.losses.policy import dr_grpo
from rljax.losses.policy import grpo
from tests.losses.policy import batches


class C3poTest(parameterized.TestCase):

  @parameterized.named_parameters(('eager', lambda f: f), ('jit', jax.jit))
  def test_hand_computed(self, transform):
    # One row, Φ = 2, ε = 0.2, β = 0, old log-probability 0 everywhere.
    #   ratio      1.5    0.5    9.0
    #   advantage  1.0   -1.0    1.0
    #   gain       1.2   -0.8    (not selected)     -> loss = -(1.2 - 0.8) / 2
    rows = batches.make_rows([[1, 1, 1]], [[1, 1, 0]], 2)
    batch = batches.make_batch(c3po.token_weights(rows), [[1.0, -1.0, 1.0]])
    loss_fn = transform(functools.partial(c3po.loss, clip_eps=0.2, kl_coef=0.0))
    with jax.numpy_dtype_promotion('strict'):
      loss, metrics = loss_fn(jnp.log(jnp.array([[1.5, 0.5, 9.0]])), batch)
    np.testing.assert_allclose(loss, -0.2, rtol=1e-6)
    np.testing.assert_allclose(metrics['clip_fraction'], 1.0)
    np.testing.assert_allclose(metrics['budget_fill'], 1.0)

  @parameterized.parameters(1, 3, 7)
  def test_gradient_per_token_ignores_response_length(self, length):
    mask_BT = (np.arange(8) < length)[None]
    rows = batches.make_rows(np.ones((1, 8)), mask_BT, 16)
    batch = batches.make_batch(
        c3po.token_weights(rows), 3.0, old=-1.0, ref=-1.0)
    grad_BT = jax.grad(lambda x: c3po.loss(x, batch)[0])(batch.old_logp_BT)
    np.testing.assert_allclose(
        grad_BT, np.where(mask_BT, -3 / 16, 0.0), rtol=1e-6)

  def test_ratio_to_grpo_is_the_length_of_the_response(self):
    # c3po : grpo = (1/Φ) : (1/(R ℓ)) = R ℓ / Φ, with R = 2, Φ = 5, ℓ = 1, 4.
    rows = batches.make_rows([[1, 2, 2, 2, 2]], np.ones((1, 5)), 5)
    ratio_BT = c3po.token_weights(rows) / grpo.token_weights(rows)
    np.testing.assert_allclose(
        ratio_BT, [[0.4, 1.6, 1.6, 1.6, 1.6]], rtol=1e-6)

  def test_full_budget_is_dapo_and_a_multiple_of_dr_grpo(self):
    # Σℓ = Φ = 6, R = 3, longest allowed 4: Dr. GRPO = C3PO · 6 / (3 · 4).
    mask_BT = [[1, 1, 1, 1], [1, 1, 0, 0]]
    rows = batches.make_rows([[1, 1, 1, 2], [3, 3, 0, 0]], mask_BT, 6, 4)
    rng = np.random.default_rng(0)
    logp_BT, advantage_BT = (
        rng.normal(size=(2, 4)).astype(np.float32) for _ in range(2))

    def gradient(module, **kw):
      batch = batches.make_batch(module.token_weights(rows), advantage_BT)
      return jax.grad(
          lambda x: module.loss(x, batch, kl_coef=0.0, **kw)[0])(logp_BT)

    c3po_BT = gradient(c3po, clip_eps=0.2)
    self.assertGreater(float(jnp.abs(c3po_BT).max()), 0.01)
    np.testing.assert_allclose(
        c3po_BT, gradient(dapo, clip_low=0.2, clip_high=0.2), rtol=1e-6)
    np.testing.assert_allclose(
        0.5 * c3po_BT, gradient(dr_grpo, clip_eps=0.2), rtol=1e-6)

  def test_short_budget_is_not_dapo(self):
    # Four of Φ = 6 tokens: C3PO still divides by 6, and says so.
    rows = batches.make_rows([[1, 1, 1, 2]], np.ones((1, 4)), 6)
    batch = batches.make_batch(c3po.token_weights(rows), 1.0)
    loss, metrics = c3po.loss(jnp.zeros((1, 4)), batch, kl_coef=0.0)
    np.testing.assert_allclose(loss, -4 / 6, rtol=1e-6)
    np.testing.assert_allclose(metrics['budget_fill'], 4 / 6, rtol=1e-6)
    np.testing.assert_allclose(dapo.token_weights(rows).sum(), 1.0, rtol=1e-6)

  def test_penalty_shares_the_tokens_and_the_constant(self):
    # k3 at ρ = 1/2: 1/2 - 1 + log 2 = 0.193147, on 2 of Φ = 4 tokens, β = 0.1.
    rows = batches.make_rows([[1, 1, 1]], [[1, 1, 0]], 4)
    batch = batches.make_batch(c3po.token_weights(rows), 0.0, ref=-np.log(2))
    loss, metrics = c3po.loss(jnp.zeros((1, 3)), batch, kl_coef=0.1)
    np.testing.assert_allclose(metrics['kl'], 0.193147 / 2, rtol=1e-5)
    np.testing.assert_allclose(loss, 0.0193147 / 2, rtol=1e-5)

  def test_default_penalty_needs_a_reference(self):
    rows = batches.make_rows([[1]], [[1]], 1)
    batch = batches.make_batch(c3po.token_weights(rows), 1.0)
    with self.assertRaisesRegex(ValueError, 'set kl_coef=0'):
      c3po.loss(jnp.zeros((1, 1)), batch)


class GradientScaleTest(parameterized.TestCase):
  """Scale of the gradient when responses get longer, at A = 1.

  Per-token gradients are independent normals of mean 1 and variance 1. The
  step's gradient Σ w g has mean Σ w and variance Σ w².
  """

  def moments(self, module, length, rule):
    token_budget, num_responses = 64, 16
    count = (
        token_budget // length if rule == 'budget' else num_responses)
    segment_BT = np.zeros((num_responses * 4, 16), np.int32)
    segment_BT[:count, :length] = 1 + np.arange(count)[:, None]
    rows = batches.make_rows(segment_BT, segment_BT > 0, token_budget, 16)
    weight_BT = np.asarray(module.token_weights(rows), np.float64)
    rng = np.random.default_rng(length)
    noise_SN = 1 + rng.normal(size=(8_000, int((weight_BT > 0).sum())))
    step_S = noise_SN @ weight_BT[weight_BT > 0]
    return step_S.mean(), step_S.var()

  @parameterized.parameters(1, 4, 16)
  def test_c3po_keeps_mean_and_variance(self, length):
    # Σ w = 1 and Σ w² = 1/64; 8,000 draws: within 4 standard errors.
    mean, variance = self.moments(c3po, length, 'budget')
    np.testing.assert_allclose(mean, 1.0, atol=4 * 0.125 / 89)
    np.testing.assert_allclose(variance, 1 / 64, rtol=4 * 0.016)

  def test_the_others_do_not(self):
    # GRPO: variance 1/(16 ℓ). Dr. GRPO: mean ℓ/16. Sixteen-fold each.
    _, short = self.moments(grpo, 1, 'all')
    _, long = self.moments(grpo, 16, 'all')
    np.testing.assert_allclose(short / long, 16, rtol=0.1)
    short, _ = self.moments(dr_grpo, 1, 'all')
    long, _ = self.moments(dr_grpo, 16, 'all')
    np.testing.assert_allclose(long / short, 16, rtol=0.1)


if __name__ == '__main__':
  absltest.main()
