"""The study of GAN-RM: its plan, and a run in small."""
import dataclasses
import json
import pathlib
import tempfile

from absl.testing import absltest
import numpy as np
import pytest

from experiments.studies import gan_rm
from experiments.studies import outcome


class PlanTest(absltest.TestCase):

  def test_arms_share_samples_and_steps(self):
    total = {}
    for arm in gan_rm.ARMS:
      config = gan_rm.settings(arm)
      rounds = config.num_rounds
      total[arm] = (
          rounds * config.tune.num_steps,
          rounds * (config.pool.num_prompts * config.pool.samples_per_prompt
                    + config.bootstrap.num_outputs))
    steps, samples = zip(*total.values(), strict=True)
    self.assertLen(set(steps), 1)
    np.testing.assert_allclose(samples, max(samples), rtol=0.02)

  def test_claims_are_about_what_is_measured(self):
    plan = gan_rm.make()
    self.assertGreaterEqual(len(plan.seeds), 5)
    outcome.check(plan)

  def test_a_frame_is_seen_at_the_border_alone(self):
    image_RYWU = np.full((2, 10, 10, 1), -1.0)
    image_RYWU[:, 1:-1, 1:-1] = 1.0
    image_RYWU[1, 0] = image_RYWU[1, -1] = 0.0
    np.testing.assert_array_equal(gan_rm.is_framed(image_RYWU), [False, True])


class PlaySeedsTest(absltest.TestCase):

  def test_a_smoke_run_or_other_arms_are_not_taken_for_the_study(self):
    folder = self.enter_context(tempfile.TemporaryDirectory())
    plan = gan_rm.make()
    other = dataclasses.replace(plan, arms={
        **plan.arms, '128 targets': {'data.num_proxies': 127}})
    play = lambda plan, smoke, value: [
        line['arms'] for line in gan_rm.play_seeds(
            plan, lambda *_: value, smoke, folder)]
    five = [1] * len(plan.seeds), [2] * len(plan.seeds), [3] * len(plan.seeds)
    self.assertEqual(play(plan, True, 1), five[0])
    self.assertEqual(play(plan, False, 2), five[1])
    self.assertEqual(play(other, False, 3), five[2])
    self.assertEqual(play(plan, False, 4), five[1])  # of this study: kept


@pytest.mark.slow
class SmokeTest(absltest.TestCase):

  def test_runs_and_resumes(self):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    found = gan_rm.run(True, folder)
    again = gan_rm.run(True, folder)  # reads what is there
    self.assertEqual(json.dumps(found), json.dumps(again))
    files = outcome.write(found, folder / 'results')
    self.assertLen([path for path in files if path.exists()], 3)


if __name__ == '__main__':
  absltest.main()
