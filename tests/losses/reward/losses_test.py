"""Reward losses against values by hand, and against each other."""
import itertools
import math

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax import losses
from rljax.losses.reward import bradley_terry
from rljax.losses.reward import gram
from rljax.losses.reward import plackett_luce
from tests.losses.reward import lists

# Δ: Bradley-Terry; GRAM's loss and slope at ε = 0.05 and at ε = 0.10.
GOLDEN = (
    (-2.0, 2.12692801, (2.02692801, -0.83079708), (1.92692801, -0.78079708)),
    (0.0, 0.69314718, (0.69314718, -0.45), (0.69314718, -0.40)),
    (1.3, 0.24100845, (0.30600845, -0.16416502), (0.37100845, -0.11416502)),
    (math.log(19), 0.05129329, (0.19851524, 0.0), (0.34573719, 0.05)),
    (6.0, 0.00247569, (0.30247569, 0.04752738), (0.60247569, 0.09752738)))


def slope(loss, gap, better=0):
  """dL/dΔ, by automatic differentiation."""
  score_BPC, batch = lists.pair(gap, better=better)
  return float(jax.grad(lambda x: loss(x, batch)[0])(score_BPC)[0, 0, better])


class GramTest(parameterized.TestCase):

  @parameterized.product(case=GOLDEN, better=(0, 1))
  def test_golden_values(self, case, better):
    gap, plain, *smoothed = case
    loss, metrics = gram.loss(*lists.pair(gap, better=better),
                              wrong_label_mass=0.0)
    self.assertAlmostEqual(float(loss), plain, delta=1e-6)
    self.assertEqual(float(metrics['accuracy']), float(gap > 0))
    self.assertAlmostEqual(float(metrics['gap']), gap, places=5)
    for mass, (value, derivative) in zip((0.05, 0.1), smoothed, strict=True):
      bound = losses.get('reward', 'gram', wrong_label_mass=mass).loss
      self.assertAlmostEqual(
          float(bound(*lists.pair(gap, better=better))[0]), value, delta=1e-6)
      self.assertAlmostEqual(slope(bound, gap, better), derivative, delta=1e-6)

  @parameterized.parameters(0.0, 0.01, 0.05, 0.2, 0.45)
  def test_three_forms_are_one(self, mass):
    delta = np.random.default_rng(0).normal(scale=3, size=50)
    log_sigmoid = lambda x: -np.logaddexp(0, -x)
    p = 1 / (1 + np.exp(-delta))
    kl_to_uniform = -math.log(2) - 0.5 * (np.log(p) + np.log1p(-p))
    forms = (
        -(1 - mass) * log_sigmoid(delta) - mass * log_sigmoid(-delta),
        -log_sigmoid(delta) + mass * delta,
        (1 - 2 * mass) * -log_sigmoid(delta)
        + mass * 2 * np.log(2 * np.cosh(delta / 2)),
        (1 - 2 * mass) * -log_sigmoid(delta)
        + 2 * mass * (kl_to_uniform + math.log(2)))
    for form in forms:
      np.testing.assert_allclose(
          [gram.loss(*lists.pair(d), wrong_label_mass=mass)[0] for d in delta],
          form, atol=1e-6, rtol=1e-5)

  def test_torch_smooths_over_both_classes(self):
    # Over two classes s puts 1 - s/2 on the gold one and s/2 on the other.
    for s in (0.05, 0.1, 0.15):
      score_BPC, batch = lists.random()
      logp_BPC = jax.nn.log_softmax(score_BPC, axis=-1)
      gold_BPC = batch.rank_BPC == 0
      target_BPC = (1 - s) * gold_BPC + s / 2
      want = -jnp.sum(batch.weight_BP * jnp.sum(target_BPC * logp_BPC, -1))
      alias, _ = gram.loss(score_BPC, batch, torch_label_smoothing=s)
      np.testing.assert_allclose(alias, want, rtol=1e-5)
      mine, _ = gram.loss(score_BPC, batch, wrong_label_mass=s / 2)
      self.assertEqual(float(alias), float(mine))
      # The trap: the same number under the other convention.
      other, _ = gram.loss(score_BPC, batch, wrong_label_mass=s)
      self.assertGreater(abs(float(other - want)), 1e-3)

  @parameterized.parameters(0.02, 0.1, 0.3)
  def test_the_optimum_is_log_odds_of_the_noise(self, mass):
    loss = losses.get('reward', 'gram', wrong_label_mass=mass).loss
    best = math.log((1 - mass) / mass)
    self.assertAlmostEqual(slope(loss, best), 0, delta=1e-6)
    self.assertLess(slope(loss, best - 0.1), 0)
    self.assertGreater(slope(loss, best + 0.1), 0)  # too sure is pushed back
    entropy = -mass * math.log(mass) - (1 - mass) * math.log(1 - mass)
    self.assertAlmostEqual(float(loss(*lists.pair(best))[0]), entropy, places=6)
    for gap in (-3.0, 0.3, 4.0):
      self.assertAlmostEqual(slope(loss, gap),
                             1 / (1 + math.exp(-gap)) - (1 - mass), places=6)

  def test_all_of_the_vocabulary_differs_by_the_mass_of_the_labels(self):
    rng = np.random.default_rng(0)
    logits_V = rng.normal(size=11)
    logp_V = logits_V - np.log(np.exp(logits_V).sum())
    score_BPC = logp_V[None, None, :2].astype(np.float32)
    batch = lists.batch([[[0, 1]]])
    two_way, _ = gram.loss(score_BPC, batch, wrong_label_mass=0.1)
    full, metrics = gram.loss(score_BPC, batch, wrong_label_mass=0.1,
                              mass_coef=1.0)
    both = np.log(np.exp(logp_V[:2]).sum())
    np.testing.assert_allclose(full - two_way, -both, rtol=1e-5)
    np.testing.assert_allclose(metrics['label_logp'], both, rtol=1e-5)
    # Over the vocabulary, as the figure has it.
    np.testing.assert_allclose(full, -0.9 * logp_V[0] - 0.1 * logp_V[1],
                               rtol=1e-5)

  def test_one_parameter_and_one_only(self):
    with self.assertRaisesRegex(ValueError, 'Give one'):
      gram.loss(*lists.pair(0.0), wrong_label_mass=0.05,
                torch_label_smoothing=0.1)
    for mass in (-0.1, 0.5, 0.9):
      with self.assertRaisesRegex(ValueError, r'\[0, 0.5\)'):
        gram.loss(*lists.pair(0.0), wrong_label_mass=mass)
    self.assertEqual(gram.label_mass(None, None), 0.05)
    self.assertEqual(gram.label_mass(None, 0.1), 0.05)

  def test_three_candidates_are_no_pair(self):
    with self.assertRaises(AssertionError):
      gram.loss(*lists.random(candidates=3))


class BradleyTerryTest(parameterized.TestCase):

  @parameterized.parameters(*GOLDEN)
  def test_golden_values(self, gap, plain, *_):
    loss, _ = bradley_terry.loss(*lists.pair(gap))
    self.assertAlmostEqual(float(loss), plain, delta=1e-6)

  def test_a_margin_moves_the_gap(self):
    # Δ = 1.3 with margin 3.3 is Δ = -2 without.
    arguments = lists.pair(1.3, margin=3.3)
    loss, metrics = bradley_terry.loss(*arguments, margin_coef=1.0)
    self.assertAlmostEqual(float(loss), 2.12692801, places=5)
    self.assertAlmostEqual(float(metrics['gap']), 1.3, places=5)
    ignored, _ = bradley_terry.loss(*arguments)
    self.assertAlmostEqual(float(ignored), 0.24100845, places=5)

  def test_without_labels_to_trust_it_is_gram(self):
    score_BPC, batch = lists.random()
    for mass in (0.0, 0.1):
      np.testing.assert_allclose(
          bradley_terry.loss(score_BPC, batch, wrong_label_mass=mass)[0],
          gram.loss(score_BPC, batch, wrong_label_mass=mass)[0], rtol=1e-6)

  def test_a_list_is_the_mean_of_its_pairs(self):
    # Scores 2, 0, -1, best first: gaps 2, 3, 1.
    loss, metrics = bradley_terry.loss(
        np.array([[[0.0, 2.0, -1.0]]], np.float32),
        lists.batch([[[1, 0, 2]]]))
    want = np.mean([math.log1p(math.exp(-gap)) for gap in (2, 3, 1)])
    self.assertAlmostEqual(float(loss), want, places=6)
    self.assertAlmostEqual(float(metrics['gap']), 2.0, places=6)

  def test_responses_that_tie_are_not_compared(self):
    score_BPC = np.array([[[0.0, 2.0, -1.0]]], np.float32)
    loss, _ = bradley_terry.loss(score_BPC, lists.batch([[[0, 0, 1]]]))
    want = np.mean([math.log1p(math.exp(-gap)) for gap in (1, 3)])
    self.assertAlmostEqual(float(loss), want, places=6)

  def test_numbers_out_of_range(self):
    for wrong in (dict(center_coef=-1.0), dict(margin_coef=-1.0),
                  dict(wrong_label_mass=0.5)):
      with self.assertRaisesRegex(ValueError, 'config.loss'):
        bradley_terry.loss(*lists.pair(0.0), **wrong)


class PlackettLuceTest(parameterized.TestCase):

  def test_by_hand(self):
    # Best first 2, 0, -1:  log(e² + 1 + 1/e) - 2  +  log(1 + 1/e) - 0.
    loss, metrics = plackett_luce.loss(
        np.array([[[0.0, 2.0, -1.0]]], np.float32), lists.batch([[[1, 0, 2]]]))
    e = math.e
    want = math.log(e ** 2 + 1 + 1 / e) - 2 + math.log(1 + 1 / e)
    self.assertAlmostEqual(float(loss), want, places=6)
    self.assertEqual(float(metrics['best_first']), 1.0)
    self.assertEqual(float(metrics['accuracy']), 1.0)

  @parameterized.parameters(
      ([0, 1, 2], [3, 1, 2], 1.0),
      ([0, 1, 2], [1, 3, 2], 0.0),
      ([2, 0, 1], [1, 2, 2], 1 / 2),   # shared with one that is worse
      ([0, 1, 2], [2, 2, 2], 1 / 3),   # a head that says nothing: chance
      ([1, 2, 0], [5, 5, 1], 0.0),     # the worse ones share it
      # Two best: either of them first is right, and they share with nobody.
      ([0, 0, 1], [3, 1, 2], 1.0),
      ([0, 0, 1], [1, 3, 2], 1.0),
      ([0, 0, 1], [3, 3, 2], 1.0),
      ([0, 0, 1], [1, 2, 3], 0.0),
      ([0, 0, 1], [3, 3, 3], 1 / 2),   # the best against a worse one
      ([0, 1, 1], [3, 3, 3], 1 / 3),
      ([0, 0, 0], [1, 2, 3], 1 / 2),   # nobody is better: no hit, no error
      ([0, 1, -1], [2, 1, 9], 1.0),    # not there
      ([0, -1, -1], [2, 1, 9], 1 / 2))
  def test_equals_are_neither_hits_nor_errors(self, rank_C, score_C, expected):
    found = plackett_luce.best_first(
        np.array([[score_C]], np.float32), lists.batch([[rank_C]]))
    np.testing.assert_allclose(found, [[expected]], rtol=1e-6)

  def test_where_the_best_stands_does_not_matter(self):
    # Negative control: the first of equal scores, which was taken before, is
    # the best one by the order of the ranks and a hit for all.
    score_BPC = np.zeros((1, 1, 4), np.float32)
    batch = lists.batch([[[0, 1, 2, 3]]])
    self.assertEqual(int(jnp.argmax(score_BPC)), 0)
    _, metrics = plackett_luce.loss(score_BPC, batch)
    self.assertAlmostEqual(float(metrics['best_first']), 1 / 4)
    self.assertEqual(float(metrics['accuracy']), 0.0)

  def test_two_candidates_are_bradley_terry(self):
    score_BPC, batch = lists.random()
    for coef in (0.0, 0.3):
      one, other = (jax.value_and_grad(lambda x: f(
          x, batch, center_coef=coef)[0])(score_BPC)
                    for f in (plackett_luce.loss, bradley_terry.loss))
      jax.tree.map(lambda x, y: np.testing.assert_allclose(
          x, y, rtol=1e-5, atol=1e-7), one, other)

  def test_it_is_a_distribution_over_rankings(self):
    score_BPC = np.random.default_rng(0).normal(size=(1, 1, 4)).astype('f')
    total = sum(math.exp(-float(plackett_luce.loss(
        score_BPC, lists.batch([[ranking]]))[0]))
                for ranking in itertools.permutations(range(4)))
    self.assertAlmostEqual(total, 1.0, places=5)

  def test_a_missing_candidate_is_no_candidate(self):
    short = plackett_luce.loss(np.array([[[1.0, 3.0, -2.0]]], np.float32),
                               lists.batch([[[1, 2, 0]]]))
    longer = plackett_luce.loss(
        np.array([[[1.0, 50.0, 3.0, -2.0, np.nan]]], np.float32),
        lists.batch([[[1, -1, 2, 0, -1]]]))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6),
                 short, longer)


class InvarianceTest(parameterized.TestCase):

  @parameterized.product(
      loss=(bradley_terry.loss, plackett_luce.loss), candidates=(2, 4))
  def test_a_constant_is_free_until_scores_are_centred(self, loss, candidates):
    score_BPC, batch = lists.random(candidates)
    np.testing.assert_allclose(loss(score_BPC + 3.0, batch)[0],
                               loss(score_BPC, batch)[0], rtol=1e-5)
    centred = lambda x: float(loss(x, batch, center_coef=0.1)[0])
    self.assertGreater(centred(score_BPC + 3.0) - centred(score_BPC), 1.0)

  def test_centring_by_hand(self):
    # (1.3 + 0)² · 0.5 on top.
    for loss in (bradley_terry.loss, plackett_luce.loss):
      found, _ = loss(*lists.pair(1.3), center_coef=0.5)
      self.assertAlmostEqual(float(found), 0.24100845 + 0.845, places=5)

  @parameterized.parameters(bradley_terry.loss, plackett_luce.loss, gram.loss)
  def test_the_other_label_is_the_other_sign(self, loss):
    score_BPC, batch = lists.random()
    other = batch.replace(rank_BPC=np.where(
        batch.rank_BPC >= 0, 1 - batch.rank_BPC, -1))
    np.testing.assert_allclose(loss(score_BPC, other)[0],
                               loss(-score_BPC, batch)[0], rtol=1e-5)


if __name__ == '__main__':
  absltest.main()
