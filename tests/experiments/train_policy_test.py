import dataclasses
import types
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from configs.pipeline import ring_lite_mini
from experiments import guided
from experiments import reporting
from experiments import responses
from experiments import train_policy
from tests.experiments import graded as graded_lib


def make_config(**changes):
  config = ring_lite_mini.get_config('smoke').rl[0]
  config.data.prompts_per_step = 2
  config.rollout.update(samples_per_prompt=2, max_new_tokens=8,
                        max_prompt_length=8)
  config.data.max_prompt_length = 8
  config.packing.update(row_length=16, num_rows=8)
  config.packing.select.token_budget = 12
  config.update(changes)
  return config


def collect(config, draws, memory=None):
  """`collect` with graded draws given; returns its result and the keys used."""
  draws, keys = iter(draws), []
  sample = lambda sampler, params, records, key, **options: keys.append(key)
  with (mock.patch.object(responses, 'sample', sample),
        mock.patch.object(responses, 'grade',
                          lambda *arguments: next(draws)),
        mock.patch.object(train_policy.jax.random, 'fold_in',
                          lambda key, index: (key, index))):
    graded, counts = train_policy.collect(
        config, types.SimpleNamespace(tokenizer=None),
        types.SimpleNamespace(sample=None, rescore=None), reporting.Clock(),
        iter([[]] * 9), None, None, 'key', memory)
  return graded, counts, keys


class CollectTest(absltest.TestCase):

  def test_one_draw_is_the_rule(self):
    draw = graded_lib.make([[1, 1], [0, 0]])
    graded, counts, keys = collect(make_config(), [draw])
    np.testing.assert_array_equal(graded.correct_PG, draw.correct_PG)
    self.assertEqual((counts['draws'], counts['uninformative_groups']), (1, 0))
    self.assertEqual(keys, [('key', 0)])

  def test_dynamic_sampling_replaces_groups_without_a_signal(self):
    config = make_config(dynamic_sampling=True, max_draws=4)
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
    config = make_config(dynamic_sampling=True, max_draws=2)
    graded, counts, _ = collect(config, [graded_lib.make([[1, 1], [1, 0]]),
                                         graded_lib.make([[0, 0], [0, 0]])])
    self.assertLen(graded.records, 1)
    self.assertEqual(counts['uninformative_groups'], 3)

  def test_no_informative_group_at_all_is_an_error(self):
    config = make_config(dynamic_sampling=True, max_draws=2)
    with self.assertRaisesRegex(ValueError, 'in 2 draws, got none. Use easier'):
      collect(config, [graded_lib.make([[1, 1], [0, 0]])] * 2)

  def test_prompts_are_added_until_their_tokens_fill_the_budget(self):
    config = make_config(max_draws=3)
    config.packing.resample = True
    config.packing.select.token_budget = 30
    # 16 tokens a draw, of which 4 nobody could grade: 12, 24, 36 >= 30.
    draw = graded_lib.make([[1, 0], [None, 0]])
    graded, counts, _ = collect(config, [draw] * 3)
    self.assertLen(graded.records, 6)
    self.assertEqual(counts['draws'], 3)
    self.assertEqual(train_policy.selectable(graded).sum(), 36)

  def test_each_rank_fills_a_budget_of_its_own(self):
    config = make_config(max_draws=3)
    config.packing.resample = True
    config.packing.select.update(budget_scope='per_data_rank', num_ranks=2)
    # 16 tokens fill one budget of 12, not two; 32 fill both.
    graded, counts, _ = collect(config, [graded_lib.make([[1, 0]] * 2)] * 3)
    self.assertEqual(counts['draws'], 2)
    self.assertEqual(graded.rollout.length_PG.sum(), 32)


class CollectGuideTest(absltest.TestCase):

  def make_config(self, **options):
    config = make_config(max_draws=2)
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


class SelectAndPackTest(parameterized.TestCase):

  def test_hand_computed(self):
    # Two groups of two, 4 tokens each, 16 in all; 12 enter the loss. In each
    # group one is right: mean 1/2, standard deviation 1/2, advantages 1, -1.
    graded = graded_lib.make([[1, 0], [0, 1]])
    rows, report = train_policy.select_and_pack(make_config(), graded, step=0)
    self.assertEqual(rows.mask_BT.sum(), 12)
    self.assertEqual(report['budget_fill'], 1)
    self.assertEqual(report['dropped_tokens'], 4)
    for segment, want in ((1, 1), (2, -1), (3, -1), (4, 1)):
      here_BT = (rows.segment_BT == segment) & rows.mask_BT
      np.testing.assert_allclose(rows.advantage_BT[here_BT], want, rtol=1e-5)

  def test_what_nobody_could_grade_is_never_trained_on(self):
    # The group's other samples keep their statistics: 1 and 0 of two.
    graded = graded_lib.make([[1, 0, None]], [[4, 4, 8]])
    config = make_config()
    config.rollout.samples_per_prompt = 3
    rows, report = train_policy.select_and_pack(config, graded, step=0)
    self.assertEqual(set(rows.segment_BT[rows.mask_BT]), {1, 2})
    self.assertEqual(rows.mask_BT.sum(), 8)
    np.testing.assert_allclose(report['budget_fill'], 8 / 12)
    np.testing.assert_allclose(
        np.unique(rows.advantage_BT[rows.mask_BT]), [-1, 1], rtol=1e-5)

  def test_steps_and_seeds_select_differently_and_repeat(self):
    graded = graded_lib.make([[1, 0]] * 8)
    config = make_config()
    pick = lambda step: train_policy.select_and_pack(
        config, graded, step)[0].segment_BT.tolist()
    self.assertEqual(pick(3), pick(3))
    self.assertNotEqual(pick(3), pick(4))
    config.seed = 1
    other = pick(3)
    config.seed = 0
    self.assertNotEqual(pick(3), other)


class CheckTest(parameterized.TestCase):

  def test_sizes_that_fit_pass(self):
    train_policy.check(make_config())

  @parameterized.parameters(
      (dict(row_length=15), 'row_length >= .*16, got 15'),
      (dict(num_rows=1), 'num_rows >= [2-8], .*got 1'))
  def test_rows_too_small_for_a_step_are_refused(self, change, pattern):
    config = make_config()
    config.packing.update(change)
    with self.assertRaisesRegex(ValueError, pattern):
      train_policy.check(config)

  def test_more_draws_need_more_rows(self):
    config = make_config(max_draws=4)
    config.packing.num_rows = 4
    config.packing.select.token_budget = 32
    train_policy.check(config)  # one draw: four responses, a row each
    config.packing.resample = True
    with self.assertRaisesRegex(ValueError, 'num_rows >= 16, .*got 4'):
      train_policy.check(config)

  def test_the_budget_may_count_on_all_the_draws(self):
    config = make_config(max_draws=2)
    config.packing.select.token_budget = 40  # four responses of 8: 32 a draw
    with self.assertRaisesRegex(ValueError, r'4 \* 8, got 40'):
      train_policy.check(config)
    config.packing.resample = True
    train_policy.check(config)

  @parameterized.named_parameters(
      ('greedy', {'rollout.temperature': 0.0}, 'temperature > 0, got 0.0'),
      ('prompts', {'data.max_prompt_length': 9}, '_length = 8, got 9'),
      ('advantage', {'advantage': 'informative_groups'},
       r"group_centered.*got 'informative_groups'"),
      ('ranks', {'dynamic_sampling': True, 'packing.select.budget_scope':
                 'per_data_rank', 'packing.select.num_ranks': 2},
       'dynamic_sampling=False'))
  def test_refuses(self, changes, pattern):
    config = make_config()
    train_policy.check(config)
    config.update_from_flattened_dict(changes)
    with self.assertRaisesRegex(ValueError, pattern):
      train_policy.check(config)

  def test_a_rank_must_be_able_to_fill_its_budget(self):
    config = make_config()
    config.packing.select.update(budget_scope='per_data_rank', num_ranks=2,
                                 token_budget=17)
    with self.assertRaisesRegex(ValueError, r'2 \* 8, got 17'):
      train_policy.check(config)


if __name__ == '__main__':
  absltest.main()
