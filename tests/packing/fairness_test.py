"""Statistical properties of the selection, by simulation with fixed seeds."""
from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from rljax import packing


def inclusion_gap(num_trials, sort):
  """Mean and standard error of P(longest taken) - P(shortest taken)."""
  rng = np.random.default_rng(0)
  gaps = []
  for trial in range(num_trials):
    lengths_R = rng.choice([5, 10, 20, 60], size=64)
    if sort:
      lengths_R = np.sort(lengths_R)
    selection = packing.select(
        lengths_R, token_budget=400, seed=(1, trial),
        order='sequential' if sort else 'random')
    taken_R = selection.kept_R > 0
    shortest_R, longest_R = lengths_R == 5, lengths_R == 60
    if shortest_R.any() and longest_R.any():
      gaps.append(taken_R[longest_R].mean() - taken_R[shortest_R].mean())
  return np.mean(gaps), np.std(gaps) / np.sqrt(len(gaps))


class FairnessTest(parameterized.TestCase):

  def test_random_order_takes_long_and_short_responses_alike(self):
    gap, error = inclusion_gap(1500, sort=False)
    self.assertLess(error, 0.01)
    self.assertLess(abs(gap), 4 * error)

  def test_length_sorted_order_fails_the_same_test(self):
    gap, error = inclusion_gap(100, sort=True)
    self.assertGreater(abs(gap), 4 * error)
    self.assertLess(gap, -0.9)

  def test_ring_window_keeps_every_token_equally_often(self):
    # Φ / Σℓ = 8 / 25 for every token of every response, in any fixed order.
    lengths_R = np.array([3, 7, 1, 10, 4])
    num_trials = 3000
    rate = lambda kind: sum(
        packing.kept_mask(packing.select(
            lengths_R, token_budget=8, seed=(2, trial), selection=kind,
            order='sequential' if kind == 'ring_window' else 'random'), 10)
        for trial in range(num_trials)) / num_trials
    inside_RT = np.arange(10) < lengths_R[:, None]
    error = np.sqrt(0.32 * 0.68 / num_trials)
    np.testing.assert_allclose(
        rate('ring_window')[inside_RT], 0.32, atol=4.5 * error)
    # The cut of the prefix: the tenth token of ten never fits a budget of 8.
    self.assertEqual(rate('prefix')[3, 9], 0.0)

  def test_exact_cut_costs_late_tokens_at_most_longest_over_budget(self):
    rng = np.random.default_rng(3)
    kept, seen = np.zeros(2), 0
    for trial in range(1500):
      lengths_R = rng.choice([5, 40], size=64)
      selection = packing.select(lengths_R, token_budget=400, seed=(3, trial))
      mask_RT = packing.kept_mask(selection, 40)
      long_R = lengths_R == 40
      kept += mask_RT[long_R][:, [0, 39]].sum(0)
      seen += long_R.sum()
    first, last = kept / seen
    self.assertLess(last, first)
    self.assertGreater(last / first, 1 - 40 / 400 - 0.02)


class WaldTest(absltest.TestCase):
  """Lengths 1 or 9, equally likely. Response gradients g = (ℓ, 1).

  Per token that is (1, 1/ℓ). Target per token: E[g]/E[ℓ] = (1, 1/5).
  """

  NUM_TRIALS, BUDGET, NUM_RESPONSES = 4000, 20, 40
  TARGET = np.array([1.0, 0.2])

  def estimates(self, cut):
    rng = np.random.default_rng(4)
    found = []
    for trial in range(self.NUM_TRIALS):
      lengths_R = rng.choice([1, 9], size=self.NUM_RESPONSES)
      kept_R = packing.select(
          lengths_R, token_budget=self.BUDGET, seed=(4, trial), cut=cut).kept_R
      found.append([kept_R.sum(), (kept_R / lengths_R).sum()])
    return np.array(found) / self.BUDGET  # [trials, 2]

  def test_whole_responses_scale_the_true_gradient(self):
    found = self.estimates('response')
    # First component: (Φ + mean overshoot)/Φ by definition. Wald: the second
    # has the same factor, so (second - target · first) has mean 0.
    self.assertGreater(found[:, 0].mean(), 1.05)
    off = found[:, 1] - self.TARGET[1] * found[:, 0]
    error = off.std() / np.sqrt(self.NUM_TRIALS)
    self.assertLess(error, 0.005)
    self.assertLess(abs(off.mean()), 3 * error)

  def test_exact_cut_stays_within_its_bound(self):
    overshoot = self.estimates('response')[:, 0].mean() - 1  # share of Φ
    found = self.estimates('token')
    self.assertTrue((found[:, 0] == 1.0).all())  # exactly Φ tokens, always
    error = found.std(0) / np.sqrt(self.NUM_TRIALS)
    largest = np.array([1.0, 1.0])  # per-token terms: 1, and 1/ℓ at ℓ = 1
    bound = overshoot * (self.TARGET + largest)
    off = abs(found.mean(0) - self.TARGET)
    self.assertTrue((off <= bound + 3 * error).all())

  def test_token_mean_of_a_fixed_number_points_elsewhere(self):
    # Ratio estimator over 4 responses: Jensen, E[4/Σℓ] > 4/E[Σℓ] = 0.2.
    rng = np.random.default_rng(5)
    lengths = rng.choice([1, 9], size=(self.NUM_TRIALS, 4))
    second = 4 / lengths.sum(1)  # the first component is exactly 1
    error = second.std() / np.sqrt(self.NUM_TRIALS)
    self.assertGreater(second.mean() - self.TARGET[1], 10 * error)


if __name__ == '__main__':
  absltest.main()
