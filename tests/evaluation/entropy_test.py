from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax.evaluation import entropy
from rljax.ops import sampling
from rljax.types import Rollout

Candidate = entropy.Candidate


def make_rollout(entropy_PGT, logp_PGT, length_PG):
  length_PG = np.asarray(length_PG, np.int32)
  entropy_PGT = np.asarray(entropy_PGT, np.float32)
  return Rollout(
      prompts=tuple(np.array([p], np.int32) for p in range(len(length_PG))),
      tokens_PGT=np.zeros(entropy_PGT.shape, np.int32),
      logp_PGT=np.asarray(logp_PGT, np.float32), entropy_PGT=entropy_PGT,
      length_PG=length_PG, stopped_PG=np.ones(length_PG.shape, bool))


def toy_checkpoint(target, seed=0, shape=(40, 4, 32)):
  """Samples from a head whose temperature gives it the wanted entropy."""
  logits_V = np.random.default_rng(1).normal(size=50)

  def entropy_at(scale):
    p_V = np.exp(scale * logits_V - np.logaddexp.reduce(scale * logits_V))
    return -(p_V * np.log(p_V)).sum()

  low, high = 0.1, 100.0  # entropy falls as the scale grows
  for _ in range(60):
    middle = (low + high) / 2
    low, high = (middle, high) if entropy_at(middle) > target else (low, middle)
  count = int(np.prod(shape))
  logits_BV = jnp.broadcast_to(jnp.asarray(low * logits_V, jnp.float32)[None],
                               (count, 50))
  _, logp_B, entropy_B = sampling.sample(
      logits_BV, jax.random.split(jax.random.key(seed), count),
      sampling.make_params())
  return make_rollout(np.reshape(entropy_B, shape), np.reshape(logp_B, shape),
                      np.full(shape[:2], shape[2]))


class TokenEntropyTest(absltest.TestCase):

  def test_every_token_weighs_alike(self):
    # (1 + 3 + 3 + 3) / 4 = 2.5; the mean of the responses' means would be 2.
    # What lies beyond the lengths is not read.
    rollout = make_rollout([[[1, 99, 99]], [[3, 3, 3]]],
                           [[[-2, 99, 99]], [[-1, -2, -3]]], [[1], [3]])
    found = entropy.token_entropy(rollout, seed=0)
    self.assertAlmostEqual(found.estimate, 2.5)
    self.assertAlmostEqual(found.sampled, 2.0)
    # Two prompts: replicates are 1, 2.5 and 3.
    self.assertAlmostEqual(found.low, 1.0)
    self.assertAlmostEqual(found.high, 3.0)

  def test_interval_covers_the_mean_of_new_prompts_at_its_level(self):
    # Prompts differ in length and in entropy, long ones being more certain.
    rng = np.random.default_rng(0)

    def sample(num_prompts):
      length_P1 = rng.integers(1, 20, size=(num_prompts, 1))
      level_P = 2 / np.sqrt(length_P1[:, 0]) + rng.normal(
          scale=0.2, size=num_prompts)
      values = np.broadcast_to(level_P[:, None, None], (num_prompts, 1, 20))
      return make_rollout(values, -values, length_P1)

    truth = entropy.token_entropy(sample(100_000), seed=0,
                                  num_resamples=2).estimate
    covered = 0
    for trial in range(200):
      found = entropy.token_entropy(sample(60), seed=trial, num_resamples=300)
      covered += found.low <= truth <= found.high
    # 95 % of 200 is 190; three standard deviations and the small-sample
    # shortfall of the bootstrap leave 172.
    self.assertGreaterEqual(covered, 172)
    self.assertLess(covered, 200)

  def test_sampled_estimate_agrees_with_the_full_vocabulary(self):
    found = entropy.token_entropy(toy_checkpoint(0.4), seed=0)
    self.assertAlmostEqual(found.estimate, 0.4, places=3)
    self.assertAlmostEqual(found.sampled, 0.4, delta=0.05)

  def test_one_prompt_is_refused(self):
    rollout = make_rollout([[[1.0]]], [[[-1.0]]], [[1]])
    with self.assertRaisesRegex(ValueError, 'two prompts, got 1'):
      entropy.token_entropy(rollout, seed=0)


class ChooseCheckpointTest(parameterized.TestCase):

  def test_known_entropies_of_toy_heads(self):
    scores = {100: 0.2, 200: 0.5, 300: 0.6, 400: 0.9}
    targets = {100: 0.9, 200: 0.45, 300: 0.35, 400: 0.1}
    candidates = [
        Candidate(step, entropy.token_entropy(
            toy_checkpoint(targets[step], shape=(8, 2, 8)), seed=0).estimate,
                  scores[step]) for step in targets]
    chosen, warning = entropy.choose_checkpoint(candidates)
    self.assertEqual(chosen.step, 300)  # not 400, whose score is best
    self.assertIsNone(warning)

  def test_bounds_belong_to_the_band(self):
    for value in (0.3, 0.5):
      _, warning = entropy.choose_checkpoint([Candidate(1, value, 0.0)])
      self.assertIsNone(warning)

  @parameterized.parameters(False, True)
  def test_ties_go_to_the_earlier_step(self, reverse):
    candidates = [Candidate(200, 0.4, 0.5), Candidate(100, 0.35, 0.5),
                  Candidate(300, 0.45, 0.4)]
    chosen, _ = entropy.choose_checkpoint(
        candidates[::-1] if reverse else candidates)
    self.assertEqual(chosen.step, 100)

  @parameterized.parameters(
      # Distances 0.125 and 0.0625: the farther one's score does not matter.
      ([(1, 0.125, 0.9), (2, 0.5625, 0.1)], 2, 'above'),
      ([(1, 0.1875, 0.1), (2, 0.625, 0.9)], 1, 'below'),
      # Both 0.125 away: the better score.
      ([(1, 0.125, 0.1), (2, 0.625, 0.9)], 2, 'above'))
  def test_the_nearest_is_taken_with_a_warning_that_says_so(
      self, candidates, step, side):
    chosen, warning = entropy.choose_checkpoint(
        [Candidate(*c) for c in candidates], low=0.25, high=0.5)
    self.assertEqual(chosen.step, step)
    self.assertRegex(warning, f'inside 0.25-0.5 nats. Step {step} .*{side} the '
                     'band, is the nearest')

  def test_nothing_to_choose_from_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'at least one checkpoint'):
      entropy.choose_checkpoint([])
    with self.assertRaisesRegex(ValueError, 'finite'):
      entropy.choose_checkpoint([Candidate(1, float('nan'), 0.0)])
    with self.assertRaisesRegex(ValueError, 'Swap'):
      entropy.choose_checkpoint([Candidate(1, 0.4, 0.0)], low=0.5, high=0.3)


if __name__ == '__main__':
  absltest.main()
