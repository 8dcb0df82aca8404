from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from rljax.ops import sampling
from rljax.training import metrics

# Exact probabilities, out of order, so that ids and ranks differ.
P_V = np.array([0.1, 0.4, 0.05, 0.3, 0.15])
LOGITS_V = np.log(P_V).astype(np.float32)

TRUNCATE = jax.jit(sampling.truncate)
SAMPLE = jax.jit(sampling.sample)


def rows_of(logits_V, count):
  return jnp.broadcast_to(jnp.asarray(logits_V)[None], (count, len(logits_V)))


def support(logits_V, **options):
  """Ids that survive the truncation."""
  params = sampling.make_params(**options)
  z_BV = sampling.scale(rows_of(logits_V, 1), params.temperature)
  with jax.numpy_dtype_promotion('strict'):
    kept_BV = TRUNCATE(z_BV, params)
  return np.flatnonzero(np.isfinite(kept_BV[0])).tolist()


def draw(logits_V, count, seed=0, **options):
  keys = jax.random.split(jax.random.key(seed), count)
  with jax.numpy_dtype_promotion('strict'):
    return SAMPLE(
        rows_of(logits_V, count), keys, sampling.make_params(**options))


class SupportTest(parameterized.TestCase):

  @parameterized.parameters(
      # Ranked: id 1 (0.4), 3 (0.3), 4 (0.15), 0 (0.1), 2 (0.05).
      (dict(), [0, 1, 2, 3, 4]),
      (dict(top_k=1), [1]),
      (dict(top_k=3), [1, 3, 4]),
      (dict(top_k=5), [0, 1, 2, 3, 4]),
      (dict(top_k=99), [0, 1, 2, 3, 4]),
      # 0.4 + 0.3 = 0.7 >= 0.6; 0.7 < 0.75 <= 0.85.
      (dict(top_p=0.3), [1]),
      (dict(top_p=0.6), [1, 3]),
      (dict(top_p=0.75), [1, 3, 4]),
      (dict(top_p=1e-6), [1]),
      # Thresholds 0.4 · 0.3 = 0.12 and 0.4 · 0.2 = 0.08.
      (dict(min_p=0.3), [1, 3, 4]),
      (dict(min_p=0.2), [0, 1, 3, 4]),
      (dict(min_p=1.0), [1]),
      # Top-p sees the top 3 renormalised: 0.47 + 0.35 = 0.82 >= 0.8; of all
      # five it would take three tokens.
      (dict(top_k=3, top_p=0.8), [1, 3]),
      (dict(top_p=0.8), [1, 3, 4]),
      (dict(top_k=4, min_p=0.3), [1, 3, 4]),
      # τ = 2: roots 0.632, 0.548, 0.387, 0.316, 0.224 of sum 2.107, so 0.300,
      # 0.260, ...: two tokens reach 0.55, which 0.4 + 0.3 did at τ = 1.
      (dict(temperature=2.0, top_p=0.58), [1, 3, 4]),
      (dict(temperature=1.0, top_p=0.58), [1, 3]),
  )
  def test_hand_computed(self, options, expected):
    self.assertEqual(support(LOGITS_V, **options), expected)

  def test_equal_tokens_are_cut_at_exactly_k_lower_ids_first(self):
    self.assertEqual(support(np.zeros(6, np.float32), top_k=2), [0, 1])
    # Each 1/6: 0.5 needs three of them.
    self.assertEqual(support(np.zeros(6, np.float32), top_p=0.5), [0, 1, 2])

  def test_top_p_of_one_keeps_tokens_that_rounding_would_drop(self):
    # 0.5, 0.5 and a tail of 1e-9: the float32 sum is 1 after two.
    logits_V = np.log(np.array([0.5, 0.5, 1e-9])).astype(np.float32)
    self.assertEqual(support(logits_V, top_p=1.0, top_k=3), [0, 1, 2])
    self.assertEqual(support(logits_V, top_p=1.0, min_p=1e-12), [0, 1, 2])


class BoundaryTest(parameterized.TestCase):

  @parameterized.parameters(
      dict(top_k=5), dict(top_p=0.8), dict(min_p=0.1),
      dict(top_k=9, top_p=0.7), dict(top_k=49))
  def test_the_support_is_known_again_after_rounding(self, **options):
    # Every second id is as likely as the one before it.
    rng = np.random.default_rng(0)
    z_BV = np.repeat(rng.normal(size=(64, 25)) * 3, 2, axis=1).astype(
        np.float32)
    params = sampling.make_params(**options)
    edge = jax.jit(sampling.boundary)(z_BV, params)
    id_V = np.arange(50, dtype=np.int32)
    want_BV = np.isfinite(TRUNCATE(z_BV, params))
    self.assertTrue(np.all(want_BV.sum(axis=1) < 50))
    for rounding in (0, 1e-6, -1e-6):
      again_BV = z_BV * np.float32(1 + rounding)
      np.testing.assert_array_equal(
          sampling.inside(again_BV, id_V, edge), want_BV)
    # Equality with the last logit inside, instead, depends on rounding.
    exact_BV = z_BV * np.float32(1 - 1e-6) >= edge.least_B[:, None]
    self.assertFalse(np.array_equal(exact_BV, want_BV))

  @parameterized.parameters(0, 3)
  def test_if_the_rest_is_impossible_all_others_are_inside(self, top_k):
    z_BV = jnp.array([[-jnp.inf, 1., 0., -jnp.inf, 2.]])
    edge = sampling.boundary(z_BV, sampling.make_params(top_k=top_k))
    kept_BV = sampling.inside(z_BV, jnp.arange(5), edge)
    self.assertTrue(np.all(kept_BV[0, jnp.array([1, 2, 4])]))


class SampleTest(parameterized.TestCase):

  @parameterized.parameters(
      dict(), dict(temperature=0.5), dict(top_k=3), dict(top_p=0.6),
      dict(min_p=0.3), dict(temperature=2.0, top_k=4, top_p=0.9))
  def test_logp_normalises_over_the_support(self, **options):
    token_B, logp_B, _ = draw(LOGITS_V, 2_000, **options)
    inside = support(LOGITS_V, **options)
    self.assertEqual(np.unique(token_B).tolist(), inside)
    first = [np.flatnonzero(token_B == v)[0] for v in inside]
    np.testing.assert_allclose(np.exp(logp_B)[first].sum(), 1.0, rtol=1e-6)

  @parameterized.parameters(
      (dict(), P_V),
      # Renormalised over {1, 3}: 4/7 and 3/7.
      (dict(top_k=2), np.array([0, 4 / 7, 0, 3 / 7, 0])),
      # τ = 1/2 squares: 0.01, 0.16, 0.0025, 0.09, 0.0225 of sum 0.285.
      (dict(temperature=0.5), P_V ** 2 / 0.285))
  def test_frequencies_follow_the_reported_distribution(self, options, p_V):
    token_B, logp_B, _ = draw(LOGITS_V, 20_000, seed=3, **options)
    inside = p_V > 0
    counts_V = np.bincount(token_B, minlength=5)
    self.assertEqual(counts_V[~inside].sum(), 0)
    p_value = stats.chisquare(
        counts_V[inside], 20_000 * p_V[inside] / p_V.sum()).pvalue
    self.assertGreater(p_value, 1e-3)
    np.testing.assert_allclose(logp_B, np.log(p_V[token_B]), rtol=2e-5)

  def test_the_chi_square_test_notices_a_wrong_temperature(self):
    token_B, _, _ = draw(LOGITS_V, 20_000, seed=3, temperature=0.9)
    counts_V = np.bincount(token_B, minlength=5)
    self.assertLess(stats.chisquare(counts_V, 20_000 * P_V).pvalue, 1e-6)

  def test_entropy_is_at_the_temperature_and_before_truncation(self):
    expected = -(P_V * np.log(P_V)).sum()
    for options in (dict(), dict(top_k=1), dict(top_p=0.5)):
      _, _, entropy_B = draw(LOGITS_V, 3, **options)
      np.testing.assert_allclose(entropy_B, expected, rtol=1e-6)
    q_V = np.sqrt(P_V) / np.sqrt(P_V).sum()
    _, _, entropy_B = draw(LOGITS_V, 3, temperature=2.0)
    np.testing.assert_allclose(entropy_B, -(q_V * np.log(q_V)).sum(), rtol=1e-6)

  def test_temperature_zero_takes_the_likeliest_with_certainty(self):
    token_B, logp_B, entropy_B = draw(LOGITS_V, 500, temperature=0.0)
    np.testing.assert_array_equal(token_B, 1)
    np.testing.assert_array_equal(logp_B, 0.0)
    np.testing.assert_array_equal(entropy_B, 0.0)
    token_B, _, _ = draw(LOGITS_V, 500, temperature=1e-3)
    np.testing.assert_array_equal(token_B, 1)  # the limit it stands for

  def test_a_row_depends_on_its_own_logits_and_key_alone(self):
    rng = np.random.default_rng(0)
    logits_BV = jnp.asarray(rng.normal(size=(64, 11)), jnp.float32)
    keys = jax.random.split(jax.random.key(1), 64)
    order = rng.permutation(64)
    for options in (dict(), dict(top_k=5, top_p=0.9)):
      params = sampling.make_params(**options)
      whole = SAMPLE(logits_BV, keys, params)
      other = SAMPLE(logits_BV[order], keys[order], params)
      jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[order], b),
                   whole, other)
      # The other rows' contents do not matter either.
      changed = SAMPLE(logits_BV.at[1:].multiply(-3.0), keys, params)
      jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[0]),
                   whole, changed)

  def test_equal_keys_draw_equal_tokens_and_different_keys_differ(self):
    logits_BV = jnp.zeros((2, 1_000))
    same = jnp.broadcast_to(jax.random.key(0), (2,))
    token_B, _, _ = sampling.sample(logits_BV, same, sampling.make_params())
    self.assertEqual(token_B[0], token_B[1])
    token_B, _, _ = draw(np.zeros(1_000, np.float32), 2)
    self.assertNotEqual(token_B[0], token_B[1])

  def test_changing_any_number_compiles_nothing(self):
    # A function of its own: jit shares its cache between equal ones.
    @jax.jit
    def sample_any(*arguments):
      return sampling.sample(*arguments)

    logits_BV, keys = jnp.zeros((2, 7)), jax.random.split(jax.random.key(0))
    with metrics.CompilationCounter() as counter:
      for options in (dict(), dict(temperature=0.0), dict(temperature=1),
                      dict(top_k=3), dict(top_p=0.5), dict(min_p=0.1)):
        sample_any(logits_BV, keys, sampling.make_params(**options))
    self.assertEqual(counter.counts['sample_any'], 1)

  def test_impossible_tokens_do_not_poison_the_entropy(self):
    logits_V = np.array([0.0, 0.0, -np.inf], np.float32)
    _, logp_B, entropy_B = draw(logits_V, 2)
    np.testing.assert_allclose(entropy_B, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(logp_B, -np.log(2), rtol=1e-6)

  @parameterized.parameters(
      dict(temperature=-0.1), dict(temperature=float('nan')),
      dict(temperature=float('inf')), dict(top_k=-1), dict(top_k=1.5),
      dict(top_p=0.0), dict(top_p=1.01), dict(min_p=-0.1), dict(min_p=1.1))
  def test_numbers_out_of_range_are_refused(self, **options):
    (name, value), = options.items()
    with self.assertRaisesRegex(ValueError, f'{name}.*got {value}'):
      sampling.make_params(**options)


if __name__ == '__main__':
  absltest.main()
