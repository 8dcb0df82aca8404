"""What a study says follows from its numbers, and its plans can be run."""
import importlib
import json
import pathlib
import pkgutil
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
import pytest

from experiments import studies
from experiments import sweep
from experiments.studies import compare
from experiments.studies import outcome
from experiments.studies import router_noise
from rljax import losses
from rljax.ops import advantages
from tests import toys

_MODULES = {module.name: importlib.import_module(
    f'experiments.studies.{module.name}')
            for module in pkgutil.iter_modules(studies.__path__)}
# Those of RL, by its scripts; others run what they compare themselves.
NAMES = sorted(name for name, module in _MODULES.items()
               if hasattr(module, 'mini') or name == 'guide')


def line(reward, grad_norm=1.0):
  return {'reward': reward, 'grad_norm': grad_norm}


def make_run(accuracy, rewards=(0.0, 1.0)):
  measured = lambda x: {'accuracy': {'estimate': x}}
  return compare.Run([line(reward) for reward in rewards], measured(0.25),
                     measured(accuracy))


def make_study(**changes):
  plan = dict(
      name='toy', question='Which?', sft=None, policy=None, evaluation=None,
      arms={'a': [{}], 'b': [{}]}, metrics={'gain': compare.gain},
      claims=[outcome.Claim('b gains more', 'gain', 'b', 'a', 1)],
      seeds=(0, 1, 2))
  return compare.Study(**plan | changes)


def results(a, b, **changes):
  study = make_study(**changes)
  return outcome.results(study, {
      'a': [make_run(x) for x in a], 'b': [make_run(x) for x in b]},
                         compare.settings(study, {'a': 1e-4, 'b': 3e-4})) | {
                             'seconds': 60.0}


class CompareTest(parameterized.TestCase):

  @parameterized.parameters(
      ((0.3, 0.4, 0.5), (0.5, 0.6, 0.7), 'seen'),
      ((0.5, 0.6, 0.7), (0.3, 0.4, 0.5), 'opposite'),
      ((0.3, 0.4, 0.5), (0.5, 0.3, 0.4), 'not seen'),
      # Paired: the seeds differ by more than the arms do.
      ((0.1, 0.5, 0.9), (0.12, 0.521, 0.919), 'seen'),
      ((0.1, 0.5, 0.9), (0.12, 0.48, 0.91), 'not seen'))
  def test_a_verdict_is_that_of_the_paired_interval(self, a, b, verdict):
    claim, = results(a, b)['claims']
    self.assertEqual(claim['verdict'], verdict)
    less = results(a, b, claims=[
        outcome.Claim('b gains less', 'gain', 'b', 'a', -1)])['claims'][0]
    other = {'seen': 'opposite', 'opposite': 'seen'}
    self.assertEqual(less['verdict'], other.get(verdict, verdict))

  @parameterized.parameters(
      # Differences 0.00, 0.01, 0.02: 0.01 with 4.303 * 0.01 / sqrt(3) = 0.0248
      # on both sides, so -0.0148 to 0.0348.
      ((0.10, 0.51, 0.92), 0.035, 'seen'),
      ((0.10, 0.51, 0.92), 0.034, 'not seen'),
      # 0.50, 0.51, 0.52: from 0.4852 to 0.5348, and as far below 0.
      ((0.60, 1.01, 1.42), 0.485, 'opposite'),
      ((0.60, 1.01, 1.42), 0.486, 'not seen'),
      ((-0.40, -0.01, 0.38), 0.485, 'opposite'),
      ((0.60, 1.01, 1.42), 0.535, 'seen'))
  def test_alike_is_an_interval_within_what_was_named(self, b, within, verdict):
    claim, = results((0.1, 0.5, 0.9), b, claims=[outcome.Claim(
        'b gains as much', 'gain', 'b', 'a', 0, within)])['claims']
    self.assertEqual(claim['verdict'], verdict)

  def test_the_interval_is_student_s(self):
    found = outcome.student([1.0, 2.0, 4.0, 5.0])
    # mean 3, deviation 1.8257, t(0.975, 3) = 3.1824
    self.assertAlmostEqual(found.estimate, 3)
    self.assertAlmostEqual(found.high - 3, 3.18245 * 1.82574 / 2, places=4)

  def test_the_files_hold_what_was_found(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    paths = outcome.write(results((0.3, 0.4, 0.5), (0.5, 0.6, 0.7)), folder)
    self.assertEqual([path.name for path in paths],
                     ['toy.json', 'toy.md', 'toy.png'])
    found = json.loads(paths[0].read_text())
    self.assertLessEqual({'study', 'command', 'versions', 'seeds', 'arms',
                          'conclusion'}, set(found))
    gain = found['arms']['b']['metrics']['gain']
    self.assertAlmostEqual(gain['mean'], 0.35)
    np.testing.assert_allclose(gain['values'], [0.25, 0.35, 0.45])
    self.assertIn('| b | 0.0003 | 0.35 [', paths[1].read_text())
    self.assertIn('b gains more: seen (+0.2', found['conclusion'])

  def test_the_rate_with_the_best_end_is_chosen_under_another_seed(self):
    asked = []

    def one_run(study, arm, rate, seed, workdir, shared, measure):
      asked.append((rate, seed, measure))
      ends = {1e-4: 0.2, 3e-4: 0.9, 1e-3: 0.1}  # 1e-3 begins best
      before = 2.0 if rate == 1e-3 else 0.0
      return make_run(0.0, [before] * 8 + [ends[rate]] * 2)
    study = make_study(learning_rates=(1e-4, 3e-4, 1e-3))
    with mock.patch.object(compare, 'one_run', one_run):
      self.assertEqual(compare.tuned(study, 'a', None), 3e-4)
    self.assertEqual([rate for rate, _, _ in asked], [1e-4, 3e-4, 1e-3])
    self.assertTrue(all(seed not in study.seeds and not measure
                        for _, seed, measure in asked))

  @parameterized.parameters(
      dict(metric='none'), dict(arm='none'), dict(than='none'), dict(sign=2),
      dict(sign=0), dict(within=0.1))
  def test_a_claim_about_nothing_is_refused(self, **changes):
    claim = dict(text='x', metric='gain', arm='a', than='b', sign=1) | changes
    with self.assertRaisesRegex(ValueError, 'Correct the claim'):
      make_study(claims=[outcome.Claim(**claim)])

  def test_variation_leaves_out_the_step_that_compiles(self):
    done = compare.Run([line(0, x) for x in (99.0, 1.0, 3.0)], {}, {})
    self.assertAlmostEqual(compare.variation('grad_norm')(done), 0.5)
    with self.assertRaisesRegex(ValueError, "'none' in the steps"):
      compare.mean('none')(done)


class PlansTest(parameterized.TestCase):

  @parameterized.product(name=NAMES, smoke=(False, True))
  def test_every_arm_is_a_config(self, name, smoke):
    study = importlib.import_module(f'experiments.studies.{name}').make(smoke)
    self.assertEqual(study.name, name)
    self.assertTrue(smoke or len(study.seeds) >= 5)
    for stages in study.arms.values():
      for overrides in stages:
        config = sweep.apply(study.policy, overrides)
        losses.get('policy', **config.loss)
        advantages.get(config.advantage)

  def test_noise_reaches_the_routers_alone(self):
    _, params = toys.model_and_params('tiny')
    noisy = router_noise.disturb(params, jax.random.key(0))
    again = router_noise.disturb(params, jax.random.key(0))
    other = router_noise.disturb(params, jax.random.key(1))
    same = lambda x, y: {
        jax.tree_util.keystr(path): bool((one == two).all())
        for (path, one), two in zip(
            jax.tree_util.tree_leaves_with_path(x), jax.tree.leaves(y),
            strict=True)}
    self.assertTrue(all(same(noisy, again).values()))
    for found in (same(params, noisy), same(noisy, other)):
      self.assertEqual({name for name, equal in found.items() if not equal},
                       {"['layers']['moe']['router']"})


@pytest.mark.slow
class StudyTest(parameterized.TestCase):

  @parameterized.parameters(*NAMES)
  def test_it_runs_and_goes_on_where_it_was(self, name):
    # The start of a study lies beside its folder.
    folder = pathlib.Path(
        self.enterContext(tempfile.TemporaryDirectory())) / name
    study = importlib.import_module(f'experiments.studies.{name}').make(True)
    first = compare.run(study, folder)
    with mock.patch.object(compare.train_policy, 'run') as train:
      second = compare.run(study, folder)
    train.assert_not_called()
    self.assertEqual(first['arms'], second['arms'])
    outcome.write(second, folder)


if __name__ == '__main__':
  absltest.main()
