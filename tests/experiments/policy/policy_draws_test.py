import dataclasses
import types
from unittest import mock

from absl.testing import absltest
import numpy as np

from experiments.job import reporting
from experiments.policy import guided
from experiments.policy import policy_draws
from experiments.policy import responses
from tests.experiments import graded as graded_lib


def collect(config, draws, memory=None):
  """`collect` with graded draws given; returns its result and the keys used."""
  draws, keys = iter(draws), []
  sample = lambda sampler, params, records, key, **options: keys.append(key)
  with (mock.patch.object(responses, 'sample', sample),
        mock.patch.object(responses, 'grade',
                          lambda *arguments: next(draws)),
        mock.patch.object(policy_draws.jax.random, 'fold_in',
                          lambda key, index: (key, index))):
    graded, counts = policy_draws.collect(
        config, types.SimpleNamespace(tokenizer=None),
        types.SimpleNamespace(sample=None, rescore=None), reporting.Clock(),
        iter([[]] * 9), None, None, 'key', memory)
  return graded, counts, keys


class CollectTest(absltest.TestCase):

  def test_one_draw_is_the_rule(self):
    draw = graded_lib.make([[1, 1], [0, 0]])
    graded, counts, keys = collect(graded_lib.policy_config(), [draw])
    np.testing.assert_array_equal(graded.correct_PG, draw.correct_PG)
    self.assertEqual((counts['draws'], counts['uninformative_groups']), (1, 0))
    self.assertEqual(keys, [('key', 0)])

  def test_dynamic_sampling_replaces_groups_without_a_signal(self):
    config = graded_lib.policy_config(dynamic_sampling=True, max_draws=4)
    draws = [graded_lib.make([[1, 1], [1, 0]]),   # one of two is informative
             graded_lib.make([[0, 0], [0, 0]]),   # none
             graded_lib.make([[0, 1], [1, 0]])]   # both: one too many
    graded, counts, keys = collect(config, draws)
    np.testing.assert_array_equal(graded.correct_PG, [[True, False],
                                                      [False, True]])
    self.assertEqual((counts['draws'], counts['uninformative_groups']), (3, 3))
    # Metrics are of all that was sampled: 5 of 12 are right, not 2 of 4.
    np.testing.assert_allclose(counts['accuracy'], 5 / 12)
    np.testing.assert_allclose(counts['reward'], 5 / 12)
    self.assertEqual(counts['sampled_tokens'], 12 * 4)
    self.assertEqual(counts['verdict_ok'], 12)
    self.assertEqual(keys, [('key', 0), ('key', 1), ('key', 2)])

  def test_dynamic_sampling_goes_on_with_fewer_groups_than_it_asks_for(self):
    config = graded_lib.policy_config(dynamic_sampling=True, max_draws=2)
    graded, counts, _ = collect(config, [graded_lib.make([[1, 1], [1, 0]]),
                                         graded_lib.make([[0, 0], [0, 0]])])
    self.assertLen(graded.records, 1)
    self.assertEqual(counts['uninformative_groups'], 3)

  def test_no_informative_group_at_all_is_an_error(self):
    config = graded_lib.policy_config(dynamic_sampling=True, max_draws=2)
    with self.assertRaisesRegex(ValueError, 'in 2 draws, got none. Use easier'):
      collect(config, [graded_lib.make([[1, 1], [0, 0]])] * 2)

  def test_prompts_are_added_until_their_tokens_fill_the_budget(self):
    config = graded_lib.policy_config(max_draws=3)
    config.packing.resample = True
    config.packing.select.token_budget = 30
    # 16 tokens a draw, of which 4 nobody could grade: 12, 24, 36 >= 30.
    draw = graded_lib.make([[1, 0], [None, 0]])
    graded, counts, _ = collect(config, [draw] * 3)
    self.assertLen(graded.records, 6)
    self.assertEqual(counts['draws'], 3)
    self.assertEqual(policy_draws.selectable(graded).sum(), 36)

  def test_each_rank_fills_a_budget_of_its_own(self):
    config = graded_lib.policy_config(max_draws=3)
    config.packing.resample = True
    config.packing.select.update(budget_scope='per_data_rank', num_ranks=2)
    # 16 tokens fill one budget of 12, not two; 32 fill both.
    graded, counts, _ = collect(config, [graded_lib.make([[1, 0]] * 2)] * 3)
    self.assertEqual(counts['draws'], 2)
    self.assertEqual(graded.rollout.length_PG.sum(), 32)


class CollectGuideTest(absltest.TestCase):

  def make_config(self, **options):
    config = graded_lib.policy_config(max_draws=2)
    config.guide.update(dict(mode='filter', buffer=True) | options)
    return config

  def draw(self, reward_PG, logp):
    made = graded_lib.make(reward_PG)
    rollout = dataclasses.replace(
        made.rollout, logp_PGT=np.full_like(made.rollout.logp_PGT, logp))
    return dataclasses.replace(made, rollout=rollout)

  def test_a_group_that_waited_keeps_the_probabilities_of_its_own_step(self):
    memory, mixed = guided.Memory(), [1, 0]
    first, _, _ = collect(
        self.make_config(), [self.draw([mixed] * 3, -1.0)], memory)
    self.assertLen(first.records, 2)
    self.assertFalse(first.recorded_PG.any())
    # Refilled with all-wrong groups dropped: again two, the old one first.
    second, counts, keys = collect(
        self.make_config(), [self.draw([[0, 0]] * 2, -2.0),
                             self.draw([mixed] * 2, -3.0)], memory)
    self.assertLen(keys, 2)
    self.assertEqual([r['id'] for r in second.records], ['r2', 'r0'])
    np.testing.assert_array_equal(second.rollout.logp_PGT[:, 0, 0], [-1, -3])
    np.testing.assert_array_equal(
        second.recorded_PG, [[True] * 2, [False] * 2])
    self.assertEqual(counts['draws'], 2)
    np.testing.assert_array_equal(
        memory.surplus.rollout.logp_PGT[:, 0, 0], [-3])

  def test_without_a_buffer_nothing_waits(self):
    memory = guided.Memory()
    kept, _, _ = collect(self.make_config(buffer=False),
                         [self.draw([[1, 0]] * 3, -1.0)], memory)
    self.assertLen(kept.records, 2)
    self.assertIsNone(memory.surplus)

  def test_no_group_between_the_bounds_is_an_error(self):
    with self.assertRaisesRegex(ValueError, 'in 2 draws, got none'):
      collect(self.make_config(), [self.draw([[0, 0], [1, 1]], 0.0)] * 2,
              guided.Memory())


if __name__ == '__main__':
  absltest.main()
