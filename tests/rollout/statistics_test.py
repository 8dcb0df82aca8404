import dataclasses

from absl.testing import absltest
import numpy as np

from rljax.rollout import statistics
from rljax.types import Rollout


def make_rollout():
  """Two prompts, two samples; beyond the lengths nothing may be read."""
  junk = 1e6
  return Rollout(
      prompts=(np.array([1], np.int32), np.array([2], np.int32)),
      tokens_PGT=np.array([[[7, 0, 0], [7, 0, 9]],
                           [[5, 5, 5], [5, 8, 8]]], np.int32),
      logp_PGT=np.array([[[-1, -2, junk], [-3, -2, junk]],
                         [[-1, -1, -1], [-4, junk, junk]]], np.float32),
      entropy_PGT=np.array([[[0.5, 0.5, junk], [1.5, 0.5, junk]],
                            [[1, 1, 1], [2, junk, junk]]], np.float32),
      length_PG=np.array([[2, 2], [3, 1]], np.int32),
      stopped_PG=np.array([[True, True], [False, True]]))


class StatisticsTest(absltest.TestCase):

  def test_hand_computed(self):
    # 8 tokens. Entropy (0.5+0.5+1.5+0.5 + 1+1+1 + 2) / 8 = 1;
    # surprisal (1+2+3+2 + 3 + 4) / 8 = 1.875. Lengths 2 2 3 1: mean 2,
    # variance 1/2. Prompt 0: "7 0" twice, 1 of 2; prompt 1: 2 of 2.
    found = statistics.summarize(make_rollout())
    expected = dict(response_length=2, response_length_std=np.sqrt(0.5),
                    response_length_max=3, truncated=0.25, entropy=1,
                    surprisal=1.875, distinct=0.75)
    self.assertEqual(found.keys(), expected.keys())
    for name, value in expected.items():
      self.assertAlmostEqual(found[name], value, places=6, msg=name)
      self.assertIsInstance(found[name], float)

  def test_token_zero_inside_a_response_tells_it_apart(self):
    rollout = make_rollout()
    shorter = dataclasses.replace(
        rollout, length_PG=np.array([[2, 1], [3, 1]], np.int32))
    self.assertEqual(statistics.distinct(rollout), 0.75)
    self.assertEqual(statistics.distinct(shorter), 1.0)  # "7 0" and "7"

  def test_means_by_domain(self):
    values_PG = np.array([[1.0, 0.0], [1.0, 1.0], [9.0, 9.0]])
    valid_PG = np.array([[True, True], [True, False], [False, False]])
    domains = ['math', 'math', 'code']
    self.assertEqual(statistics.by_domain('reward', values_PG, domains),
                     {'reward/code': 9.0, 'reward/math': 0.75})
    # (1 + 0 + 1) / 3 of the valid ones; no valid one in code.
    self.assertEqual(
        statistics.by_domain('reward', values_PG, domains, valid_PG),
        {'reward/math': 2 / 3})
    with self.assertRaisesRegex(ValueError, 'got 1 for 3 prompts'):
      statistics.by_domain('reward', values_PG, ['math'])

  def test_mismatch_hand_computed(self):
    # Ratios 1, 3, 1/4 and one outside the mask: mean 4.25 / 3, largest factor
    # 4, two of three beyond twofold.
    old_BT = np.log([[0.3, 0.3, 0.1, 0.9]])
    sampled_BT = np.log([[0.3, 0.1, 0.4, 1e-9]])
    mask_BT = np.array([[True, True, True, False]])
    found = statistics.mismatch(sampled_BT, old_BT, mask_BT)
    self.assertAlmostEqual(found['mismatch_mean'], 4.25 / 3)
    self.assertAlmostEqual(found['mismatch_max'], 4.0)
    self.assertAlmostEqual(found['mismatch_twofold'], 2 / 3)
    self.assertEqual(
        statistics.mismatch(sampled_BT, old_BT, np.zeros_like(mask_BT)), {})


if __name__ == '__main__':
  absltest.main()
