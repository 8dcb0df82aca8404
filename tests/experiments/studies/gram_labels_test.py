"""The plan of the study of GRAM, and the data that it is made of."""
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
import pytest

from experiments.studies import gram_labels
from experiments.studies import outcome
from experiments.studies import toy_judges
from rljax.data import judge_prompts
from rljax.data import toy_comparisons
from rljax.ops import comparisons

_ARM = gram_labels.ARMS['gram']


class PlanTest(absltest.TestCase):

  def test_arms_differ_in_what_the_claims_are_about(self):
    sizes = gram_labels.Sizes()
    self.assertGreaterEqual(len(sizes.seeds), 5)
    self.assertNotIn(gram_labels._TUNING_SEED, sizes.seeds)
    plan = gram_labels.plan(sizes)
    self.assertLen(plan.claims, 10)
    masses = {arm.wrong_label_mass for arm in gram_labels.ARMS.values()}
    self.assertEqual(masses, {0.0, gram_labels.NOISE, gram_labels._MORE})

  def test_words_of_the_templates_are_tokens(self):
    words = toy_judges.Words()
    record, = toy_comparisons.records(1, seed=0, requests='a')
    tokens, status = judge_prompts.prompt_tokens(
        words, record['prompt'], record['chosen'], record['rejected'], 500)
    self.assertEqual(status, 'whole')
    self.assertLen(tokens, 21)
    self.assertEqual(judge_prompts.label_ids(words), (65, 66))
    (written, mask), _ = judge_prompts.pretraining_example(
        words, record, 500, 0)
    self.assertLessEqual(set(written[mask].tolist()) - {words.eos_id},
                         set(tokens.tolist()))

  def test_measured_against_labels_as_noisy_as_those_of_training(self):
    sure = gram_labels.measured(_ARM, np.full(4_000, 20.0), np.full(9, -1.0),
                                2.0, 0)
    self.assertEqual(sure['accuracy'], 1.0)
    self.assertEqual(sure['accuracy, longer texts'], 0.0)
    self.assertBetween(sure['ece'], 0.08, 0.12)  # sure, and wrong one in ten
    wise = gram_labels.measured(_ARM, np.full(4_000, np.log(9)), np.ones(9),
                                2.0, 0)
    self.assertLess(wise['ece'], 0.02)
    self.assertLess(wise['nll'], sure['nll'])
    # ε = η = 0.1: P = 0.82 where labels are right in 0.9.
    smoothed = gram_labels.measured(
        _ARM, np.full(4_000, wise['gap at the optimum']), np.ones(9), 2.0, 0)
    self.assertAlmostEqual(smoothed['gap'], 1.5163, places=4)
    self.assertBetween(smoothed['ece'], 0.06, 0.10)
    self.assertAlmostEqual(gram_labels.miscalibration(0.1, 0.1), 0.08)


class OptimumTest(parameterized.TestCase):

  @parameterized.parameters(
      # P = (1-η)(1-ε) + ηε and its log-odds.
      (0.0, 0.1, 2.1972),   # 0.90
      (0.0, 0.3, 0.8473),   # 0.70
      (0.1, 0.0, 2.1972),   # 0.90
      (0.1, 0.1, 1.5163),   # 0.81 + 0.01 = 0.82
      (0.1, 0.3, 0.6633))   # 0.63 + 0.03 = 0.66
  def test_the_expected_loss_is_least_there(self, noise, mass, gap):
    self.assertAlmostEqual(gram_labels.expected_gap(noise, mass), gap, places=4)

    def slope(delta):
      nll = lambda x: comparisons.nll(x, wrong_mass=mass)
      return float(jax.grad(lambda x: (1 - noise) * nll(x) + noise * nll(-x))(
          float(delta)))
    self.assertAlmostEqual(slope(gram_labels.expected_gap(noise, mass)), 0.0,
                           places=6)
    if noise and mass:  # smoothing alone would go further
      self.assertGreater(slope(np.log((1 - mass) / mass)), 0.02)


class WorkdirTest(absltest.TestCase):

  def test_what_a_smoke_run_left_is_not_taken_for_the_study(self):
    def one_arm(arm, sizes, seeds, params_S):
      value = float(sizes.labels)
      return {rate: [dict.fromkeys(gram_labels.plan(sizes).metrics, value)
                     for _ in seeds] for rate in sizes.rates}
    start = lambda *_: {'x': np.zeros(1)}
    folder = self.enterContext(tempfile.TemporaryDirectory())
    with (mock.patch.object(gram_labels, 'one_arm', one_arm),
          mock.patch.object(toy_judges, 'random_start', start),
          mock.patch.object(toy_judges, 'write_both', start)):
      found = {smoke: gram_labels.run(smoke, folder)['arms']['gram']['metrics'][
          'accuracy']['values'] for smoke in (True, False)}
    self.assertEqual(found, {True: [32.0] * 2, False: [256.0] * 5})


@pytest.mark.slow
class StudyTest(absltest.TestCase):

  def test_it_runs_and_goes_on_where_it_was(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    first = gram_labels.run(True, folder)
    with mock.patch.object(toy_judges, 'train') as train:
      second = gram_labels.run(True, folder)
    train.assert_not_called()
    self.assertEqual(first['arms'], second['arms'])
    outcome.write(second, folder)


if __name__ == '__main__':
  absltest.main()
