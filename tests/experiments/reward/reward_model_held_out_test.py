"""What is said of held-out pairs of which few can be scored."""
import pathlib
import tempfile
import types

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from experiments.reward import reward_model_held_out
from rljax.evaluation import calibration


class SummaryTest(parameterized.TestCase):

  def summary(self, *margins):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    return reward_model_held_out.summary(np.array(margins), 0, folder)

  @parameterized.parameters(0, 1, 2, 3)
  def test_too_few_to_measure_by_are_counted_and_no_more(self, scored):
    found, drawn = self.summary(*range(1, 1 + scored), *[np.nan] * 4)
    self.assertEqual(
        found, {'held_out': {'pairs': scored, 'not_scored': 4}})
    self.assertEmpty(drawn)

  def test_as_few_as_can_be_measured(self):
    found, drawn = self.summary(1.0, -1.0, 2.0, 0.5, np.nan)
    self.assertEqual(found['held_out']['pairs'], 4)
    self.assertEqual(found['held_out']['not_scored'], 1)
    self.assertEqual(found['held_out']['accuracy'].estimate, 3 / 4)
    self.assertLen(found['calibration'], 2)
    self.assertLen(drawn, 1)

  @parameterized.named_parameters(
      ('all', np.zeros(20)),
      ('those to fit on', np.where(calibration.split(20, 0), 0.0, 1.0)))
  def test_ties_have_an_accuracy_and_no_calibration(self, margin_I):
    found, drawn = self.summary(*margin_I)
    self.assertEqual(found['held_out']['accuracy'].estimate, margin_I.mean())
    self.assertNotIn('calibration', found)
    self.assertEmpty(drawn)

  def test_pretraining_of_which_nothing_fits(self):
    form = types.SimpleNamespace(make=lambda record: (None, 'no_room'))
    self.assertEqual(reward_model_held_out.nll(None, form, None, [{}] * 3),
                     {'pairs': 0, 'not_scored': 3})


if __name__ == '__main__':
  absltest.main()
