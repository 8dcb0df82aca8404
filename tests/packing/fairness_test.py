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
    # Φ / Σℓ = 8 / 25 for every token of every response.
    lengths_R = np.array([3, 7, 1, 10, 4])
    num_trials = 3000
    rate = lambda kind: sum(
        packing.kept_mask(packing.select(
            lengths_R, token_budget=8, seed=(2, trial), selection=kind), 10)
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
    found_S2 = np.array(found) / self.BUDGET
    return found_S2.mean(0), found_S2.std(0) / np.sqrt(self.NUM_TRIALS), found_S2

  def test_whole_responses_scale_the_true_gradient(self):
    mean_2, _, found_S2 = self.estimates('response')
    # First component: (Φ + mean overshoot)/Φ by definition. Wald: the second
    # has the same factor, so (second - target · first) has mean 0.
    self.assertGreater(mean_2[0], 1.05)
    off_S = found_S2[:, 1] - self.TARGET[1] * found_S2[:, 0]
    error = off_S.std() / np.sqrt(self.NUM_TRIALS)
    self.assertLess(error, 0.005)
    self.assertLess(abs(off_S.mean()), 3 * error)

  def test_exact_cut_stays_within_its_bound(self):
    overshoot = self.estimates('response')[0][0] - 1  # as a share of Φ
    mean_2, error_2, _ = self.estimates('token')
    self.assertEqual(mean_2[0], 1.0)  # exactly Φ tokens, every time
    largest_2 = np.array([1.0, 1.0])  # per-token terms: 1, and 1/ℓ at ℓ = 1
    bound_2 = overshoot * (self.TARGET + largest_2)
    self.assertTrue(
        (abs(mean_2 - self.TARGET) <= bound_2 + 3 * error_2).all())

  def test_token_mean_of_a_fixed_number_points_elsewhere(self):
    # Ratio estimator over 4 responses: Jensen, E[4/Σℓ] > 4/E[Σℓ] = 0.2.
    rng = np.random.default_rng(5)
    lengths_SN = rng.choice([1, 9], size=(self.NUM_TRIALS, 4))
    second_S = 4 / lengths_SN.sum(1)  # the first component is exactly 1
    error = second_S.std() / np.sqrt(self.NUM_TRIALS)
    self.assertGreater(second_S.mean() - self.TARGET[1], 10 * error)


if __name__ == '__main__':
  absltest.main()
