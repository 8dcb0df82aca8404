from absl.testing import absltest
import numpy as np

from rljax import packing
from tests.packing import rollouts


def make_rollout(seed):
  lengths_PG = np.random.default_rng(seed).integers(1, 9, (2, 3))
  return rollouts.make_rollout(lengths_PG, (2, 3), 8, seed)


class CarryTest(absltest.TestCase):

  def test_tokens_missing_by_share(self):
    # Shares hold 9 and 3 tokens: 0 and 5 are missing to 8; of one share, 4.
    lengths_R = np.array([5, 4, 2, 1])
    self.assertEqual(packing.needs_more(lengths_R, 8, num_ranks=2), 5)
    self.assertEqual(packing.needs_more(lengths_R, 16), 4)
    self.assertEqual(packing.needs_more(lengths_R, 12), 0)

  def test_resampling_fills_the_budget(self):
    rollout, drawn = make_rollout(0), 0
    budget = 3 * int(rollout.length_PG.sum())
    while packing.needs_more(rollout.length_PG.reshape(-1), budget):
      drawn += 1
      rollout = packing.join([rollout, make_rollout(drawn)])
    self.assertGreater(drawn, 0)
    selection = packing.select(
        rollout.length_PG.reshape(-1), token_budget=budget, seed=0,
        underflow='error')
    self.assertEqual(selection.shortfall, 0)

  def test_carrying_over_trains_on_every_response_once(self):
    # Identify a response by its recorded log-probabilities.
    trained, budget, waiting = [], 10, None
    offered = set()
    for step in range(12):
      if step < 6:
        fresh = make_rollout(step)
        stamp = fresh.logp_PGT - 100 * step
        fresh = type(fresh)(**{**vars(fresh), 'logp_PGT': stamp})
        offered |= set(stamp[:, :, 0].reshape(-1).tolist())
        waiting = fresh if waiting is None else packing.join([waiting, fresh])
      if not waiting.prompts:
        break
      selection = packing.select(
          waiting.length_PG.reshape(-1), token_budget=budget, seed=step)
      ids_R = waiting.logp_PGT[:, :, 0].reshape(-1)
      trained += ids_R[selection.kept_R > 0].tolist()
      before = len(waiting.prompts)
      waiting, keep_P = packing.left_over(waiting, selection)
      self.assertEqual((len(keep_P), keep_P.sum()),
                       (before, len(waiting.prompts)))
    self.assertLen(trained, len(set(trained)))
    left = waiting.logp_PGT[:, :, 0][waiting.length_PG > 0].tolist()
    self.assertEqual(set(trained) | set(left), offered)
    self.assertGreater(len(trained), len(offered) // 2)

  def test_taken_prompts_keep_all_their_fields(self):
    rollout = make_rollout(0)
    taken = packing.take_prompts(rollout, np.array([False, True]))
    self.assertLen(taken.prompts, 1)
    np.testing.assert_array_equal(taken.prompts[0], rollout.prompts[1])
    np.testing.assert_array_equal(taken.tokens_PGT, rollout.tokens_PGT[1:])
    self.assertIsNone(taken.experts_PGSLX)
    both = packing.join(
        [packing.take_prompts(rollout, np.array(k)) for k in
         ([True, False], [False, True])])
    np.testing.assert_array_equal(both.logp_PGT, rollout.logp_PGT)
    self.assertLen(both.prompts, 2)

  def test_what_does_not_fit_is_refused(self):
    rollout = make_rollout(0)
    with self.assertRaisesRegex(ValueError, 'per prompt, not per sample'):
      packing.take_prompts(rollout, np.ones(6, bool))
    with self.assertRaisesRegex(ValueError, 'at least one rollout'):
      packing.join([])
    other = rollouts.make_rollout(np.ones((2, 4)), (2, 3), 8)
    with self.assertRaisesRegex(ValueError, r'\(3, 8\), \(4, 8\)'):
      packing.join([rollout, other])


if __name__ == '__main__':
  absltest.main()
