"""DAPO's soft overlong penalty and hard truncation, by hand."""
from absl.testing import absltest
import numpy as np

from rljax.rewards import shaping


class ShapingTest(absltest.TestCase):

  def test_soft_penalty_hand_computed(self):
    # L_max = 20, L_c = 4: free up to 16, then -1/4 a token, -1 from 20 on.
    penalty_R = shaping.soft_overlong_penalty(
        np.array([0, 16, 17, 18, 20, 25]), max_length=20, buffer=4)
    np.testing.assert_array_equal(penalty_R, [0, 0, -0.25, -0.5, -1, -1])
    self.assertEqual(penalty_R.dtype, np.float32)

  def test_soft_penalty_with_the_paper_s_numbers(self):
    # L_max = 20480, cache 4096: half of the ramp is 16384 + 2048.
    penalty_R = shaping.soft_overlong_penalty(
        np.array([16_384, 18_432, 20_480]), max_length=20_480, buffer=4_096)
    np.testing.assert_array_equal(penalty_R, [0, -0.5, -1])

  def test_soft_penalty_never_grows_with_length(self):
    penalty_R = shaping.soft_overlong_penalty(
        np.arange(100), max_length=64, buffer=10)
    self.assertTrue(np.all(np.diff(penalty_R) <= 0))

  def test_impossible_buffer_is_refused(self):
    for buffer in (0, 21):
      with self.assertRaisesRegex(ValueError, f'buffer {buffer}'):
        shaping.soft_overlong_penalty(np.zeros(1), max_length=20, buffer=buffer)

  def test_truncated_responses_earn_nothing(self):
    reward_R = shaping.zero_truncated(
        np.array([1., 1., 0.]), np.array([True, False, True]))
    np.testing.assert_array_equal(reward_R, [1, 0, 0])

  def test_flags_must_match_the_rewards(self):
    with self.assertRaisesRegex(ValueError, 'one flag for each response'):
      shaping.zero_truncated(np.ones(2), np.array([True]))


if __name__ == '__main__':
  absltest.main()
