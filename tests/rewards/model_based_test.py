import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from rljax.evaluation import report
from rljax.rewards import model_based
from rljax.types import RewardResult


class StatisticsTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(
        tempfile.TemporaryDirectory()))

  def test_measured_stored_and_read(self):
    score = np.array([1.0, 3.0, np.nan, 5.0, 7.0])
    found = model_based.measure(score, 'held-out', 30)
    self.assertEqual((found.mean, found.count), (4.0, 4))
    report.write_json(self.folder / model_based.FILE, report.plain(found))
    self.assertEqual(model_based.read(self.folder, 30), found)
    normal = found.normalized(score[[0, 1, 3, 4]])
    np.testing.assert_allclose([normal.mean(), normal.std()], [0, 1],
                               atol=1e-12)

  def test_what_was_never_measured_is_not_0_and_1(self):
    with self.assertRaisesRegex(ValueError, 'never measured'):
      model_based.read(self.folder, 30)

  def test_statistics_of_another_checkpoint_are_refused(self):
    found = model_based.measure(np.arange(5), 'held-out', 30)
    (self.folder / model_based.FILE).write_text(json.dumps(report.plain(found)))
    with self.assertRaisesRegex(ValueError, 'step 20.*step 30'):
      model_based.read(self.folder, 20)

  @parameterized.parameters(([2.0, 2.0],), ([1.0],), ([np.inf, 1.0],))
  def test_scores_without_a_spread_normalise_nothing(self, score):
    with self.assertRaisesRegex(ValueError, 'positive deviation'):
      model_based.measure(np.array(score), 'x', 1)


class RescoredTest(absltest.TestCase):

  def test_the_reward_changes_and_the_verdict_stays(self):
    results = [RewardResult(True, 1.0, 'ok', '4', 0.1),
               RewardResult(False, 0.0, 'wrong', '5', 0.2),
               RewardResult(False, None, 'infra_error', None, 0.3)]
    found = model_based.rescored(results, np.array([0.25, np.nan, -2.0]))
    self.assertEqual([one.reward for one in found], [0.25, None, -2.0])
    self.assertEqual([one.is_correct for one in found], [True, False, False])
    self.assertEqual([one.status for one in found],
                     ['ok', 'wrong', 'infra_error'])
    with self.assertRaisesRegex(ValueError, 'each of 3'):
      model_based.rescored(results, np.zeros(2))


if __name__ == '__main__':
  absltest.main()
