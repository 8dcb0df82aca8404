from absl.testing import absltest
from absl.testing import parameterized

from experiments import train_policy
from tests.experiments import graded as graded_lib


class CheckTest(parameterized.TestCase):

  def test_sizes_that_fit_pass(self):
    train_policy.check(graded_lib.policy_config())

  @parameterized.parameters(
      (dict(row_length=15), 'row_length >= .*16, got 15'),
      (dict(num_rows=1), 'num_rows >= [2-8], .*got 1'))
  def test_rows_too_small_for_a_step_are_refused(self, change, pattern):
    config = graded_lib.policy_config()
    config.packing.update(change)
    with self.assertRaisesRegex(ValueError, pattern):
      train_policy.check(config)

  def test_more_draws_need_more_rows(self):
    config = graded_lib.policy_config(max_draws=4)
    config.packing.num_rows = 4
    config.packing.select.token_budget = 32
    train_policy.check(config)  # one draw: four responses, a row each
    config.packing.resample = True
    with self.assertRaisesRegex(ValueError, 'num_rows >= 16, .*got 4'):
      train_policy.check(config)

  def test_the_budget_may_count_on_all_the_draws(self):
    config = graded_lib.policy_config(max_draws=2)
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
    config = graded_lib.policy_config()
    train_policy.check(config)
    config.update_from_flattened_dict(changes)
    with self.assertRaisesRegex(ValueError, pattern):
      train_policy.check(config)

  def test_a_rank_must_be_able_to_fill_its_budget(self):
    config = graded_lib.policy_config()
    config.packing.select.update(budget_scope='per_data_rank', num_ranks=2,
                                 token_budget=17)
    with self.assertRaisesRegex(ValueError, r'2 \* 8, got 17'):
      train_policy.check(config)


if __name__ == '__main__':
  absltest.main()
