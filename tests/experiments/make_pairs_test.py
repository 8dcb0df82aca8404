"""Best of n against worst, picked by hand."""
import dataclasses
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from configs.pairs import worked_sums
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
        'rejected': 'text 7', 'score_chosen': 1.0, 'score_rejected': 0.0,
        'chosen_ends': True, 'rejected_ends': True})

  def test_what_the_limit_cut_off_says_so(self):
    graded = graded_lib.make([[0, 1]])
    roll = dataclasses.replace(
        graded.rollout, stopped_PG=np.array([[False, True]]))
    pair = make_pairs.pick(
        dataclasses.replace(graded, rollout=roll), 0)['pair']
    self.assertEqual((pair['chosen_ends'], pair['rejected_ends']),
                     (True, False))

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


class StepTest(absltest.TestCase):

  def test_groups_are_gone_on_with_from_the_checkpoint_they_are_of(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    config = worked_sums.get_config('smoke').lock()
    config.init.checkpoint = str(folder / 'checkpoints')
    for newest in (7, 12):
      (folder / 'checkpoints' / str(newest)).mkdir(parents=True)
      self.assertEqual(make_pairs.claim(config, folder).init.step, 7)
    with self.subTest('while nothing is sampled, another request may come'):
      other = config.copy_and_resolve_references()
      other.seed = 3
      self.assertEqual(make_pairs.claim(other, folder).init.step, 12)
    make_pairs.claim(config, folder)
    (folder / 'groups.jsonl').write_text('')
    # Samples of the one are not mixed with those of another.
    config.init.step = 7
    with self.assertRaisesRegex(ValueError, 'init.step: there 12, now 7'):
      make_pairs.claim(config, folder)


if __name__ == '__main__':
  absltest.main()
