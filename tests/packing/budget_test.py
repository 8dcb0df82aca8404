from absl.testing import absltest
from absl.testing import parameterized
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np

from rljax import packing

LENGTHS = st.lists(st.integers(0, 30), min_size=1, max_size=24)
BUDGETS = st.integers(1, 200)
SEEDS = st.integers(0, 2**31 - 1)
FEW = settings(max_examples=60, deadline=None)


def kept_in_order(selection):
  """The tokens in the order of the pass: True where they are kept."""
  mask_RT = packing.kept_mask(selection, int(selection.length_R.max()) or 1)
  return np.concatenate(
      [mask_RT[r, :selection.length_R[r]] for r in selection.order_R])


class SelectTest(parameterized.TestCase):

  def test_hand_computed(self):
    # In order: 3 + 4 < 9 <= 3 + 4 + 5, so N = 3 and 3 of its tokens are cut.
    selection = packing.select(
        np.array([3, 4, 5, 6]), token_budget=9, seed=0, order='sequential')
    np.testing.assert_array_equal(selection.start_R, [0, 0, 0, 0])
    np.testing.assert_array_equal(selection.stop_R, [3, 4, 2, 0])
    np.testing.assert_array_equal(selection.crossing_R, [0, 0, 1, 0])
    self.assertEqual(
        packing.statistics(selection),
        dict(budget_fill=1.0, selected_tokens=9.0, selected_responses=3.0,
             dropped_tokens=9.0, dropped_responses=1.0, crossing_length=5.0))

  def test_budget_met_exactly_cuts_nothing_and_takes_no_more(self):
    selection = packing.select(
        np.array([3, 4, 5]), token_budget=7, seed=0, order='sequential')
    np.testing.assert_array_equal(selection.stop_R, [3, 4, 0])
    self.assertFalse(selection.crossing_R.any())

  @FEW
  @given(LENGTHS, BUDGETS, SEEDS,
         st.sampled_from(['prefix', 'ring_window']),
         st.sampled_from(['random', 'sequential']))
  def test_exactly_the_budget_or_all_there_is(
      self, lengths, budget, seed, kind, order):
    selection = packing.select(
        np.array(lengths), token_budget=budget, seed=seed, selection=kind,
        order=order)
    mask_RT = packing.kept_mask(selection, 31)
    total = sum(lengths)
    self.assertEqual(mask_RT.sum(), min(budget, total))
    np.testing.assert_array_equal(mask_RT.sum(1), selection.kept_R)
    self.assertEqual(selection.shortfall, max(budget - total, 0))
    self.assertEqual(selection.token_budget, budget)
    # The budget's edge lies in a response that is kept in part, and only there.
    partly_R = (selection.kept_R > 0) & (selection.kept_R < np.array(lengths))
    np.testing.assert_array_equal(selection.crossing_R, partly_R)

  @FEW
  @given(LENGTHS, BUDGETS, SEEDS)
  def test_smallest_prefix_that_reaches_the_budget(self, lengths, budget, seed):
    selection = packing.select(
        np.array(lengths), token_budget=budget, seed=seed)
    length_N = np.array(lengths)[selection.order_R]
    kept_N = selection.kept_R[selection.order_R]
    taken = np.flatnonzero(kept_N)
    if not sum(lengths):
      self.assertEmpty(taken)
      return
    last = taken[-1]
    # All before the last are whole (masked samples have nothing to give).
    np.testing.assert_array_equal(kept_N[:last], length_N[:last])
    self.assertLess(length_N[:last].sum(), budget)  # N - 1 do not reach it
    if sum(lengths) >= budget:
      self.assertGreaterEqual(length_N[:last + 1].sum(), budget)
    self.assertTrue((selection.start_R == 0).all())  # only tails are cut

  @FEW
  @given(LENGTHS, BUDGETS, SEEDS)
  def test_whole_responses_on_request(self, lengths, budget, seed):
    cut, whole = (
        packing.select(np.array(lengths), token_budget=budget, seed=seed, cut=c)
        for c in ('token', 'response'))
    np.testing.assert_array_equal(cut.order_R, whole.order_R)
    np.testing.assert_array_equal(cut.kept_R > 0, whole.kept_R > 0)
    np.testing.assert_array_equal(cut.crossing_R, whole.crossing_R)
    np.testing.assert_array_equal(
        whole.kept_R, np.where(whole.kept_R > 0, lengths, 0))
    self.assertEqual(whole.token_budget, budget)  # still what divides

  @FEW
  @given(LENGTHS, BUDGETS, SEEDS)
  def test_ring_window_is_one_run_on_the_ring(self, lengths, budget, seed):
    selection = packing.select(
        np.array(lengths), token_budget=budget, seed=seed,
        selection='ring_window')
    kept = kept_in_order(selection).astype(int)
    rises = int((np.diff(np.append(kept, kept[:1])) == 1).sum())
    self.assertLessEqual(rises, 1)
    # Whatever is kept lies within what a row would store.
    mask_RT = packing.kept_mask(selection, 31)
    self.assertFalse(
        mask_RT[np.arange(31) >= selection.stored_R[:, None]].any())
    self.assertTrue((selection.stored_R <= np.array(lengths)).all())

  def test_ring_window_can_begin_and_end_in_one_response(self):
    # 9 of 10 tokens of one response: the one token left out is inside it.
    seen = set()
    for seed in range(60):
      selection = packing.select(
          np.array([10]), token_budget=9, seed=seed, selection='ring_window')
      mask_RT = packing.kept_mask(selection, 12)
      self.assertEqual(mask_RT.sum(), 9)
      seen.add(int(np.flatnonzero(~mask_RT[0])[0]))
    self.assertEqual(seen, set(range(10)))

  def test_masked_samples_are_never_selected(self):
    for seed in range(20):
      selection = packing.select(
          np.array([0, 5, 0, 5, 0]), token_budget=8, seed=seed)
      np.testing.assert_array_equal(selection.kept_R[[0, 2, 4]], 0)
    nothing = packing.select(np.zeros(3, int), token_budget=8, seed=0)
    self.assertEqual((nothing.num_tokens, nothing.shortfall), (0, 8))


class OrderTest(parameterized.TestCase):

  @parameterized.parameters('prefix', 'ring_window')
  def test_same_seed_same_selection(self, kind):
    lengths_R = np.random.default_rng(0).integers(1, 50, 64)
    pick = lambda seed: packing.kept_mask(packing.select(
        lengths_R, token_budget=300, seed=seed, selection=kind), 50)
    np.testing.assert_array_equal(pick((7, 3)), pick([7, 3]))
    self.assertFalse((pick((7, 3)) == pick((7, 4))).all())
    self.assertFalse((pick((7, 3)) == pick((8, 3))).all())
    np.testing.assert_array_equal(pick(7), pick([7]))

  def test_group_major_keeps_groups_together_and_in_place(self):
    selection = packing.select(
        np.full(12, 5), token_budget=20, seed=1, order='group_major',
        group_size=3)
    order_PG = selection.order_R.reshape(4, 3)
    np.testing.assert_array_equal(order_PG - order_PG[:, :1], [[0, 1, 2]] * 4)
    self.assertEqual(set((order_PG[:, 0] // 3).tolist()), {0, 1, 2, 3})
    # 20 = one whole group of 15 and the first response of the next.
    np.testing.assert_array_equal(
        np.sort(selection.kept_R.reshape(4, 3).sum(1)), [0, 0, 5, 15])

  def test_random_order_mixes_groups(self):
    selection = packing.select(np.full(64, 5), token_budget=80, seed=1)
    self.assertGreater(len(set((np.flatnonzero(selection.kept_R) // 8))), 3)

  def test_zero_advantage_groups_can_be_left_out(self):
    advantage_R = np.array([0, 0, 1, -1, 0, 0, 0, 2.0])
    selection = packing.select(
        np.full(8, 5), token_budget=1000, seed=0, group_size=2,
        drop_zero_adv_groups=True, advantage_R=advantage_R)
    np.testing.assert_array_equal(
        selection.kept_R, [0, 0, 5, 5, 0, 0, 5, 5])
    # Paper mode: they consume budget like all others.
    everything = packing.select(np.full(8, 5), token_budget=1000, seed=0)
    self.assertEqual(everything.num_tokens, 40)
    self.assertEqual(packing.statistics(selection)['dropped_responses'], 4)


class ScopeTest(parameterized.TestCase):

  def test_each_rank_fills_its_own_budget_from_its_own_share(self):
    lengths_R = np.random.default_rng(0).integers(5, 20, 32)
    selection = packing.select(
        lengths_R, token_budget=30, seed=4, budget_scope='per_data_rank',
        num_ranks=4)
    np.testing.assert_array_equal(
        selection.kept_R.reshape(4, 8).sum(1), [30] * 4)
    self.assertEqual(selection.token_budget, 120)  # what the loss divides by
    orders = selection.order_R.reshape(4, 8) - 8 * np.arange(4)[:, None]
    self.assertLen({tuple(o) for o in orders.tolist()}, 4)

  def test_one_long_share_does_not_fill_another(self):
    lengths_R = np.array([50, 50, 1, 1])
    of = lambda **kw: packing.select(
        lengths_R, token_budget=20, seed=0, **kw)
    split = of(budget_scope='per_data_rank', num_ranks=2)
    self.assertEqual((split.num_tokens, split.shortfall), (22, 18))
    self.assertEqual(of(budget_scope='global', num_ranks=2).num_tokens, 20)

  @FEW
  @given(LENGTHS, st.integers(1, 60), st.integers(1, 6), SEEDS)
  def test_several_budgets_share_no_response(self, lengths, budget, many, seed):
    found = packing.select_many(
        np.array(lengths), num_budgets=many, token_budget=budget, seed=seed)
    self.assertBetween(len(found), 1, many)
    times_R = sum((s.kept_R > 0).astype(int) for s in found)
    self.assertLessEqual(times_R.max(), 1)
    for selection in found[:-1]:
      self.assertEqual(selection.num_tokens, budget)
    if len(found) < many:  # it ended early: nothing is left
      np.testing.assert_array_equal(times_R, np.array(lengths) > 0)


class ErrorTest(parameterized.TestCase):

  def select(self, lengths=(5, 5), **kw):
    return packing.select(
        np.array(lengths), **(dict(token_budget=4, seed=0) | kw))

  @parameterized.parameters(
      (dict(token_budget=0), 'token_budget >= 1, got 0'),
      (dict(lengths=(5, -2)), 'got -2 at index 1'),
      (dict(lengths=(5.0, 2.0)), 'float64'),
      (dict(lengths=((5, 2),)), 'Flatten length_PG'),
      (dict(lengths=()), 'non-empty'),
      (dict(order='length'), "order in .*got 'length'"),
      (dict(cut='half'), 'cut in'),
      (dict(selection='ring'), 'selection in'),
      (dict(budget_scope='rank'), 'budget_scope in'),
      (dict(underflow='resample'), 'packing.needs_more'),
      (dict(underflow='carry_over'), 'packing.needs_more'),
      (dict(underflow='error', token_budget=11), 'token_budget=11 .*got 10'),
      (dict(order='group_major'), 'group_size'),
      (dict(order='group_major', group_size=3), 'got 3'),
      (dict(budget_scope='per_data_rank', num_ranks=3), 'num_ranks'),
      (dict(selection='ring_window', cut='response'), "cut='token'"),
      (dict(drop_zero_adv_groups=True), 'advantage_R'),
      (dict(drop_zero_adv_groups=True, advantage_R=np.ones(3), group_size=1),
       'Expected 2 advantages'),
      (dict(max_response_length=5), 'got 4 < 5'),
      (dict(max_response_length=2, token_budget=9), r'2 \* 2, got 9'),
  )
  def test_says_what_was_expected_and_what_came(self, kw, message):
    with self.assertRaisesRegex(ValueError, message):
      self.select(**kw)

  def test_a_ring_window_has_no_second_budget(self):
    with self.assertRaisesRegex(ValueError, 'ring_window'):
      packing.select_many(np.array([5]), num_budgets=2, token_budget=3, seed=0,
                          selection='ring_window')

  def test_budgets_that_fit_are_accepted(self):
    self.select(max_response_length=4)
    self.select(token_budget=10, underflow='error')
    packing.check_budget(10, 2, 5)


if __name__ == '__main__':
  absltest.main()
