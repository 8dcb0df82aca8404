from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from rljax import packing
from rljax.types import ComparedTexts

SHAPE = dict(num_rows=4, row_length=16, lists_per_row=3, num_candidates=3)


def text(*tokens):
  return np.array(tokens, np.int32)


def random_lists(count, seed=0, most=3):
  rng = np.random.default_rng(seed)
  return [ComparedTexts(
      tuple(rng.integers(0, 9, rng.integers(1, 5)).astype(np.int32)
            for _ in range(size)), tuple(rng.permutation(size).tolist()),
      margin=float(index)) for index, size in enumerate(
          rng.integers(2, most + 1, count))]


class PackListsTest(parameterized.TestCase):

  def test_by_hand(self):
    batch, place_N2 = packing.pack_lists([
        ComparedTexts((text(5, 6, 0), text(7, 0)), (1, 0), margin=0.5),
        ComparedTexts((text(8, 9),), (0, 1))], num_rows=1, row_length=8,
                                         lists_per_row=4, num_candidates=2)
    np.testing.assert_array_equal(batch.tokens_BT, [[5, 6, 0, 7, 0, 8, 9, 0]])
    np.testing.assert_array_equal(batch.position_BT, [[0, 1, 2, 0, 1, 0, 1, 0]])
    np.testing.assert_array_equal(batch.segment_BT, [[1, 1, 1, 2, 2, 3, 3, 0]])
    np.testing.assert_array_equal(
        batch.read_BPC, [[[2, 4], [6, 6], [0, 0], [0, 0]]])
    np.testing.assert_array_equal(
        batch.rank_BPC, [[[1, 0], [0, 1], [-1, -1], [-1, -1]]])
    np.testing.assert_array_equal(batch.margin_BP, [[0.5, 0, 0, 0]])
    np.testing.assert_array_equal(batch.weight_BP, [[0.5, 0.5, 0, 0]])
    np.testing.assert_array_equal(place_N2, [[0, 0], [0, 1]])

  @parameterized.product(num_microbatches=(1, 2), seed=[*range(5)])
  def test_every_text_is_found_again_where_it_ends(self, num_microbatches,
                                                   seed):
    lists = random_lists(5, seed)
    batch, place_N2 = packing.pack_lists(
        lists, num_microbatches=num_microbatches, **SHAPE | dict(num_rows=6))
    for one, (row, place) in zip(lists, place_N2, strict=True):
      ends = batch.read_BPC[row, place]
      for i, tokens in enumerate(one.texts):
        here = slice(ends[i] + 1 - len(tokens), ends[i] + 1)
        np.testing.assert_array_equal(batch.tokens_BT[row, here], tokens)
        self.assertLen(set(batch.segment_BT[row, here]), 1)
        if ends[i] + 1 < 16:
          self.assertNotEqual(batch.segment_BT[row, ends[i] + 1],
                              batch.segment_BT[row, ends[i]])
      np.testing.assert_array_equal(
          batch.rank_BPC[row, place],
          [*one.ranks, *[-1] * (3 - len(one.ranks))])
      self.assertEqual(batch.margin_BP[row, place], one.margin)
    self.assertLen({tuple(place) for place in place_N2}, len(lists))
    self.assertAlmostEqual(batch.weight_BP.sum(), 1.0, places=6)
    self.assertEqual((batch.segment_BT > 0).sum(),
                     sum(len(t) for one in lists for t in one.texts))

  def test_no_row_gets_more_lists_than_it_has_places(self):
    short = [ComparedTexts((text(1), text(2)), (0, 1))] * 12
    batch, place_N2 = packing.pack_lists(short, **SHAPE)
    self.assertEqual(place_N2[:, 1].max(), 2)  # though eight would fit
    self.assertEqual((batch.weight_BP > 0).sum(), 12)

  @parameterized.parameters(
      ([], 'got none'),
      ([ComparedTexts((text(1), text(2)), (0, 1, 2))], '2 texts'),
      ([ComparedTexts((text(1),), (0, 1, 2, 3))], 'num_candidates'),
      ([ComparedTexts((text(1), text()), (0, 1))], 'empty one'),
      ([ComparedTexts((text(*range(9)), text(*range(9))), (0, 1))], '18'),
      (random_lists(20), 'fit in num_rows'))
  def test_what_cannot_be_packed_is_named(self, lists, message):
    with self.assertRaisesRegex(ValueError, message):
      packing.pack_lists(lists, **SHAPE)


if __name__ == '__main__':
  absltest.main()
