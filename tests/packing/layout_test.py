from absl.testing import absltest
from absl.testing import parameterized
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np

from rljax import packing
from rljax.packing import layout

FEW = settings(max_examples=60, deadline=None)


class PlaceTest(parameterized.TestCase):

  def test_hand_computed(self):
    # Longest first into rows of 10: 7 | 6 | then 4 fits best behind 6 (4 left,
    # exactly), 3 behind 7 (3 left, exactly), 2 needs a third row.
    row_of, offset_of = packing.place(np.array([3, 7, 2, 6, 4]), 10)
    np.testing.assert_array_equal(row_of, [0, 0, 2, 1, 1])
    np.testing.assert_array_equal(offset_of, [7, 0, 0, 0, 6])

  @FEW
  @given(st.lists(st.integers(1, 16), min_size=1, max_size=60))
  def test_nothing_overlaps_or_leaves_its_row(self, lengths):
    row_of, offset_of = packing.place(np.array(lengths), 16)
    used_BT = np.zeros((row_of.max() + 1, 16), int)
    for row, offset, length in zip(row_of, offset_of, lengths, strict=True):
      self.assertLessEqual(offset + length, 16)
      used_BT[row, offset:offset + length] += 1
    self.assertEqual(used_BT.max(), 1)
    self.assertEqual(used_BT.sum(), sum(lengths))
    # Any two rows hold more than one row could.
    per_row = np.sort(used_BT.sum(1))
    if len(per_row) > 1:
      self.assertGreater(per_row[0] + per_row[1], 16)

  def test_thousands_of_sequences_fill_their_rows(self):
    lengths = np.random.default_rng(0).integers(1, 1000, 8192)
    row_of, _ = packing.place(lengths, 2048)
    self.assertGreater(lengths.sum() / (2048 * (row_of.max() + 1)), 0.99)

  @parameterized.parameters(
      ([3, 11, 2], '11 at index 1'), ([3, 0], '0 at index 1'))
  def test_lengths_that_cannot_be_placed_are_named(self, lengths, message):
    with self.assertRaisesRegex(ValueError, message):
      packing.place(np.array(lengths), 10)


class LayoutTest(parameterized.TestCase):

  def test_micro_batches_are_filled_one_after_another(self):
    # 5 full rows, 8 rows in 4 micro-batches of 2: strided rows i::4.
    # Micro-batch 0 = rows 0, 4; 1 = rows 1, 5; 2 = rows 2, 6; 3 stays empty.
    row_of, _ = layout.layout(np.full(5, 10), 8, 10, 4)
    np.testing.assert_array_equal(row_of, [0, 4, 1, 5, 2])

  def test_too_few_rows_says_how_many_are_needed(self):
    with self.assertRaisesRegex(ValueError, 'num_rows=4 .*need of 5 rows'):
      layout.layout(np.full(5, 10), 4, 10, 2)

  @parameterized.parameters(0, 3)
  def test_micro_batches_must_divide_the_rows(self, num_microbatches):
    with self.assertRaisesRegex(ValueError, 'num_rows=4'):
      layout.layout(np.full(1, 10), 4, 10, num_microbatches)

  @FEW
  @given(st.integers(1, 20), st.integers(1, 60), st.integers(1, 6),
         st.integers(0, 2**31 - 1))
  def test_bound_on_rows_is_never_passed(self, responses, budget, slack, seed):
    max_prompt, max_response = 5, 9
    row_length = max_prompt + max_response + 3 * slack - 3
    bound = packing.rows_bound(
        token_budget=budget, num_responses=responses,
        max_prompt_length=max_prompt, max_response_length=max_response,
        row_length=row_length)
    rng = np.random.default_rng(seed)
    kept_R = packing.select(
        rng.integers(1, max_response + 1, responses), token_budget=budget,
        seed=seed).kept_R
    lengths = kept_R[kept_R > 0] + rng.integers(
        1, max_prompt + 1, (kept_R > 0).sum())
    row_of, _ = packing.place(lengths, row_length)
    self.assertLessEqual(row_of.max() + 1, bound)

  def test_bound_holds_for_sequences_of_just_over_half_a_row(self):
    # Ten of 5 + 3 tokens in rows of 14: one each, though 80 < 6 * 14.
    limits = dict(token_budget=30, num_responses=40, max_prompt_length=5,
                  max_response_length=9, row_length=14)
    row_of, _ = packing.place(np.full(10, 8), 14)
    self.assertEqual(row_of.max() + 1, 10)
    self.assertGreaterEqual(packing.rows_bound(**limits), 10)
    self.assertGreaterEqual(
        packing.rows_bound(**(limits | dict(num_responses=10))), 10)

  def test_bound_is_tight_where_one_sequence_fills_a_row(self):
    self.assertEqual(packing.rows_bound(
        token_budget=100, num_responses=7, max_prompt_length=6,
        max_response_length=4, row_length=10), 7)
    with self.assertRaisesRegex(ValueError, 'row_length'):
      packing.rows_bound(
          token_budget=100, num_responses=7, max_prompt_length=6,
          max_response_length=4, row_length=9)


class FillTest(absltest.TestCase):

  def test_fill_counts_the_micro_batches_in_use_only(self):
    segment_BT = np.zeros((4, 10), np.int32)
    segment_BT[0, :8], segment_BT[2, :6] = 1, 2
    # Rows 0, 2 are micro-batch 0 of 2: (8 + 6) / 20. Of 1: 14 / 40.
    self.assertAlmostEqual(packing.row_fill(segment_BT, 2), 0.7)
    self.assertAlmostEqual(packing.row_fill(segment_BT, 1), 0.35)
    self.assertEqual(packing.row_fill(np.zeros((4, 10)), 2), 0.0)

  def test_shares_are_equal_on_real_tokens_and_sum_to_one(self):
    share_BT = packing.policy_shares(np.array([[3, 3, 0], [9, 0, 0]]))
    self.assertEqual(share_BT.dtype, np.float32)
    np.testing.assert_allclose(
        share_BT, [[1 / 3, 1 / 3, 0], [1 / 3, 0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(packing.policy_shares(np.zeros((1, 2))), 0)


if __name__ == '__main__':
  absltest.main()
