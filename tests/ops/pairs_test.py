"""What both sides of a pair begin with, against all tokens with all."""
from absl.testing import absltest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np

from rljax import packing
from rljax.ops import pairs
from rljax.ops import segments
from rljax.types import TokenPair

_ROWS, _LENGTH, _PAIRS = 2, 40, 4


def quadratic(batch):
  """The definition, in [B, T, T]."""
  place_BT = pairs.place_in_response(batch)
  partner_BTS = (
      (batch.pair_BT[:, :, None] == batch.pair_BT[:, None, :])
      & (batch.chosen_BT[:, :, None] != batch.chosen_BT[:, None, :])
      & (place_BT[:, :, None] == place_BT[:, None, :])
      & batch.mask_BT[:, None, :] & (batch.pair_BT > 0)[:, :, None])
  same_BT = jnp.any(partner_BTS & (
      batch.tokens_BT[:, :, None] == batch.tokens_BT[:, None, :]), axis=-1)
  differs_BT = batch.mask_BT & ~same_BT
  return batch.mask_BT & (segments.running_sum(
      differs_BT.astype(jnp.int32), batch.segment_BT) == 0)


def pack(sides, share_prompt=True):
  """Rows of pairs; of each token of a side, its id and whether it counts."""
  split = lambda side, i, dtype: np.asarray([x[i] for x in side], dtype)
  made = [TokenPair(f'{i}', np.asarray([8, 9], np.int32),
                    split(chosen, 0, np.int32), split(rejected, 0, np.int32),
                    split(chosen, 1, bool), split(rejected, 1, bool))
          for i, (chosen, rejected) in enumerate(sides)]
  return packing.pack_pairs(
      made, num_rows=_ROWS, row_length=_LENGTH, pairs_per_row=_PAIRS,
      share_prompt=share_prompt)[0]


# Two ids, so that sides often agree, and holes in the masks.
_SIDE = st.lists(st.tuples(st.integers(0, 1), st.booleans()), min_size=1,
                 max_size=5).filter(lambda side: any(x[1] for x in side))


def largest(function, batch) -> int:
  """Elements of the largest array that a function makes."""
  def sizes(jaxpr):
    for equation in jaxpr.eqns:
      yield from (x.aval.size for x in equation.outvars)
      for inner in core.jaxprs_in_params(equation.params):
        yield from sizes(inner)
  return max(sizes(jax.make_jaxpr(function)(batch).jaxpr))


class SharedPrefixTest(absltest.TestCase):

  @given(st.lists(st.tuples(_SIDE, _SIDE), min_size=1, max_size=4),
         st.booleans())
  @settings(deadline=None, max_examples=60)
  def test_as_by_the_definition(self, sides, share_prompt):
    batch = pack(sides, share_prompt)
    np.testing.assert_array_equal(jax.jit(pairs.in_shared_prefix)(batch),
                                  jax.jit(quadratic)(batch))

  def test_by_hand(self):
    seen = lambda *tokens: [(token, True) for token in tokens]
    for chosen, rejected, *want in (
        (seen(1, 2, 3), seen(1, 2, 4, 3), [1, 1, 0], [1, 1, 0, 0]),
        (seen(1, 2), seen(1, 2, 3), [1, 1], [1, 1, 0]),
        # A hole: of either side 5 is the first token.
        ([(7, False), (5, True)], seen(5, 6), [1], [1, 0]),
        (seen(1), seen(2), [0], [0])):
      batch = pack([(chosen, rejected)])
      found_BT = np.asarray(pairs.in_shared_prefix(batch))
      for is_chosen, side in zip((True, False), want, strict=True):
        np.testing.assert_array_equal(
            found_BT[batch.mask_BT & (batch.chosen_BT == is_chosen)], side)

  def test_no_array_is_larger_than_the_rows(self):
    batch = pack([([(1, True)], [(2, True)])])
    limit = 3 * batch.tokens_BT.size  # indices of a gather come in threes
    self.assertLessEqual(largest(pairs.in_shared_prefix, batch), limit)
    self.assertGreater(largest(quadratic, batch), limit)


if __name__ == '__main__':
  absltest.main()
