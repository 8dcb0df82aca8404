from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from experiments.policy import policy_batches
from tests.experiments import graded as graded_lib


class SelectAndPackTest(parameterized.TestCase):

  def test_hand_computed(self):
    # Two groups of two, 4 tokens each, 16 in all; 12 enter the loss. In each
    # group one is right: mean 1/2, standard deviation 1/2, advantages 1, -1.
    graded = graded_lib.make([[1, 0], [0, 1]])
    rows, report = policy_batches.select_and_pack(
        graded_lib.policy_config(), graded, step=0)
    self.assertEqual(rows.mask_BT.sum(), 12)
    self.assertEqual(report['budget_fill'], 1)
    self.assertEqual(report['dropped_tokens'], 4)
    for segment, want in ((1, 1), (2, -1), (3, -1), (4, 1)):
      here_BT = (rows.segment_BT == segment) & rows.mask_BT
      np.testing.assert_allclose(rows.advantage_BT[here_BT], want, rtol=1e-5)

  def test_what_nobody_could_grade_is_never_trained_on(self):
    # The group's other samples keep their statistics: 1 and 0 of two.
    graded = graded_lib.make([[1, 0, None]], [[4, 4, 8]])
    config = graded_lib.policy_config()
    config.rollout.samples_per_prompt = 3
    rows, report = policy_batches.select_and_pack(config, graded, step=0)
    self.assertEqual(set(rows.segment_BT[rows.mask_BT]), {1, 2})
    self.assertEqual(rows.mask_BT.sum(), 8)
    np.testing.assert_allclose(report['budget_fill'], 8 / 12)
    np.testing.assert_allclose(
        np.unique(rows.advantage_BT[rows.mask_BT]), [-1, 1], rtol=1e-5)

  def test_steps_and_seeds_select_differently_and_repeat(self):
    graded = graded_lib.make([[1, 0]] * 8)
    config = graded_lib.policy_config()
    pick = lambda step: policy_batches.select_and_pack(
        config, graded, step)[0].segment_BT.tolist()
    self.assertEqual(pick(3), pick(3))
    self.assertNotEqual(pick(3), pick(4))
    config.seed = 1
    other = pick(3)
    config.seed = 0
    self.assertNotEqual(pick(3), other)


if __name__ == '__main__':
  absltest.main()
