"""Cached decoding against the full forward pass, and where responses end."""
import itertools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax.ops import routes
from tests import toys
from tests.rollout import samplers

KEY = samplers.KEY
STOP_IDS = samplers.STOP_IDS


class ParityTest(parameterized.TestCase):

  @parameterized.parameters('tiny', 'tiny_wide', 'tiny_yarn')
  def test_cached_decoding_equals_the_full_forward_after_refills(
      self, variant):
    model, params, sample = samplers.make(variant)
    found, counts = sample.counted(params, samplers.prompts(7), KEY,
                                   samples_per_prompt=3, temperature=0.8)
    self.assertGreater(counts.prefill_calls, 4)  # 21 responses, 4 slots
    self.assertGreater(len(np.unique(found.length_PG)), 5)
    for p in range(7):
      for g in range(3):
        logp, entropy, _, _ = samplers.forward(
            variant, model, params, found, p, g, temperature=0.8)
        length = found.length_PG[p, g]
        np.testing.assert_allclose(found.logp_PGT[p, g, :length], logp,
                                   atol=1e-5)
        np.testing.assert_allclose(found.entropy_PGT[p, g, :length], entropy,
                                   atol=1e-5)

  def test_the_check_notices_a_wrong_prompt(self):
    model, params, sample = samplers.make()
    found = sample(params, samplers.prompts(2), KEY, samples_per_prompt=1)
    found.prompts[0][-1] ^= 1
    logp, *_ = samplers.forward('tiny', model, params, found, 0, 0)
    self.assertGreater(np.abs(
        logp - found.logp_PGT[0, 0, :found.length_PG[0, 0]]).max(), 1e-2)

  def test_temperature_zero_is_the_greedy_full_forward(self):
    model, params, sample = samplers.make()
    found = sample(params, samplers.prompts(5), KEY, samples_per_prompt=2,
                   temperature=0.0)
    for p in range(5):
      length = found.length_PG[p, 0]
      _, _, logits_TV, _ = samplers.forward('tiny', model, params, found, p, 0)
      np.testing.assert_array_equal(found.tokens_PGT[p, 0, :length],
                                    jnp.argmax(logits_TV, axis=-1))
      np.testing.assert_array_equal(found.tokens_PGT[p, 0],
                                    found.tokens_PGT[p, 1])
    np.testing.assert_array_equal(found.logp_PGT, 0.0)

  def test_truncation_reports_its_own_distribution(self):
    model, params, sample = samplers.make()
    found = sample(params, samplers.prompts(3), KEY, samples_per_prompt=2,
                   top_k=5)
    for p in range(3):
      length = found.length_PG[p, 0]
      _, entropy, logits_TV, _ = samplers.forward(
          'tiny', model, params, found, p, 0)
      top_TX, ids_TX = jax.lax.top_k(logits_TV, 5)
      tokens_T = found.tokens_PGT[p, 0, :length]
      chosen_TX = np.asarray(ids_TX) == tokens_T[:, None]
      np.testing.assert_array_equal(chosen_TX.sum(axis=1), 1)
      np.testing.assert_allclose(
          found.logp_PGT[p, 0, :length],
          np.asarray(jax.nn.log_softmax(top_TX))[chosen_TX], atol=1e-5)
      np.testing.assert_allclose(found.entropy_PGT[p, 0, :length], entropy,
                                 atol=1e-5)

  def test_recorded_experts_are_those_of_every_token_that_was_fed(self):
    model, params, sample = samplers.make('tiny_wide', record_experts=True)
    _, _, without = samplers.make('tiny_wide')
    arguments = params, samplers.prompts(3), KEY
    found = sample(*arguments, samples_per_prompt=2)
    unrecorded = without(*arguments, samples_per_prompt=2)
    samplers.assert_same(found, unrecorded)
    self.assertIsNone(unrecorded.experts_PGSLX)
    # More samples than slots: slots have held other routes before.
    self.assertEqual(found.experts_PGSLX.dtype, np.uint8)
    self.assertEqual(found.experts_PGSLX.shape, (3, 2, 12 + 24, 3, 4))
    for p, g in itertools.product(range(3), range(2)):
      *_, experts_LSX = samplers.forward(
          'tiny_wide', model, params, found, p, g)
      end = len(found.prompts[p]) + found.length_PG[p, g] - 1
      np.testing.assert_array_equal(
          np.sort(found.experts_PGSLX[p, g, :end], axis=-1),
          np.sort(np.asarray(experts_LSX)[:, :end].swapaxes(0, 1), axis=-1))
      np.testing.assert_array_equal(found.experts_PGSLX[p, g, end:], 255)

  @parameterized.parameters((255, np.uint8, 255), (256, np.uint16, 65_535))
  def test_routes_take_as_few_bytes_as_they_need(self, experts, dtype, nobody):
    self.assertEqual(routes.dtype(experts), dtype)
    self.assertEqual(routes.unrecorded(routes.dtype(experts)), nobody)
    self.assertGreater(nobody, experts - 1)


class StopTest(absltest.TestCase):

  def test_a_response_ends_with_its_first_stop_token_or_at_the_limit(self):
    _, params, sample = samplers.make()
    found = sample(params, samplers.prompts(20), KEY, samples_per_prompt=4)
    for p, g in np.ndindex(found.length_PG.shape):
      length = found.length_PG[p, g]
      stops = np.isin(found.tokens_PGT[p, g, :length], STOP_IDS)
      self.assertFalse(stops[:-1].any())
      self.assertEqual(stops[-1], found.stopped_PG[p, g])
      self.assertTrue(stops[-1] or length == 24)
      np.testing.assert_array_equal(found.tokens_PGT[p, g, length:], 0)
      np.testing.assert_array_equal(found.logp_PGT[p, g, length:], 0)
    self.assertGreater(found.stopped_PG.sum(), 5)
    self.assertGreater((~found.stopped_PG).sum(), 5)

  def test_a_stop_token_at_the_limit_counts_as_stopped(self):
    _, params, sample = samplers.make()
    found = sample(params, samplers.prompts(60), KEY, samples_per_prompt=8,
                   max_new_tokens=1)
    np.testing.assert_array_equal(found.length_PG, 1)
    np.testing.assert_array_equal(
        found.stopped_PG, np.isin(found.tokens_PGT[..., 0], STOP_IDS))
    self.assertGreater(found.stopped_PG.sum(), 0)

  def test_a_lower_limit_cuts_the_same_responses_shorter(self):
    _, params, sample = samplers.make()
    whole = sample(params, samplers.prompts(5), KEY, samples_per_prompt=2)
    short = sample(params, samplers.prompts(5), KEY, samples_per_prompt=2,
                   max_new_tokens=6)
    np.testing.assert_array_equal(short.length_PG,
                                  np.minimum(whole.length_PG, 6))
    np.testing.assert_array_equal(short.tokens_PGT[..., :6],
                                  whole.tokens_PGT[..., :6])

  def test_token_zero_is_an_ordinary_token(self):
    # One direction of the last hidden state decides between 0 and the rest.
    # The parity would break if a 0 of prompt or response passed for padding.
    model, params = toys.model_and_params('tiny')
    kernel_DV = params['head']['kernel']
    sign_V = jnp.where(jnp.arange(272) == 0, 1.0, -1.0)
    params = params | {
        'head': {'kernel': kernel_DV[:, :1] * sign_V[None]},
        'final_norm': {'scale': 8 * params['final_norm']['scale']}}
    _, _, sample = samplers.make()
    found = sample(params, [[0, 0, 5, 0], [0]], KEY, samples_per_prompt=6)
    inside = np.arange(24) < found.length_PG[..., None]
    zeros_PG = ((found.tokens_PGT == 0) & inside).sum(axis=-1)
    self.assertGreater(zeros_PG.sum(), 10)
    for p, g in np.ndindex(found.length_PG.shape):
      logp, *_ = samplers.forward('tiny', model, params, found, p, g)
      np.testing.assert_allclose(
          found.logp_PGT[p, g, :found.length_PG[p, g]], logp, atol=1e-5)


if __name__ == '__main__':
  absltest.main()
