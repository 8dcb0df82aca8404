"""Best of n against worst, picked by hand."""
from absl.testing import absltest
from absl.testing import parameterized

from experiments import make_pairs
from tests.experiments import graded as graded_lib


class PickTest(parameterized.TestCase):

  def test_the_first_best_against_the_first_worst(self):
    graded = graded_lib.make([[0, 0, 0, 0], [.5, 1, 1, 0]])
    found = make_pairs.pick(graded, 1)
    self.assertEqual(found['outcome'], 'pair')
    self.assertEqual(found['ties'], 1)
    self.assertEqual(found['pair'], {
        'id': 'r1', 'prompt': 'Say 1.', 'domain': 'math', 'chosen': 'text 5',
        'rejected': 'text 7', 'score_chosen': 1.0, 'score_rejected': 0.0})

  @parameterized.parameters(
      ([1, 1, 1], 'all_equal_best'), ([0, 0, 0], 'all_equal_worst'),
      ([.5, .5, .5], 'all_equal_worst'), ([None, None, 1], 'too_few_gradable'),
      ([None, 1, 0], 'pair'))
  def test_a_group_that_says_nothing_is_counted(self, rewards, outcome):
    found = make_pairs.pick(graded_lib.make([rewards]), 0)
    self.assertEqual(found['outcome'], outcome)
    self.assertEqual(make_pairs.count([found])[outcome], 1)
    self.assertEqual(sum(make_pairs.count([found]).values()), 1)

  def test_what_nobody_could_grade_is_no_worst_response(self):
    found = make_pairs.pick(graded_lib.make([[None, 1, .5]]), 0)
    self.assertEqual(found['pair']['rejected'], 'text 2')

  def test_no_pair_at_all_is_an_error(self):
    group = make_pairs.pick(graded_lib.make([[1, 1]]), 0)
    with self.assertRaisesRegex(ValueError, "none of 1: .*'all_equal_best': 1"):
      make_pairs.write(None, [group], {})


if __name__ == '__main__':
  absltest.main()
