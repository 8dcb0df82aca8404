"""Preference losses against values by hand, and how they are related.

What all of them promise: `contract_test`.
"""
import math

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax import losses
from rljax.data import preference_tokens
from rljax.data import tokenizer
from rljax.ops import pairs
from rljax.packing import pairs as packing
from tests.losses.preference import golden

NAMES = losses.names('preference')


def get(name, **hparams):
  bound = losses.get('preference', name, **hparams)
  has_beta = 'beta' in bound.hparams and 'beta' not in hparams
  return losses.get('preference', name, **hparams, **(
      dict(beta=golden.BETA) if has_beta else {})).loss


class GoldenTest(parameterized.TestCase):

  @parameterized.parameters(*golden.LOSSES)
  def test_values(self, name, hparams, want):
    for dtype, tolerance in ((np.float64, 1e-6), (np.float32, 1e-5)):
      with jax.enable_x64(dtype == np.float64):
        for number in range(2):
          found, _ = get(name, **hparams)(*golden.pair(number, dtype))
          self.assertAlmostEqual(float(found), want[number], delta=max(
              tolerance, tolerance * abs(want[number])))

  def test_every_loss_has_values(self):
    self.assertEqual({name for name, *_ in golden.LOSSES}, set(NAMES))

  def test_tgdpo_by_token(self):
    with jax.enable_x64(True):
      for number, margin, slope in (
          (0, .78125, [-.164877, -.1531, -.180579, -.160951]),
          (1, -.34, [-.255583, -.3067, -.33591, 0])):
        logp_BT, batch = golden.pair(number)
        loss = get('tgdpo')
        grad = jax.grad(lambda x: loss(x, batch)[0])(logp_BT)
        np.testing.assert_allclose(grad[0, :4], slope, atol=1e-6)
        metrics = loss(logp_BT, batch)[1]
        self.assertAlmostEqual(float(metrics['weighted_margin']), margin)
        # By hand: 1.225 and .975 of pair 1, .875 and 1.175 of pair 2.
        self.assertAlmostEqual(float(metrics['guide_weight_least']),
                               (.975, .875)[number])
        self.assertAlmostEqual(float(metrics['guide_weight_most']),
                               (1.225, 1.175)[number])
        # The plain rewards are DPO's, whatever the weights.
        self.assertAlmostEqual(float(metrics['reward_margin']),
                               (.7, -.4)[number])


class SlopeTest(parameterized.TestCase):

  @parameterized.parameters(*NAMES)
  def test_gradients_by_finite_differences(self, name):
    with jax.enable_x64(True):
      logp_BT, batch = golden.random(dtype=np.float64)
      # Kinks of hinge and DPOP are not near; TDPO's divergence moves too.
      run = lambda x: get(name)(x, batch)[0]
      grad = jax.grad(run)(logp_BT)
      step = np.random.default_rng(1).normal(size=logp_BT.shape)
      slope = (run(logp_BT + 1e-6 * step) - run(logp_BT - 1e-6 * step)) / 2e-6
      self.assertAlmostEqual(float(slope), float(jnp.sum(grad * step)),
                             delta=1e-6)

  @parameterized.parameters(
      ('dpo', {}, math.log(2)), ('tgdpo', {}, math.log(2)),
      ('dpo', dict(length='mean'), math.log(2)), ('dpop', {}, math.log(2)),
      ('ipo', {}, 1.0), ('hinge', {}, 1.0), ('apo', {}, 1.0),
      ('sppo', {}, 2.0), ('bco', {}, 2 * math.log(2)),
      ('nca', {}, 2 * math.log(2)))
  def test_a_policy_that_is_the_reference(self, name, hparams, want):
    logp_BT, batch = golden.random()
    loss, metrics = get(name, **hparams)(logp_BT, batch.replace(
        ref_logp_BT=logp_BT))
    self.assertAlmostEqual(float(loss), want, places=6)
    self.assertEqual(float(metrics['reward_margin']), 0.0)


class ReductionsTest(parameterized.TestCase):

  def same(self, one, other):
    with jax.enable_x64(True):
      batch = golden.random(dtype=np.float64)
      run = lambda loss: jax.value_and_grad(lambda x: loss(x, batch[1])[0])(
          batch[0])
      jax.tree.map(lambda x, y: np.testing.assert_allclose(
          x, y, rtol=1e-10, atol=1e-12), run(one), run(other))

  @parameterized.parameters(
      ('dpo', dict(robust=True)), ('dpo', dict(length=1.0)),
      ('dpop', dict(penalty=0.0)), ('tgdpo', dict(alpha=0.0)),
      ('tdpo', dict(form=2, alpha=0.0)),
      ('mpo', dict(preference_coef=1.0, quality_coef=0.0,
                   generation_coef=0.0)))
  def test_to_dpo(self, name, hparams):
    self.same(get(name, **hparams), get('dpo'))

  @parameterized.parameters(0.5, 2.0)
  def test_the_reference_as_guide_is_dpo(self, alpha):
    guided = get('tgdpo', alpha=alpha)
    self.same(lambda x, batch: guided(x, batch.replace(
        guide_logp_BT=batch.ref_logp_BT)), get('dpo'))

  def test_half_wrong_labels_say_nothing(self):
    logp_BT, batch = golden.random()
    swapped = batch.replace(chosen_BT=~batch.chosen_BT)
    smooth = get('dpo', label_smoothing=0.5)
    np.testing.assert_allclose(smooth(logp_BT, batch)[0],
                               smooth(logp_BT, swapped)[0], rtol=1e-6)

  def test_swapped_sides_and_alpha_negate_the_margin_of_tgdpo(self):
    logp_BT, batch = golden.random()
    swapped = batch.replace(chosen_BT=~batch.chosen_BT)
    one = get('tgdpo', alpha=0.7)(logp_BT, batch)[1]['weighted_margin']
    other = get('tgdpo', alpha=-0.7)(logp_BT, swapped)[1]['weighted_margin']
    np.testing.assert_allclose(one, -other, rtol=1e-5)

  def test_tokens_beyond_the_shorter_response_count_as_told(self):
    logp_BT, batch = golden.pair(0, np.float32)  # 4 tokens against 3
    ratio_BT = pairs.log_ratios(logp_BT, batch)
    want = golden.BETA * (1.0 - 0.75 * float(ratio_BT[0, 3]) - -0.4)
    loss, _ = get('dpo', length=0.25)(logp_BT, batch)
    self.assertAlmostEqual(float(loss), math.log1p(math.exp(-want)), places=5)

  def test_a_length_penalty_stands_outside_of_beta(self):
    logp_BT, batch = golden.pair(0, np.float32)
    loss, _ = get('dpo', length_penalty=0.2)(logp_BT, batch)
    want = golden.BETA * 1.4 - 0.2 * (4 - 3)
    self.assertAlmostEqual(float(loss), math.log1p(math.exp(-want)), places=5)

  @parameterized.parameters(
      ('dpo', dict(label_smoothing=0.5, robust=True)), ('dpo', dict(length=2)),
      ('exo', dict(label_smoothing=0.0)), ('apo', dict(form='up')),
      ('dpo', dict(length='median')), ('dpo', dict(divergence='kl')),
      ('dpo', dict(divergence=1.5)), ('tdpo', dict(form=3)))
  def test_numbers_out_of_range_are_refused(self, name, hparams):
    with self.assertRaisesRegex(ValueError, 'Expected'):
      get(name, **hparams)(*golden.random())


class MixTest(parameterized.TestCase):

  def test_mpo_is_the_sum_of_its_parts(self):
    batch = golden.random()
    weights = dict(preference_coef=0.5, quality_coef=0.25, generation_coef=0.0)
    want = 0.5 * get('dpo')(*batch)[0] + 0.25 * get('bco')(*batch)[0]
    np.testing.assert_allclose(get('mpo', **weights)(*batch)[0], want,
                               rtol=1e-6)

  @parameterized.parameters('dpo', 'mpo')
  def test_the_weight_of_imitation_stands_on_imitation(self, name):
    # Of pair 0, -log π(w) / |w| = 2.6 / 4; the rest does not change.
    key = {'dpo': 'nll_coef', 'mpo': 'generation_coef'}[name]
    batch = golden.pair(0, np.float32)
    loss = lambda coef: float(get(name, **{key: coef})(*batch)[0])
    self.assertAlmostEqual(loss(3.0) - loss(1.0), 2 * 2.6 / 4, places=5)


class DivergenceTest(parameterized.TestCase):
  """f-DPO: ρ becomes f'(e^ρ), but for a constant that cancels."""

  @parameterized.parameters(
      (1.0, lambda u: -1 / u),                        # f = -log u: forward
      (0.5, lambda u: (1 - u ** -0.5) / 0.5),         # α
      ('js', lambda u: np.log(2 * u / (1 + u))))      # Jensen-Shannon
  def test_by_the_slope_of_f(self, divergence, slope):
    # Of pair 0, e^ρ is e and e^-0.4.
    want = golden.BETA * (slope(np.e) - slope(np.exp(-0.4)))
    loss, _ = get('dpo', divergence=divergence)(*golden.pair(0, np.float32))
    self.assertAlmostEqual(float(loss), math.log1p(math.exp(-want)), places=5)
    self.assertGreater(abs(float(loss) - .403186), 0.01)

  def test_a_small_alpha_is_near_dpo(self):
    batch = golden.random()
    np.testing.assert_allclose(get('dpo', divergence=1e-4)(*batch)[0],
                               get('dpo')(*batch)[0], rtol=1e-3)

  @parameterized.parameters(1.0, 0.3, 'js')
  def test_hundreds_of_nats_are_finite(self, divergence):
    logp_BT, batch = golden.random()
    for scale in (500.0, -500.0):
      (loss, _), grad = jax.value_and_grad(
          get('dpo', divergence=divergence), has_aux=True)(
              scale * logp_BT, batch)
      self.assertTrue(np.isfinite(loss) and np.isfinite(grad).all())


class KtoTest(parameterized.TestCase):

  def test_at_the_reference_both_sides_are_a_half(self):
    logp_BT, batch = golden.random()
    at = batch.replace(ref_logp_BT=logp_BT, kl_B=jnp.zeros_like(batch.kl_B))
    self.assertAlmostEqual(float(get('kto')(logp_BT, at)[0]), 0.5, places=6)

  @parameterized.parameters(True, False)
  def test_one_label_is_a_pair_with_one_side(self, chosen):
    # σ(-.5 (1 - .3)) and σ(-.5 (.3 + .4)) are the same; twice the weight of
    # the one that is there, and no trace of the other.
    logp_BT, batch = golden.pair(0, np.float32)
    alone = batch.replace(mask_BT=batch.mask_BT & (batch.chosen_BT == chosen))
    weights = dict(desirable_weight=2.0 if chosen else 9.0,
                   undesirable_weight=9.0 if chosen else 2.0)
    run = lambda x: get('kto', **weights)(x, alone)[0]
    self.assertAlmostEqual(float(run(logp_BT)), 2 * .413382, places=5)
    grad = np.asarray(jax.grad(run)(logp_BT))
    np.testing.assert_array_equal(grad != 0, alone.mask_BT)

  def test_labels_of_both_sides_are_a_pair(self):
    logp_BT, batch = golden.random()
    side = lambda chosen: get('kto')(logp_BT, batch.replace(
        mask_BT=batch.mask_BT & (batch.chosen_BT == chosen)))[0]
    np.testing.assert_allclose((side(True) + side(False)) / 2,
                               get('kto')(logp_BT, batch)[0], rtol=1e-6)

  def test_it_alone_takes_one_response(self):
    self.assertEqual([name for name in NAMES if losses.get(
        'preference', name).one_sided], ['kto'])

  def test_a_larger_divergence_asks_more_of_chosen_and_less_of_rejected(self):
    logp_BT, batch = golden.pair(0, np.float32)
    def loss(z, chosen):
      return float(get('kto')(logp_BT, batch.replace(
          kl_B=jnp.full(1, z), mask_BT=batch.mask_BT & (
              batch.chosen_BT == chosen)))[0])
    self.assertGreater(loss(1.0, True), loss(0.0, True))
    self.assertLess(loss(1.0, False), loss(0.0, False))

  def test_the_estimate_is_a_mean_over_the_examples_that_are_there(self):
    # ρ: 1 and -.4; alone, 1; a mean below 0 is none.
    logp_BT, batch = golden.pair(0, np.float32)
    self.assertAlmostEqual(float(pairs.mismatched_kl(logp_BT, batch)), 0.3,
                           places=5)
    alone = batch.replace(mask_BT=batch.mask_BT & batch.chosen_BT)
    self.assertAlmostEqual(float(pairs.mismatched_kl(logp_BT, alone)), 1.0,
                           places=5)
    other = batch.replace(mask_BT=batch.mask_BT & ~batch.chosen_BT)
    self.assertEqual(float(pairs.mismatched_kl(logp_BT, other)), 0.0)
    nobody = batch.replace(weight_BP=jnp.zeros((1, 1)))
    self.assertEqual(float(pairs.mismatched_kl(logp_BT, nobody)), 0.0)

  def test_the_estimate_has_no_gradient_and_hides_no_nan(self):
    logp_BT, batch = golden.random()
    batch = batch.replace(ref_logp_BT=logp_BT - 1)
    grad = jax.grad(lambda x: pairs.mismatched_kl(x, batch))(logp_BT)
    np.testing.assert_array_equal(grad, 0)
    broken = jnp.where(batch.mask_BT, jnp.nan, logp_BT)
    self.assertTrue(np.isnan(pairs.mismatched_kl(broken, batch)))

  def test_an_estimate_by_micro_batch_would_be_seen(self):
    # The reason that z comes with the step: parts have another one.
    logp_BT, batch = golden.random()
    batch = batch.replace(ref_logp_BT=batch.ref_logp_BT - 1)
    whole = pairs.mismatched_kl(logp_BT, batch)
    parts = [pairs.mismatched_kl(*jax.tree.map(
        lambda x: x[i::2], (logp_BT, batch))) for i in range(2)]
    self.assertGreater(max(abs(float(x - whole)) for x in parts), 0.05)


class TdpoTest(parameterized.TestCase):

  @parameterized.parameters((1, True), (2, False))
  def test_whether_the_divergence_of_chosen_responses_has_a_gradient(
      self, form, has_any):
    logp_BT, batch = golden.random()
    grad = jax.grad(lambda x: get('tdpo', form=form)(
        logp_BT, batch.replace(ref_kl_BT=x))[0])(batch.ref_kl_BT)
    chosen = np.asarray(grad)[batch.mask_BT & batch.chosen_BT]
    rejected = np.asarray(grad)[batch.mask_BT & ~batch.chosen_BT]
    self.assertEqual(bool(np.any(chosen < 0)), has_any)
    self.assertTrue(np.all(chosen <= 0) and np.all(rejected > 0))

  def test_rewards_hold_the_divergence(self):
    _, metrics = get('tdpo')(*golden.pair(0, np.float32))
    self.assertAlmostEqual(float(metrics['reward_chosen']), .5 * 1.4, places=5)
    self.assertAlmostEqual(float(metrics['reward_rejected']), .5 * -.2,
                           places=5)


class StepTest(parameterized.TestCase):

  @parameterized.parameters(('sum', True), ('mean', False))
  def test_steps_cancel_where_both_responses_begin_with_them(self, length,
                                                             same):
    ask = [{'role': 'user', 'content': 'Hi'}]
    steps = {'id': 'a', 'prompt': ask, 'steps': '1+1=2;', 'chosen': ' 2+3=5',
             'rejected': ' 2+3=', 'margin': None, 'domain': ''}
    whole = steps | {'steps': '', **{
        side: steps['steps'] + steps[side] for side in ('chosen', 'rejected')}}
    found = [self.loss(record, length) for record in (steps, whole)]
    self.assertEqual(abs(found[0] - found[1]) < 1e-5, same, found)

  def loss(self, record, length):
    """DPO's, of a policy and a reference that look back one token."""
    pair = preference_tokens.tokenize(
        tokenizer.ByteTokenizer(), record, ends=False)
    batch, _ = packing.pack_pairs([pair], num_rows=1, row_length=64,
                                  pairs_per_row=1)
    policy_VV, reference_VV = -np.random.default_rng(0).exponential(
        size=(2, 272, 272)).astype(np.float32)
    before_BT = np.roll(batch.tokens_BT, 1, axis=1)
    batch = batch.replace(ref_logp_BT=reference_VV[before_BT, batch.tokens_BT])
    loss, _ = get('dpo', length=length)(
        jnp.asarray(policy_VV[before_BT, batch.tokens_BT]), batch)
    self.assertGreater(abs(float(loss) - math.log(2)), 0.01)
    return float(loss)


class SumsTest(parameterized.TestCase):

  def test_lengths_count_the_tokens_that_are_scored(self):
    _, batch = golden.pair(0, np.float32)
    length = pairs.lengths(batch)
    self.assertEqual(float(length.chosen_BP[0, 0]), 4)
    self.assertEqual(float(length.rejected_BP[0, 0]), 3)

  def test_token_weights_are_means_of_sides_of_pairs(self):
    # 4 and 3 tokens: 1/8 each and 1/6 each; one in all.
    _, batch = golden.pair(0, np.float32)
    weight_BT = pairs.token_weights(batch)
    np.testing.assert_allclose(weight_BT[0], [1 / 8] * 4 + [1 / 6] * 3 + [0],
                               rtol=1e-6)
    np.testing.assert_allclose(jnp.sum(pairs.token_weights(golden.random()[1])),
                               1, rtol=1e-6)

  @parameterized.parameters(-1e-7, -1e-4, -0.5, -0.7, -30.0)
  def test_odds_keep_their_digits(self, logp):
    # Of ORPO: log p - log(1 - p), which cancels near p = 1 if written so.
    logp_BT, batch = golden.pair(0, np.float32)
    both = jnp.where(batch.chosen_BT, logp, -1.0)
    found = get('orpo')(both.astype(jnp.float32), batch)[1]['log_odds']
    odds = lambda x: x - math.log(-math.expm1(x))
    self.assertAlmostEqual(float(found), odds(float(np.float32(logp)))
                           - odds(-1.0), delta=1e-4)


class GuideTest(parameterized.TestCase):

  def test_weights_that_are_not_positive_are_counted(self):
    logp_BT, batch = golden.pair(0, np.float32)
    at = batch.ref_logp_BT[0, 1]
    for below, count in ((3.9, 0.0), (4.1, 1 / 4 / 2)):
      # 1 + α β (lg - lr) = 0 at lg - lr = -1 / (0.5 · 0.5)
      guide_BT = batch.ref_logp_BT.at[0, 1].set(at - below)
      _, metrics = get('tgdpo')(logp_BT, batch.replace(guide_logp_BT=guide_BT))
      self.assertAlmostEqual(float(metrics['guide_not_positive']), count)

  def test_a_clip_keeps_weights_near_1(self):
    batch = golden.random()
    self.assertEqual(float(get('tgdpo', weight_clip=0.0)(*batch)[0]),
                     float(get('dpo')(*batch)[0]))

  def test_a_liked_token_is_pushed_harder_if_chosen_and_less_if_not(self):
    logp_BT, batch = golden.pair(0, np.float32)
    def slopes(at):
      more = batch.guide_logp_BT.at[0, at].add(0.3)
      grad = jax.grad(lambda x: get('tgdpo')(x, batch.replace(
          guide_logp_BT=more))[0])(logp_BT)
      plain = jax.grad(lambda x: get('tgdpo')(x, batch)[0])(logp_BT)
      share = lambda g: abs(g[0, at]) / jnp.nansum(jnp.abs(g))
      return share(grad) / share(plain)
    self.assertGreater(slopes(1), 1.02)
    self.assertLess(slopes(5), 0.98)

  def test_a_shared_prefix_counts_unless_masked(self):
    """Equal responses: DPO's margin is 0, TGDPO's is not."""
    logp_BT, batch = golden.pair(0, np.float32)
    twice = lambda x: jnp.concatenate([x[:, :3], x[:, 3:4] * 0] * 2, axis=1)
    tokens_BT = jnp.asarray([[5, 6, 7, 0, 5, 6, 7, 0]], jnp.int32)
    inside_BT = jnp.asarray([[1, 1, 1, 0] * 2], bool)
    same = batch.replace(
        tokens_BT=tokens_BT, mask_BT=inside_BT,
        pair_BT=inside_BT.astype(jnp.int32),
        segment_BT=jnp.asarray([[1, 1, 1, 0, 2, 2, 2, 0]], jnp.int32),
        ref_logp_BT=twice(batch.ref_logp_BT),
        guide_logp_BT=twice(batch.guide_logp_BT))
    margin = lambda **hparams: float(get('tgdpo', **hparams)(
        twice(logp_BT), same)[1]['weighted_margin'])
    rho = np.array([.1, .3, .7])
    like = golden.BETA * np.array([.2, -.1, .6])
    self.assertAlmostEqual(margin(), 2 * 0.5 * golden.BETA * float(
        like @ rho), places=5)
    self.assertEqual(margin(mask_shared_prefix=True), 0.0)
    # From where they differ on, they count.
    other = same.replace(tokens_BT=tokens_BT.at[0, 5].set(9))
    found = np.asarray(pairs.in_shared_prefix(other))[0]
    np.testing.assert_array_equal(found, [1, 0, 0, 0, 1, 0, 0, 0])

  def test_weights_that_are_masked_are_not_reported(self):
    # Of pair 0 the first tokens are alike. Weights behind them: .975, 1.15,
    # 1.025 and .975, 1.15; log-ratios .3, .7, -.1 and -.2, .3.
    logp_BT, batch = golden.pair(0, np.float32)
    guide_BT = batch.guide_logp_BT.at[0, 0].add(-9.0)  # not positive there
    batch = batch.replace(
        tokens_BT=jnp.asarray([[5, 6, 7, 8, 5, 9, 9, 0]], jnp.int32),
        guide_logp_BT=guide_BT)
    want = dict(guide_weight_chosen=1.05, guide_weight_rejected=1.0625,
                guide_weight_least=.975, guide_weight_most=1.15,
                guide_not_positive=0.0, weighted_margin=.5 * (.995 - .15))
    found = get('tgdpo', mask_shared_prefix=True)(logp_BT, batch)[1]
    self.assertEqual({name: round(float(found[name]), 5) for name in want},
                     want)
    plain = get('tgdpo')(logp_BT, batch)[1]
    for name in ('reward_chosen', 'reward_rejected'):  # DPO's, of all tokens
      self.assertEqual(float(found[name]), float(plain[name]))
    self.assertEqual(float(plain['guide_not_positive']), 1 / 4 / 2)
    self.assertAlmostEqual(float(plain['guide_weight_most']), 1.225, places=5)

  def test_no_guide_is_refused(self):
    logp_BT, batch = golden.random()
    with self.assertRaisesRegex(ValueError, 'guide, got none'):
      get('tgdpo')(logp_BT, batch.replace(guide_logp_BT=None))


if __name__ == '__main__':
  absltest.main()
