from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from rljax import packing
from rljax.packing.lists import stored_length
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

  def test_what_all_begin_with_is_stored_once(self):
    # 5 6 is the prompt; the second text is the beginning of the first, and
    # keeps its last token, where its score is read.
    one = ComparedTexts((text(5, 6, 7, 8), text(5, 6, 7), text(5, 6, 4)),
                        (0, 1, 2))
    batch, _ = packing.pack_lists([one], num_rows=1, row_length=8,
                                  lists_per_row=1, num_candidates=3)
    np.testing.assert_array_equal(batch.tokens_BT, [[5, 6, 7, 8, 7, 4, 0, 0]])
    np.testing.assert_array_equal(batch.position_BT, [[0, 1, 2, 3, 2, 2, 0, 0]])
    np.testing.assert_array_equal(batch.segment_BT, [[1, 1, 2, 2, 3, 4, 0, 0]])
    np.testing.assert_array_equal(batch.prefix_BT, [[0, 0, 1, 1, 1, 1, 0, 0]])
    np.testing.assert_array_equal(batch.read_BPC, [[[3, 4, 5]]])
    self.assertEqual(stored_length(one), 6)

  @parameterized.parameters(
      (((5, 6), (5, 6)), [5, 6, 6], [1, 2]),  # each keeps a token
      (((5,), (5, 6)), [5, 5, 6], [0, 2]))    # one token is none to give away
  def test_every_text_keeps_a_token(self, texts, tokens_T, read_C):
    batch, _ = packing.pack_lists(
        [ComparedTexts(tuple(text(*some) for some in texts), (0, 0))],
        num_rows=1, row_length=3, lists_per_row=1, num_candidates=2)
    np.testing.assert_array_equal(batch.tokens_BT, [tokens_T])
    np.testing.assert_array_equal(batch.read_BPC, [[read_C]])

  @parameterized.product(num_microbatches=(1, 2), seed=[*range(5)])
  def test_every_text_is_found_again_where_it_ends(self, num_microbatches,
                                                   seed):
    some = random_lists(5, seed)
    batch, place_N2 = packing.pack_lists(
        some, num_microbatches=num_microbatches, **SHAPE | dict(num_rows=6))
    for one, (row, place) in zip(some, place_N2, strict=True):
      ends = batch.read_BPC[row, place]
      for i, tokens in enumerate(one.texts):
        # What the token that is read can see, as attention masks it.
        segment_T, prefix_T = batch.segment_BT[row], batch.prefix_BT[row]
        own_T = segment_T == segment_T[ends[i]]
        seen_T = own_T | ((segment_T == prefix_T[ends[i]]) & (segment_T > 0)
                          & (prefix_T[ends[i]] > 0))
        np.testing.assert_array_equal(batch.tokens_BT[row, seen_T], tokens)
        np.testing.assert_array_equal(batch.position_BT[row, seen_T],
                                      np.arange(len(tokens)))
        self.assertEqual(np.flatnonzero(own_T)[-1], ends[i])
      np.testing.assert_array_equal(
          batch.rank_BPC[row, place],
          [*one.ranks, *[-1] * (3 - len(one.ranks))])
      self.assertEqual(batch.margin_BP[row, place], one.margin)
    self.assertLen({tuple(place) for place in place_N2}, len(some))
    self.assertAlmostEqual(batch.weight_BP.sum(), 1.0, places=6)
    self.assertEqual((batch.segment_BT > 0).sum(),
                     sum(map(stored_length, some)))

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
      ([ComparedTexts((text(*range(9)), text(*range(9, 18))), (0, 1))], '18'),
      (random_lists(20), 'fit in num_rows'))
  def test_what_cannot_be_packed_is_named(self, lists, message):
    with self.assertRaisesRegex(ValueError, message):
      packing.pack_lists(lists, **SHAPE)


if __name__ == '__main__':
  absltest.main()
