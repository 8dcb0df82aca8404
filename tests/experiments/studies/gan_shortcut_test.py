"""The study of the shortcut diagnostic: its plan, and a run in small."""
import json
import pathlib
import tempfile

from absl.testing import absltest
import numpy as np
import pytest

from experiments.studies import gan_rm
from experiments.studies import gan_shortcut
from experiments.studies import outcome


class PlanTest(absltest.TestCase):

  def test_seeds_are_new_and_claims_are_about_what_is_measured(self):
    plan = gan_shortcut.make()
    self.assertGreaterEqual(len(plan.seeds), 5)
    self.assertEmpty(set(plan.seeds) & {
        *range(5), *gan_rm.make().seeds, *range(10, 15)})
    outcome.check(plan)

  def test_arms_differ_in_the_frames_of_the_targets_alone(self):
    first, *others = [gan_shortcut.settings(arm, share=0.6)
                      for arm in gan_shortcut.ARMS]
    for config in others:
      self.assertNotEqual(config.data.marked_proxies,
                          first.data.marked_proxies)
      config.data.marked_proxies = first.data.marked_proxies
      self.assertEqual(config.to_dict(), first.to_dict())
    parts = [gan_rm.open_parts(gan_shortcut.settings(arm, True, 0.6), 0, True)
             for arm in gan_shortcut.ARMS]
    for part in parts:
      np.testing.assert_array_equal(part.generator.pixels_RYWU,
                                    parts[0].generator.pixels_RYWU)
    framed = [gan_rm.is_framed(part.held_out.pixels_RYWU).mean()
              for part in parts]
    self.assertEqual((framed[0], framed[3]), (1, 0))
    self.assertBetween(framed[2], 0.1, 0.5)
    self.assertBetween(framed[1], 0.45, 0.75)

  def test_a_clean_border_is_of_the_same_kind(self):
    image_RYWU = np.full((2, 10, 10, 1), 0.3, np.float32)
    image_RYWU[0, 0] = image_RYWU[0, -1] = -0.8
    found = gan_shortcut.cleaned(image_RYWU)
    self.assertEqual(set(found[0, 0].ravel()), {-1.0})
    self.assertEqual(set(found[1, :, -1].ravel()), {0.0})
    np.testing.assert_array_equal(found[:, 1:-1, 1:-1],
                                  image_RYWU[:, 1:-1, 1:-1])


@pytest.mark.slow
class SmokeTest(absltest.TestCase):

  def test_runs_and_resumes(self):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    found = gan_shortcut.run(True, folder)
    again = gan_shortcut.run(True, folder)  # reads what is there
    self.assertEqual(json.dumps(found), json.dumps(again))
    files = outcome.write(found, folder / 'results')
    self.assertLen([path for path in files if path.exists()], 3)


if __name__ == '__main__':
  absltest.main()
