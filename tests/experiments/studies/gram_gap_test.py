"""The plan of the study of gaps."""
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
import pytest

from experiments.studies import gram_gap
from experiments.studies import gram_labels
from experiments.studies import outcome
from experiments.studies import toy_judges


class PlanTest(absltest.TestCase):

  def test_seeds_are_new_and_sizes_those_of_gram_labels(self):
    sizes = gram_labels.Sizes()
    self.assertEmpty(set(gram_gap.SIZES.seeds) & {
        *sizes.seeds, gram_labels._TUNING_SEED})
    self.assertEqual(
        gram_gap.SIZES._replace(seeds=sizes.seeds, rates=sizes.rates), sizes)

  def test_every_smoothed_arm_is_held_to_its_own_optimum(self):
    plan = gram_gap.plan(gram_gap.SIZES)
    held = [claim.arm for claim in plan.claims if not claim.sign]
    self.assertEqual(held, [arm for arm, part in gram_gap.ARMS.items()
                            if part.wrong_label_mass])
    # What smoothing alone would do counts as off: 2.1972 / 1.5163 - 1 = 0.449.
    found = gram_gap.off('gap')({
        'gap': gram_labels.expected_gap(0.0, 0.1),
        'gap at the optimum': gram_labels.expected_gap(0.1, 0.1)})
    self.assertAlmostEqual(found, 0.449, places=3)
    self.assertGreater(found, gram_gap._NEAR)


@pytest.mark.slow
class StudyTest(absltest.TestCase):

  def test_it_runs_and_goes_on_where_it_was(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    first = gram_gap.run(True, folder)
    with mock.patch.object(toy_judges, 'train') as train:
      second = gram_gap.run(True, folder)
    train.assert_not_called()
    self.assertEqual(first['arms'], second['arms'])
    outcome.write(second, folder)


if __name__ == '__main__':
  absltest.main()
