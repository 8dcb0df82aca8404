"""What is recorded of a step is what its responses were."""
import dataclasses
import math
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
from ml_collections import config_dict
import numpy as np

from configs import common
from experiments.policy import dynamics
from experiments.policy import judging
from rljax.evaluation import cot_dynamics
from tests.experiments import graded as graded_lib

# Two questions of four: right and sound, right by luck, wrong though sound,
# wrong; then all wrong, one of them not graded.
REWARD = [[1, 1, 0, 0], [0, 0, 0, None]]
VERDICT = np.array([[1, 0, 1, 0], [0, 0, 0, 1]])[..., None]


def config(**judge):
  return config_dict.ConfigDict(dict(
      judge=dict(common.judge(), every=1, name='program') | judge,
      advantage='group_normalized'))


class RecordTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enter_context(
        tempfile.TemporaryDirectory()))
    self.enter_context(mock.patch.object(
        judging, 'verdicts', return_value=VERDICT))

  def record(self, step=0, **judge):
    return dynamics.record(config(**judge), graded_lib.make(REWARD), step,
                           self.folder)

  def test_shares_and_advantages_by_hand(self):
    found = self.record()
    self.assertAlmostEqual(found['answer_right'], 2 / 7)
    self.assertAlmostEqual(found['reasoning_right_of_these'], 1 / 2)
    self.assertAlmostEqual(found['cot_pass_at_1'], 1 / 7)
    # Of rewards 1 1 0 0 the advantages are +-1; those of the other group 0.
    self.assertAlmostEqual(found['advantage_of_sound'], 0.0, places=3)
    self.assertAlmostEqual(found['advantage_of_unsound'], 0.0, places=3)

  def test_one_line_for_each_question(self):
    self.record(step=3)
    found = cot_dynamics.read(self.folder / dynamics.FILE_NAME)
    self.assertEqual([dataclasses.astuple(o) for o in found],
                     [(3, 'r0', 4, 2, 1), (3, 'r1', 3, 0, 0)])

  def test_nobody_is_asked_in_steps_between(self):
    self.assertEqual(self.record(step=1, every=2), {})
    self.assertEqual(self.record(name='none'), {})
    judging.verdicts.assert_not_called()
    self.assertFalse((self.folder / dynamics.FILE_NAME).exists())

  def test_no_right_answer_says_nothing_of_their_reasoning(self):
    found = dynamics.metrics(
        config(), graded_lib.make([[0, 0], [0, 0]]), np.zeros((2, 2), bool))
    self.assertTrue(math.isnan(found['reasoning_right_of_these']))

  def test_a_server_that_sees_right_answers_only_judges_no_advantages(self):
    found = dynamics.metrics(config(name='server'), graded_lib.make(REWARD),
                             VERDICT[..., 0] == 1)
    self.assertNotIn('advantage_of_sound', found)

  def test_windows_are_quarters_of_the_run(self):
    for step in range(8):
      self.record(step=step)
    found = dynamics.windows(self.folder, 8)
    self.assertEqual([row['steps'] for row in found],
                     ['0 to 1', '2 to 3', '4 to 5', '6 to 7'])
    self.assertEqual({row['questions'] for row in found}, {4})
    self.assertEqual({row['median P(CC|CA)'] for row in found}, {0.5})
    self.assertEqual(dynamics.windows(self.folder / 'other', 8), [])

  def test_violins_of_the_windows_and_a_curve_over_the_steps(self):
    self.assertEqual(dynamics.draw(self.folder, 8), [])
    for step in range(8):
      self.record(step=step)
    with mock.patch.object(dynamics.plots, 'distributions',
                           wraps=dynamics.plots.distributions) as drawn:
      paths = dynamics.draw(self.folder, 8)
    self.assertEqual([path.name for path in paths],
                     ['reasoning_windows.png', 'cot_pass_at_1.png'])
    self.assertTrue(all(path.is_file() for path in paths))
    answers, reasoning = drawn.call_args.args[0].values()
    # Two questions in each of two steps: 2 of 4 right, and 0 of 3.
    self.assertEqual(sorted(answers['steps 0 to 1']), [0, 0, 0.5, 0.5])
    self.assertEqual(reasoning['steps 0 to 1'], (0.5, 0.5))


if __name__ == '__main__':
  absltest.main()
