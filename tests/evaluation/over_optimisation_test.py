"""Best of n against all subsets, and curves that fall or do not."""
import itertools

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from rljax.evaluation import over_optimisation


def brute_force(proxy, gold, n):
  """Mean over all subsets; equal scores share."""
  values = []
  for chosen in itertools.combinations(range(len(proxy)), n):
    most = max(proxy[i] for i in chosen)
    values.append(np.mean([gold[i] for i in chosen if proxy[i] == most]))
  return np.mean(values)


class ExpectationTest(parameterized.TestCase):

  @parameterized.parameters(
      ([1, 2, 3, 4], [0.0, 1.0, 2.0, 5.0]),
      ([4, 1, 3, 2], [0.5, -1.0, 2.0, 5.0]))
  def test_all_subsets(self, proxy, gold):
    found = over_optimisation.expected_best([proxy], [gold])[0]
    np.testing.assert_allclose(
        found, [brute_force(proxy, gold, n) for n in (1, 2, 3, 4)])

  def test_equal_scores_share_their_level(self):
    # Scores 1, 2, 2: of two samples the best level is 2 always, and its gold
    # the mean of 3 and 5 by symmetry.
    found = over_optimisation.expected_best([[1, 2, 2]], [[0.0, 3.0, 5.0]])[0]
    np.testing.assert_allclose(found, [8 / 3, 4, 4])

  def test_the_first_n_samples_estimate_the_same_with_more_noise(self):
    # What is often done: the best of the first n. Same mean, wider.
    rng = np.random.default_rng(0)
    proxy = rng.normal(size=(2_000, 8))
    found = over_optimisation.expected_best(proxy, proxy)[:, 3]
    first = proxy[:, :4].max(axis=1)
    np.testing.assert_allclose(found.mean(), first.mean(), atol=0.06)
    self.assertLess(found.std(), 0.9 * first.std())

  def test_kl(self):
    # log 2 - 1/2 and log 4 - 3/4; none for n = 1.
    np.testing.assert_allclose(over_optimisation.kl_of_best_of([1, 2, 4]),
                               [0, 0.193147, 0.636294], atol=1e-6)
    with self.assertRaisesRegex(ValueError, 'n >= 1'):
      over_optimisation.kl_of_best_of(0)


def hacked(prompts=400, samples=32, seed=0):
  """Proxy is gold but for a few samples that it loves and gold hates."""
  rng = np.random.default_rng(seed)
  gold = rng.normal(size=(prompts, samples))
  trick = rng.random(gold.shape) < 0.03
  return np.where(trick, 5 + rng.random(gold.shape), gold), np.where(
      trick, -3.0, gold)


class CurveTest(absltest.TestCase):

  def test_an_over_optimised_proxy_is_found(self):
    found = over_optimisation.curve(*hacked(), seed=0, ns=(1, 2, 4, 8, 16, 32))
    self.assertBetween(found.best_n, 2, 16)
    self.assertLess(found.lost.interval.high, 0)
    proxy = [point.proxy.estimate for point in found.points]
    self.assertEqual(proxy, sorted(proxy))

  def test_a_true_reward_loses_nothing(self):
    _, gold = hacked()
    found = over_optimisation.curve(gold, gold, seed=0, ns=(1, 32))
    self.assertEqual(found.best_n, 32)
    self.assertEqual(found.lost.interval.estimate, 0.0)

  def test_noise_is_not_called_over_optimisation(self):
    # A proxy without any relation to gold: flat but for noise. Measured where
    # the best n was chosen it could only lose; elsewhere it gains as often.
    lost = []
    for seed in range(8):
      rng = np.random.default_rng(seed)
      found = over_optimisation.curve(
          rng.normal(size=(200, 8)), rng.normal(size=(200, 8)), seed=seed,
          ns=(1, 8))
      lost.append(found.lost.interval.estimate)
      self.assertGreaterEqual(found.lost.interval.high, 0)
    self.assertGreater(max(lost), 0)
    self.assertLess(min(lost), 0)

  def test_all_n_by_default_and_ties_counted(self):
    found = over_optimisation.curve([[1, 1, 2], [1, 2, 3], [1, 2, 3]],
                                    np.zeros((3, 3)), seed=0)
    self.assertEqual([point.n for point in found.points], [1, 2, 3])
    self.assertAlmostEqual(found.ties, 2 / 9)
    with self.assertRaisesRegex(ValueError, '1 to the 3 samples.*4'):
      over_optimisation.curve(np.eye(3), np.eye(3), seed=0, ns=(4,))


if __name__ == '__main__':
  absltest.main()
