import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from rljax import losses
from rljax import packing
from rljax.training import metrics as logging
from rljax.types import PolicyBatch
from tests.packing import rollouts

MAX_LENGTH = 9
FEW = settings(max_examples=40, deadline=None)


def random_rollout(seed, num_prompts=3, num_samples=4):
  rng = np.random.default_rng(seed)
  return rollouts.make_rollout(
      rng.integers(0, MAX_LENGTH + 1, (num_prompts, num_samples)),
      rng.integers(1, 6, num_prompts), MAX_LENGTH, seed)


def pack(rollout, advantage_R, selection, **kw):
  kw = dict(num_rows=16, row_length=16, num_microbatches=4,
            max_response_length=MAX_LENGTH) | kw
  return packing.pack(rollout, advantage_R, selection, **kw)


class PackTest(parameterized.TestCase):

  def test_routes_lie_where_their_tokens_lie(self):
    rollout = random_rollout(0)
    rng = np.random.default_rng(1)
    experts_PGSLX = rng.integers(0, 8, (3, 4, 5 + MAX_LENGTH, 2, 3), np.uint8)
    recorded = dataclasses.replace(rollout, experts_PGSLX=experts_PGSLX)
    selection = packing.select(
        rollout.length_PG.ravel(), token_budget=25, seed=0)
    rows = pack(recorded, np.zeros(12), selection)
    self.assertEqual(rows.experts_BTLX.dtype, np.uint8)
    seen = 0
    for b, t in np.argwhere(rows.segment_BT > 0):
      p, g = divmod(int(rows.segment_BT[b, t]) - 1, 4)
      np.testing.assert_array_equal(
          rows.experts_BTLX[b, t],
          experts_PGSLX[p, g, rows.position_BT[b, t]])
      seen += 1
    self.assertGreater(seen, 25)  # prompts too
    np.testing.assert_array_equal(
        rows.experts_BTLX[rows.segment_BT == 0], 255)
    self.assertIsNone(pack(rollout, np.zeros(12), selection).experts_BTLX)

  def test_hand_computed(self):
    # Prompts [8, 8] and [7]; responses of 2, 1 and 3, 0 tokens; Φ = 5 in
    # order: 2 + 1 + 2 of 3. Sequences 4, 3, 3 in rows of 7.
    rollout = rollouts.make_rollout([[2, 1], [3, 0]], (2, 1), 4)
    rollout.prompts[0][:], rollout.prompts[1][:] = 8, 7
    rollout.tokens_PGT[:] = np.arange(16).reshape(2, 2, 4)
    selection = packing.select(
        np.array([2, 1, 3, 0]), token_budget=5, seed=0, order='sequential')
    rows = packing.pack(
        rollout, np.array([1.0, 2.0, 3.0, 4.0]), selection, num_rows=2,
        row_length=7, max_response_length=4)
    np.testing.assert_array_equal(
        rows.tokens_BT, [[8, 8, 0, 1, 8, 8, 4], [7, 8, 9, 0, 0, 0, 0]])
    np.testing.assert_array_equal(
        rows.segment_BT, [[1, 1, 1, 1, 2, 2, 2], [3, 3, 3, 0, 0, 0, 0]])
    np.testing.assert_array_equal(
        rows.position_BT, [[0, 1, 2, 3, 0, 1, 2], [0, 1, 2, 0, 0, 0, 0]])
    np.testing.assert_array_equal(
        rows.mask_BT, [[0, 0, 1, 1, 0, 0, 1], [0, 1, 1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(
        rows.advantage_BT, [[0, 0, 1, 1, 0, 0, 2], [0, 3, 3, 0, 0, 0, 0]])
    np.testing.assert_allclose(
        rows.sampled_logp_BT,
        [[0, 0, 0, -.01, 0, 0, -.04], [0, -.08, -.09, 0, 0, 0, 0]], atol=1e-7)
    self.assertEqual(
        (int(rows.num_responses), rows.token_budget, rows.max_response_length),
        (3, 5, 4))

  @FEW
  @given(st.integers(0, 2**31 - 1), st.integers(1, 80),
         st.sampled_from(['prefix', 'ring_window']))
  def test_rows_hold_exactly_the_selected_tokens(self, seed, budget, kind):
    rollout = random_rollout(seed)
    length_R = rollout.length_PG.reshape(-1)
    selection = packing.select(
        length_R, token_budget=budget, seed=seed, selection=kind)
    rows = pack(rollout, np.arange(12.0), selection)
    self.assertEqual(rows.mask_BT.sum(), min(budget, length_R.sum()))
    self.assertEqual(int(rows.num_responses), (selection.kept_R > 0).sum())

    # The mask, carried back, is the selection; so are tokens and log-probs.
    np.testing.assert_array_equal(
        packing.unpack(rows.mask_BT, rows, rollout),
        packing.kept_mask(selection, MAX_LENGTH))
    stored_RT = np.arange(MAX_LENGTH) < selection.stored_R[:, None]
    for stored, original_PGT in ((rows.tokens_BT, rollout.tokens_PGT),
                                 (rows.sampled_logp_BT, rollout.logp_PGT)):
      np.testing.assert_array_equal(
          packing.unpack(stored, rows, rollout),
          np.where(stored_RT, original_PGT.reshape(12, -1), 0))

    for r in np.flatnonzero(selection.kept_R):
      where_b, where_t = np.nonzero(rows.segment_BT == r + 1)
      self.assertLen(set(where_b.tolist()), 1)  # in one row
      num_tokens = len(rollout.prompts[r // 4]) + selection.stored_R[r]
      np.testing.assert_array_equal(
          where_t, where_t[0] + np.arange(num_tokens))  # and in one piece
      np.testing.assert_array_equal(
          rows.position_BT[where_b, where_t], np.arange(num_tokens))
      np.testing.assert_array_equal(
          rows.tokens_BT[where_b, where_t][:len(rollout.prompts[r // 4])],
          rollout.prompts[r // 4])
    padding_BT = rows.segment_BT == 0
    for array_BT in (rows.tokens_BT, rows.position_BT, rows.mask_BT,
                     rows.advantage_BT, rows.sampled_logp_BT):
      np.testing.assert_array_equal(array_BT[padding_BT], 0)

  def test_ring_window_stores_the_context_of_its_first_response(self):
    rollout = rollouts.make_rollout([[9]], (2,), 9)
    for seed in range(50):
      selection = packing.select(
          np.array([9]), token_budget=3, seed=seed, selection='ring_window')
      if selection.start_R[0] == 4:
        break
    self.assertEqual(selection.stop_R[0], 7)
    rows = pack(rollout, np.ones(1), selection)
    self.assertEqual((rows.segment_BT == 1).sum(), 2 + 7)
    np.testing.assert_array_equal(
        rows.mask_BT[0, :9], [0, 0, 0, 0, 0, 0, 1, 1, 1])

  def test_a_generated_padding_id_is_an_ordinary_token(self):
    rollout = rollouts.make_rollout([[5]], (1,), 9)
    rollout.tokens_PGT[:] = 0
    rows = pack(rollout, np.ones(1), packing.select(
        np.array([5]), token_budget=5, seed=0))
    self.assertEqual(rows.mask_BT.sum(), 5)
    np.testing.assert_array_equal(rows.segment_BT[0, :6], 1)

  def test_advantages_do_not_depend_on_the_cut(self):
    rollout = random_rollout(0)
    advantage_R = np.random.default_rng(1).normal(size=12)
    seen = {}
    for seed in range(20):
      selection = packing.select(
          rollout.length_PG.reshape(-1), token_budget=15, seed=seed)
      rows = pack(rollout, advantage_R, selection)
      for segment in set(rows.segment_BT[rows.mask_BT].tolist()):
        inside_BT = rows.mask_BT & (rows.segment_BT == segment)
        values = set(rows.advantage_BT[inside_BT].tolist())
        self.assertEqual(
            values, {np.float32(advantage_R[segment - 1]).item()})
        seen.setdefault(segment, set()).add(int(inside_BT.sum()))
    self.assertTrue(any(len(cuts) > 1 for cuts in seen.values()))

  def test_untouched_micro_batches_are_all_padding(self):
    rollout = random_rollout(0)
    selection = packing.select(
        rollout.length_PG.reshape(-1), token_budget=20, seed=0)
    rows = pack(rollout, np.ones(12), selection, num_rows=32)
    used = [(rows.segment_BT[i::4] > 0).any() for i in range(4)]
    self.assertEqual(used, [True, False, False, False])

  @parameterized.parameters(0, 1, 2)
  def test_positions_are_at_least_nine_tenths_real(self, seed):
    # Lengths that swing by ten between steps; the rows never change.
    rng = np.random.default_rng(seed)
    lengths_PG = rng.integers(10, 200, (16, 16)) // (1 + 9 * (seed % 2))
    rollout = rollouts.make_rollout(
        np.maximum(lengths_PG, 1), rng.integers(10, 30, 16), 200)
    budget = 2048 if seed % 2 else 8192
    rows = pack(rollout, np.ones(256), packing.select(
        rollout.length_PG.reshape(-1), token_budget=budget, seed=seed),
                num_rows=128, row_length=256, num_microbatches=64,
                max_response_length=200)
    self.assertGreater(packing.row_fill(rows.segment_BT, 64), 0.9)

  def test_one_compilation_however_the_lengths_swing(self):
    objective = losses.get('policy', 'c3po', kl_coef=0.0)

    @jax.jit
    def step(rows):
      zeros_BT = jnp.zeros(rows.mask_BT.shape)
      batch = PolicyBatch(
          tokens_BT=rows.tokens_BT, position_BT=rows.position_BT,
          segment_BT=rows.segment_BT, weight_BT=objective.token_weights(rows),
          share_BT=zeros_BT, advantage_BT=rows.advantage_BT,
          old_logp_BT=zeros_BT, ref_logp_BT=None, load_BLE=None)
      return objective.loss(zeros_BT, batch)

    with logging.CompilationCounter() as counter:
      for seed in range(50):
        high = 9 if seed % 2 else 1
        rng = np.random.default_rng(seed)
        rollout = rollouts.make_rollout(
            rng.integers(high // 9, high + 1, (3, 4)), (1, 5, 2), 9, seed)
        length_R = rollout.length_PG.reshape(-1)
        selection = packing.select(length_R, token_budget=20, seed=seed)
        _, metrics = step(pack(rollout, np.ones(12), selection))
        np.testing.assert_allclose(
            metrics['budget_fill'], min(20, length_R.sum()) / 20, rtol=1e-6)
    self.assertEqual(counter.counts['step'], 1)


class PackErrorTest(parameterized.TestCase):

  @parameterized.parameters(
      (dict(num_rows=4), 'num_rows=4 .*need of'),
      (dict(row_length=9), r'row_length=9, got \d \+ \d tokens for prompt'),
      (dict(num_microbatches=3), 'num_microbatches'),
      (dict(max_response_length=2), 'max_response_length=2'),
  )
  def test_says_what_to_change(self, kw, message):
    rollout = random_rollout(0)
    selection = packing.select(
        rollout.length_PG.reshape(-1), token_budget=1000, seed=0)
    with self.assertRaisesRegex(ValueError, message):
      pack(rollout, np.ones(12), selection, **kw)

  def test_parts_must_belong_together(self):
    rollout = random_rollout(0)
    length_R = rollout.length_PG.reshape(-1)
    selection = packing.select(length_R, token_budget=1000, seed=0)
    with self.assertRaisesRegex(ValueError, "'advantage_R': 5"):
      pack(rollout, np.ones(5), selection)
    longer = packing.select(
        np.full(12, MAX_LENGTH), token_budget=1000, seed=0)
    with self.assertRaisesRegex(ValueError, 'lengths of this rollout'):
      pack(rollout, np.ones(12), longer)

  def test_an_empty_prompt_is_refused(self):
    rollout = rollouts.make_rollout([[2]], (0,), 9)
    selection = packing.select(np.array([2]), token_budget=2, seed=0)
    with self.assertRaisesRegex(ValueError, 'empty prompt 0'):
      pack(rollout, np.ones(1), selection)


class ExamplesTest(parameterized.TestCase):

  def test_hand_computed(self):
    # Examples of 2 and 3 tokens in one row; 3 targets in the step: 1/3 each,
    # 5 real tokens: 1/5 each. The mask has a hole; token 0 is ordinary.
    batch = packing.pack_examples(
        [np.array([5, 0]), np.array([6, 7, 8])],
        [np.array([0, 1], bool), np.array([0, 1, 1], bool)],
        num_rows=2, row_length=6, num_microbatches=2)
    np.testing.assert_array_equal(
        batch.tokens_BT, [[6, 7, 8, 5, 0, 0], [0] * 6])
    np.testing.assert_array_equal(
        batch.segment_BT, [[2, 2, 2, 1, 1, 0], [0] * 6])
    np.testing.assert_array_equal(
        batch.position_BT, [[0, 1, 2, 0, 1, 0], [0] * 6])
    np.testing.assert_allclose(
        batch.weight_BT,
        [[0, 1 / 3, 1 / 3, 0, 1 / 3, 0], [0] * 6], rtol=1e-6)
    np.testing.assert_allclose(
        batch.share_BT, [[0.2, 0.2, 0.2, 0.2, 0.2, 0], [0] * 6], rtol=1e-6)
    self.assertIsNone(batch.load_BLE)

  def test_weights_are_those_of_the_objective(self):
    rng = np.random.default_rng(0)
    tokens = [rng.integers(0, 9, n) for n in rng.integers(2, 12, 20)]
    masks = [np.arange(len(t)) % 3 > 0 for t in tokens]
    batch = packing.pack_examples(tokens, masks, num_rows=16, row_length=12)
    weights = losses.get('supervised', 'cross_entropy').token_weights
    np.testing.assert_allclose(
        batch.weight_BT, weights(np.asarray(batch.weight_BT) > 0), rtol=1e-6)

  @parameterized.parameters(
      ([[1, 2], [1] * 9], [[0, 1], [0] * 9], 'got 9 in example 1'),
      ([[1, 2], []], [[0, 1], []], 'got 0 in example 1'),
      ([[1, 2]], [[0, 1, 1]], 'got 3 for 2 tokens in example 0'),
      ([[1, 2]], [[1, 1]], 'first token .* example 0'),
      ([[1, 2]], [[0, 0]], 'got none in 1 examples'),
      ([], [], 'at least one'),
      ([[1, 2], [3, 4]], [[0, 1]], '2 examples and 1 masks'),
      ([[1] * 5] * 5, [[0, 1, 1, 1, 1]] * 5, 'num_rows=4'),
  )
  def test_bad_examples_are_named(self, tokens, masks, message):
    with self.assertRaisesRegex(ValueError, message):
      packing.pack_examples(tokens, masks, num_rows=4, row_length=8)


if __name__ == '__main__':
  absltest.main()
