"""Pairs in rows: by hand, and whatever their lengths."""
import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np

from rljax import packing
from rljax.ops import pairs as pairs_lib
from rljax.packing import pairs as lib
from rljax.types import TokenPair


def pair(prompt, chosen, rejected, name='p', **masks):
  arrays = [np.asarray(x, np.int32) for x in (prompt, chosen, rejected)]
  full = dict(chosen_mask=np.ones(len(chosen), bool),
              rejected_mask=np.ones(len(rejected), bool))
  return TokenPair(name, *arrays, **full | {
      key: np.asarray(mask, bool) for key, mask in masks.items()})


ONE = pair([1, 2, 3], [4, 5], [6], chosen_mask=[1, 0])


class PackTest(parameterized.TestCase):

  def test_a_shared_prompt_by_hand(self):
    batch, (place,) = packing.pack_pairs(
        [ONE], num_rows=1, row_length=10, pairs_per_row=2)
    want = dict(
        tokens_BT=[1, 2, 3, 4, 5, 3, 6, 0, 0, 0],
        position_BT=[0, 1, 2, 3, 4, 2, 3, 0, 0, 0],
        segment_BT=[1, 1, 2, 2, 2, 3, 3, 0, 0, 0],
        prefix_BT=[0, 0, 1, 1, 1, 1, 1, 0, 0, 0],
        pair_BT=[1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        chosen_BT=[0, 0, 1, 1, 1, 0, 0, 0, 0, 0],
        mask_BT=[0, 0, 0, 1, 0, 0, 1, 0, 0, 0])  # a hole in the mask
    for name, values in want.items():
      np.testing.assert_array_equal(getattr(batch, name)[0], values, name)
    np.testing.assert_array_equal(batch.weight_BP, [[1, 0]])
    np.testing.assert_allclose(batch.share_BT[0], [1 / 7] * 7 + [0] * 3)
    self.assertEqual(place, lib.Place(0, 0, slice(3, 5), slice(6, 7)))

  def test_whole_sequences_by_hand(self):
    batch, (place,) = packing.pack_pairs(
        [ONE], num_rows=1, row_length=10, pairs_per_row=1, share_prompt=False)
    self.assertIsNone(batch.prefix_BT)
    np.testing.assert_array_equal(batch.tokens_BT[0],
                                  [1, 2, 3, 4, 5, 1, 2, 3, 6, 0])
    np.testing.assert_array_equal(batch.position_BT[0],
                                  [0, 1, 2, 3, 4, 0, 1, 2, 3, 0])
    self.assertEqual(place, lib.Place(0, 0, slice(3, 5), slice(8, 9)))

  def test_of_a_prompt_of_one_token_nothing_is_shared(self):
    batch, _ = packing.pack_pairs([pair([7], [4], [6])], num_rows=1,
                                  row_length=4, pairs_per_row=1)
    np.testing.assert_array_equal(batch.tokens_BT[0], [7, 4, 7, 6])
    np.testing.assert_array_equal(batch.position_BT[0], [0, 1, 0, 1])
    np.testing.assert_array_equal(batch.prefix_BT[0], 0)

  @settings(max_examples=40, deadline=None)
  @given(st.lists(st.tuples(*[st.integers(1, 6)] * 3), min_size=1,
                  max_size=20), st.booleans(), st.integers(1, 3))
  def test_every_token_is_in_its_place_once(self, sizes, share, most):
    rng = np.random.default_rng(0)
    draw = lambda n: rng.integers(0, 9, n)  # 0 is a token like any other
    pairs = [pair(*map(draw, size), name=str(i))
             for i, size in enumerate(sizes)]
    batch, places = packing.pack_pairs(
        pairs, num_rows=len(pairs), row_length=25, pairs_per_row=most,
        share_prompt=share)
    for one, place in zip(pairs, places, strict=True):
      for at, side in ((place.chosen, one.chosen),
                       (place.rejected, one.rejected)):
        np.testing.assert_array_equal(batch.tokens_BT[place.row, at], side)
        self.assertTrue(batch.mask_BT[place.row, at].all())
        # Read back as one token after another: the prompt, then the response.
        last = at.start - 1
        segment, prefix = (None if x is None else x[place.row, last] for x in (
            batch.segment_BT, batch.prefix_BT))
        seen_T = batch.segment_BT[place.row] == segment
        if prefix:
          seen_T |= batch.segment_BT[place.row] == prefix
        seen_T &= np.arange(25) <= last
        np.testing.assert_array_equal(batch.tokens_BT[place.row][seen_T],
                                      one.prompt)
        np.testing.assert_array_equal(batch.position_BT[place.row][seen_T],
                                      np.arange(len(one.prompt)))
    self.assertEqual(batch.mask_BT.sum(), sum(c + r for _, c, r in sizes))
    np.testing.assert_allclose(batch.weight_BP.sum(), 1, rtol=1e-6)
    self.assertLessEqual((batch.weight_BP > 0).sum(1).max(), most)
    # The sums of a loss find each pair's own tokens.
    length = pairs_lib.sums(np.ones((len(pairs), 25), np.float32), batch)
    for one, place in zip(pairs, places, strict=True):
      number = place.number
      self.assertEqual(
          batch.pair_BT[place.row, place.chosen.start], number + 1)
      self.assertEqual(length.chosen_BP[place.row, number], len(one.chosen))
      self.assertEqual(length.rejected_BP[place.row, number],
                       len(one.rejected))

  def test_a_shared_prompt_takes_less_room(self):
    long = pair(range(9), [1], [2])
    self.assertEqual(lib.stored_length(long, True), 12)
    self.assertEqual(lib.stored_length(long, False), 20)
    self.assertEqual(lib.stored_length(pair([7], [4], [6]), True),
                     lib.stored_length(pair([7], [4], [6]), False))

  def test_numbers_of_tokens_go_to_their_places_and_back(self):
    pairs = [ONE, pair([1], [2, 3], [4, 5, 6])]
    batch, places = packing.pack_pairs(pairs, num_rows=2, row_length=9,
                                       pairs_per_row=1)
    values = [(np.float32([1, 2]), np.float32([3])),
              (np.float32([4, 5]), np.float32([6, 7, 8]))]
    values_BT = packing.fill(values, places, batch.tokens_BT.shape)
    self.assertEqual(values_BT.sum(), 36)
    for got, want in zip(packing.take(values_BT, places), values, strict=True):
      for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)

  @parameterized.parameters(
      (pair([], [1], [2]), "'prompt': 0.* in pair 'p'"),
      (pair([1], [], [2]), "'chosen': 0"),
      (pair([1], [1], [2], chosen_mask=[0]), 'one that counts'),
      (pair([1, 2], [1] * 5, [2] * 4), 'row of 10, got 12 tokens'))
  def test_what_does_not_fit_is_named(self, one, message):
    with self.assertRaisesRegex(ValueError, message):
      packing.pack_pairs([one], num_rows=1, row_length=10, pairs_per_row=1)

  @parameterized.product(side=('chosen', 'rejected'), share=(True, False))
  def test_one_response_alone_where_the_loss_allows_it(self, side, share):
    options = dict(num_rows=1, row_length=12, pairs_per_row=2,
                   share_prompt=share)
    sides = dict(chosen=[], rejected=[]) | {side: [5, 6]}
    one = pair([1, 2], sides['chosen'], sides['rejected'])
    with self.assertRaisesRegex(ValueError, f"'{side}': 2.* labels: kto"):
      packing.pack_pairs([one], **options)
    batch, places = packing.pack_pairs([one], one_sided=True, **options)
    counted = batch.tokens_BT[batch.mask_BT]
    self.assertEqual(counted.tolist(), [5, 6])
    self.assertEqual(set(batch.chosen_BT[batch.mask_BT]), {side == 'chosen'})
    self.assertEqual(batch.weight_BP.tolist(), [[1.0, 0.0]])
    (values,) = packing.take(batch.tokens_BT, places)
    self.assertEqual([x.tolist() for x in values], list(sides.values()))
    masked = pair([1, 2], [3], [4], chosen_mask=[0])
    for bad in (pair([1, 2], [], []), pair([], [1], []), masked):
      with self.assertRaisesRegex(ValueError, 'Expected a token or more'):
        packing.pack_pairs([bad], one_sided=True, **options)

  def test_more_pairs_than_the_rows_may_hold_are_refused(self):
    short = [pair([1], [2], [3], name=str(i)) for i in range(5)]
    options = dict(num_rows=2, row_length=20, num_microbatches=1)
    packing.pack_pairs(short, pairs_per_row=3, **options)
    with self.assertRaisesRegex(ValueError, 'need of 3 rows'):
      packing.pack_pairs(short, pairs_per_row=2, **options)

  def test_half_a_pairs_weight_goes_to_either_side(self):
    batch, _ = packing.pack_pairs(
        [ONE, pair([1], [2, 3], [4, 5, 6])], num_rows=3, row_length=9,
        pairs_per_row=2)
    weight_BT = np.asarray(pairs_lib.token_weights(batch))
    np.testing.assert_array_equal(weight_BT > 0, batch.mask_BT)
    self.assertAlmostEqual(weight_BT.sum(), 1, places=6)
    for number in (1, 2):
      row = int(np.flatnonzero((batch.segment_BT == 3 * number).any(1))[0])
      side = batch.segment_BT[row] == 3 * number  # the rejected one
      self.assertAlmostEqual(weight_BT[row][side].sum(), 1 / 4)

  def test_pairs_are_not_changed_by_packing(self):
    before = dataclasses.asdict(ONE)
    packing.pack_pairs([ONE], num_rows=1, row_length=10, pairs_per_row=1)
    for name, value in dataclasses.asdict(ONE).items():
      np.testing.assert_array_equal(value, before[name])


class MismatchedTest(absltest.TestCase):

  def test_no_prompt_keeps_responses_to_itself(self):
    # Neighbours with one prompt, as a good and a bad response have.
    some = [pair([prompt], [10 + i], [20 + i])
            for i, prompt in enumerate((1, 1, 2, 2))]
    found = packing.mismatched(some, 64, True)
    self.assertEqual([int(one.prompt[0]) for one in found], [1, 1, 2, 2])
    self.assertEqual([int(one.chosen[0]) for one in found], [12, 12, 10, 10])


if __name__ == '__main__':
  absltest.main()
