"""The task of the study by hand, and the study itself on two seeds."""
import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
import pytest

from experiments.studies import outcome
from experiments.studies import token_credit as study


class TaskTest(parameterized.TestCase):

  def test_only_the_key_tells_chosen_from_rejected(self):
    world = study.draw([0], False, 4_000)
    kind_N, tokens_NT = world.kind_SN[0], world.tokens_SNT[0]
    key_N = world.key_SC[0][kind_N]
    right_N = world.right_SC[0][kind_N]
    at = lambda side, place_N: tokens_NT[
        np.arange(len(kind_N)), side * study.LENGTH + place_N]
    self.assertAlmostEqual(np.mean(at(0, key_N) == right_N), 0.9, delta=0.02)
    self.assertAlmostEqual(np.mean(at(1, key_N) == right_N), 0.1, delta=0.02)
    other_N = (key_N + 1) % study.LENGTH
    for word in range(study.WORDS):
      self.assertAlmostEqual(np.mean(at(0, other_N) == word),
                             np.mean(at(1, other_N) == word), delta=0.04)

  def test_a_prefix_is_shared_by_the_pairs_trained_on_alone(self):
    world, half = study.draw([0], True, 2 * study.PAIRS), study.LENGTH // 2
    sides = world.tokens_SNT[0].reshape(-1, 2, study.LENGTH)
    same_N = (sides[:, 0, :half] == sides[:, 1, :half]).all(1)
    self.assertTrue(same_N[:study.PAIRS].all())
    self.assertLess(same_N[study.PAIRS:].mean(), 0.2)
    self.assertGreaterEqual(world.key_SC.min(), half)

  def test_the_reference_is_worth_its_own_chance_and_no_drift(self):
    world = study.draw([0, 1], False, 4)
    found = study.measure(world.ref_logits_SCTV, world)
    np.testing.assert_allclose(found['wasted_kl'], 0, atol=1e-6)
    np.testing.assert_allclose(found['worth'], found['right'], atol=1e-6)
    moved = world.ref_logits_SCTV.copy()
    moved[0, :, 0, 0] += 1.0
    self.assertGreater(study.measure(moved, world)['prefix_kl'][0], 0)
    np.testing.assert_allclose(study.measure(moved, world)['prefix_kl'][1], 0,
                               atol=1e-6)

  def test_log_probabilities_are_those_of_the_table(self):
    world = study.draw([0, 1], False, 5)
    logp_BT = np.asarray(study.logp(world.ref_logits_SCTV, world))
    table = np.asarray(jax.nn.log_softmax(world.ref_logits_SCTV))
    word = world.tokens_SNT[1, 2, study.LENGTH + 3]
    self.assertAlmostEqual(logp_BT[5 + 2, study.LENGTH + 3],
                           table[1, world.kind_SN[1, 2], 3, word], places=5)

  def test_seeds_together_end_as_each_alone(self):
    arm = study.Arm('dpo')
    both = study.draw([0, 1], False, 16)
    alone = study.draw([1], False, 16)
    end = lambda world: study.train(arm, world, world.ref_logits_SCTV,
                                    (0.3, 0.1), 5)
    np.testing.assert_allclose(end(both)[1], end(alone)[0], atol=1e-5)
    self.assertGreater(np.abs(end(alone) - alone.ref_logits_SCTV).max(), 0.1)

  def test_a_prefix_in_common_moves_with_a_guide_and_not_without(self):
    world = study.draw([0], True, 16)
    guide = world.ref_logits_SCTV + np.random.default_rng(0).normal(
        size=world.ref_logits_SCTV.shape)
    moved = {name: study.measure(study.train(
        arm, world, guide, (0.3, 0.1), 5), world)['prefix_kl'][0]
             for name, arm in study.PLAN.arms.items() if 'prefix' in name}
    self.assertLess(moved['prefix: DPO'], 1e-9)
    self.assertGreater(moved['prefix: TGDPO'], 1e-3)
    self.assertLess(moved['prefix: TGDPO, masked'], 1e-9)

  def test_arms_choose_from_equally_many_points(self):
    sizes = {len(study.points(arm.loss)) for arm in study.PLAN.arms.values()}
    self.assertEqual(sizes, {12})
    self.assertEmpty(set(study.PLAN.seeds) & set(study._TUNING_SEEDS))

  def test_the_committed_record_is_of_this_plan(self):
    found = json.loads((outcome.RESULTS / 'token_credit.json').read_text())
    self.assertEqual(list(found['arms']), list(study.PLAN.arms))
    self.assertEqual([claim['text'] for claim in found['claims']],
                     [claim.text for claim in study.PLAN.claims])
    self.assertGreaterEqual(len(found['seeds']), 5)


class StudyTest(absltest.TestCase):

  @pytest.mark.slow
  def test_smoke(self):
    found = study.run(True, '')
    self.assertEqual(list(found['arms']), list(study.PLAN.arms))
    with tempfile.TemporaryDirectory() as folder:
      for path in outcome.write(found, folder):
        self.assertTrue(pathlib.Path(path).exists())


if __name__ == '__main__':
  absltest.main()
