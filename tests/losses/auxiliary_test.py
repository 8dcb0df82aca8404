import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax.losses import auxiliary
from rljax.types import RouterStats

NUM_LAYERS, NUM_EXPERTS, TOP_K = 2, 64, 6


@functools.partial(jax.jit, static_argnames='top_k')
def router_stats(logits_LBTE, share_BT, top_k=TOP_K):
  """The sums of `RouterStats`, written out from router logits."""
  num_experts = logits_LBTE.shape[-1]
  prob_LBTE = jax.nn.softmax(logits_LBTE)
  _, experts_LBTX = jax.lax.top_k(logits_LBTE, top_k)
  chosen_LBTE = jax.nn.one_hot(experts_LBTX, num_experts).sum(3)
  over_tokens = lambda x: jnp.einsum('lbt...,bt->l...', x, share_BT)
  lse_LBT = jax.nn.logsumexp(logits_LBTE, axis=-1)
  log_prob_LBTE = jax.nn.log_softmax(logits_LBTE)
  return RouterStats(
      mean_prob_LE=over_tokens(prob_LBTE),
      load_LE=over_tokens(chosen_LBTE) * num_experts / top_k,
      z_L=over_tokens(lse_LBT**2),
      entropy_L=over_tokens(-jnp.sum(prob_LBTE * log_prob_LBTE, -1)),
      experts_LBTX=experts_LBTX)


def random_logits(seed, shape_BT=(4, 5)):
  share_BT = jnp.full(shape_BT, 1 / np.prod(shape_BT), jnp.float32)
  logits_LBTE = np.random.default_rng(seed).normal(
      size=(NUM_LAYERS, *shape_BT, NUM_EXPERTS))
  return jnp.asarray(logits_LBTE, jnp.float32), share_BT


class RouterTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.enter_context(jax.numpy_dtype_promotion('strict'))

  def test_uniform_router_has_balance_one(self):
    share_BT = jnp.full((2, 3), 1 / 6)
    stats = router_stats(jnp.zeros((NUM_LAYERS, 2, 3, NUM_EXPERTS)), share_BT)
    term, metrics = auxiliary.router_balance(stats, balance_coef=1e-5)
    np.testing.assert_allclose(metrics['router_balance'], 1.0, rtol=1e-5)
    np.testing.assert_allclose(term, 1e-5, rtol=1e-5)

  def test_one_set_of_experts_for_all_tokens_has_balance_e_over_k(self):
    # All mass on the six chosen: P = 1/6, F = 64/6, Σ F P = 64/6 = 10.67.
    logits_E = jnp.where(jnp.arange(NUM_EXPERTS) < TOP_K, 0.0, -1e4)
    logits_LBTE = jnp.broadcast_to(logits_E, (NUM_LAYERS, 2, 3, NUM_EXPERTS))
    stats = router_stats(logits_LBTE, jnp.full((2, 3), 1 / 6))
    _, metrics = auxiliary.router_balance(stats, balance_coef=1.0)
    np.testing.assert_allclose(
        metrics['router_balance'], NUM_EXPERTS / TOP_K, rtol=1e-5)

  def test_gradient_reaches_the_router_through_the_probabilities_only(self):
    logits_LBTE, share_BT = random_logits(0)
    stats = router_stats(logits_LBTE, share_BT)

    def term(mean_prob_LE, load_LE):
      changed = stats.replace(mean_prob_LE=mean_prob_LE, load_LE=load_LE)
      return auxiliary.router_balance(changed, balance_coef=1.0)[0]

    to_prob_LE, to_load_LE = jax.grad(term, argnums=(0, 1))(
        stats.mean_prob_LE, stats.load_LE)
    np.testing.assert_allclose(to_prob_LE, stats.load_LE / NUM_LAYERS,
                               rtol=1e-6)
    np.testing.assert_array_equal(to_load_LE, 0.0)

  def test_a_step_against_the_gradient_balances_the_router(self):
    bias_E = jnp.linspace(0.0, 1.0, NUM_EXPERTS)
    logits_LBTE, share_BT = random_logits(1)

    @jax.jit
    def balance(bias_E):
      biased_LBTE = logits_LBTE + bias_E[None, None, None]
      stats = router_stats(biased_LBTE, share_BT)
      return auxiliary.router_balance(stats, balance_coef=1.0)[0]

    moved_E = bias_E - 5.0 * jax.grad(balance)(bias_E)
    self.assertLess(float(balance(moved_E)), float(balance(bias_E)))

  def test_adds_up_over_rows_with_the_load_of_the_step(self):
    logits_LBTE, share_BT = random_logits(2)
    whole = router_stats(logits_LBTE, share_BT)
    halves = [router_stats(logits_LBTE[:, i::2], share_BT[i::2])
              for i in range(2)]
    expected, _ = auxiliary.router_balance(whole, balance_coef=1.0)
    parts = [auxiliary.router_balance(h, whole.load_LE, balance_coef=1.0)[0]
             for h in halves]
    np.testing.assert_allclose(sum(parts), expected, rtol=1e-5)
    # Without it the parts are products of halves: not the same number.
    own = sum(auxiliary.router_balance(h, balance_coef=1.0)[0] for h in halves)
    self.assertGreater(abs(float(own - expected)), 0.1)
    z_parts = [auxiliary.router_z(h, z_coef=1.0)[0] for h in halves]
    np.testing.assert_allclose(
        sum(z_parts), auxiliary.router_z(whole, z_coef=1.0)[0], rtol=1e-5)

  def test_constant_logits_have_z_of_the_squared_log_sum(self):
    # log Σ_64 exp(3) = 3 + log 64 = 7.1589; squared 51.25.
    logits_LBTE = jnp.full((NUM_LAYERS, 2, 3, NUM_EXPERTS), 3.0)
    stats = router_stats(logits_LBTE, jnp.full((2, 3), 1 / 6))
    term, metrics = auxiliary.router_z(stats, z_coef=1e-7)
    expected = (3 + np.log(NUM_EXPERTS))**2
    np.testing.assert_allclose(metrics['router_z'], expected, rtol=1e-5)
    np.testing.assert_allclose(term, 1e-7 * expected, rtol=1e-5)

  def test_padding_does_not_enter(self):
    logits_LBTE, _ = random_logits(3)
    share_BT = jnp.zeros((4, 5)).at[:, :3].set(1 / 12)
    poisoned_LBTE = logits_LBTE.at[:, :, 3:].set(50.0)
    for f in (lambda s: auxiliary.router_balance(s, balance_coef=1.0)[0],
              lambda s: auxiliary.router_z(s, z_coef=1.0)[0]):
      np.testing.assert_allclose(
          f(router_stats(logits_LBTE, share_BT)),
          f(router_stats(poisoned_LBTE, share_BT)), rtol=1e-6)


class EntropyTest(parameterized.TestCase):

  def entropy_of(self, logits_BTV):
    log_prob_BTV = jax.nn.log_softmax(logits_BTV)
    return -jnp.sum(jnp.exp(log_prob_BTV) * log_prob_BTV, axis=-1)

  def test_hand_computed(self):
    # (log 2 + 0) / 2 · 0.01; the third token has no weight.
    entropy_BT = jnp.array([[np.log(2.0), 0.0, jnp.nan]], jnp.float32)
    weight_BT = jnp.array([[0.5, 0.5, 0.0]])
    with jax.numpy_dtype_promotion('strict'):
      term, metrics = auxiliary.entropy_bonus(
          entropy_BT, weight_BT, entropy_coef=0.01)
    np.testing.assert_allclose(metrics['entropy'], np.log(2) / 2, rtol=1e-6)
    np.testing.assert_allclose(term, -0.01 * np.log(2) / 2, rtol=1e-6)

  @parameterized.parameters(False, True)
  def test_a_step_raises_the_entropy_unless_the_sign_is_literal(self, literal):
    logits_BTV = jnp.asarray(
        np.random.default_rng(0).normal(size=(2, 3, 7)), jnp.float32)
    weight_BT = jnp.full((2, 3), 1 / 6)

    @jax.jit
    def term(logits_BTV):
      return auxiliary.entropy_bonus(
          self.entropy_of(logits_BTV), weight_BT, entropy_coef=1.0,
          literal_sign=literal)[0]

    moved_BTV = logits_BTV - 0.5 * jax.grad(term)(logits_BTV)
    change = (self.entropy_of(moved_BTV) - self.entropy_of(logits_BTV)).sum()
    self.assertEqual(float(change) > 0, not literal)


if __name__ == '__main__':
  absltest.main()
