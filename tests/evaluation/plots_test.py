"""Plots are drawn where metrics are, and a missing metric is named."""
import pathlib
import tempfile

from absl.testing import absltest
from matplotlib import image
import numpy as np

from rljax.evaluation import plots


def records(steps=40):
  rng = np.random.default_rng(0)
  return [{'step': step, 'reward': step / steps,
           'loss': None if step == 5 else float(rng.random()),
           'expert_load': rng.dirichlet(np.ones(4), size=2) * 4}
          for step in range(steps)]


REWARD = plots.Panel('reward', 'Reward', 'mean reward', ('reward', 'loss'))


class PlotsTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
        self.enterContext(tempfile.TemporaryDirectory()), 'plots')

  def assert_drawn(self, path):
    pixels = image.imread(path)[..., :3]
    self.assertGreater(min(pixels.shape[:2]), 250)
    self.assertGreater(pixels.std(), 0.02)  # not a blank sheet

  def test_curves(self):
    for steps in (1, 12, 200):  # one point, plain, smoothed
      paths = plots.training_curves(records(steps), [REWARD], self.folder)
      self.assertEqual(paths, [self.folder / 'reward.png'])
      self.assert_drawn(paths[0])

  def test_expert_load(self):
    self.assert_drawn(plots.expert_load(records(), self.folder))

  def test_distributions(self):
    rng = np.random.default_rng(0)
    path = plots.distributions(
        {'one': {'first': rng.random(40), 'alike': [0.5] * 3, 'none': []},
         'two': {'first': rng.random(9), 'alike': [1.0], 'none': []}},
        self.folder / 'violins.png')
    self.assertEqual(path, self.folder / 'violins.png')
    self.assert_drawn(path)

  def test_pass_at_k(self):
    points = [{'k': k, 'estimate': 1 - 0.5**k, 'low': 0.4, 'high': 1.0}
              for k in (1, 2, 4)]
    self.assert_drawn(plots.pass_at_k({'model': points}, self.folder,
                                      num_samples=8))

  def test_reliability(self):
    bins = [dict(count=3, predicted=0.2, observed=0.3),
            dict(count=0, predicted=None, observed=None),
            dict(count=9, predicted=0.8, observed=0.7)]
    self.assert_drawn(plots.reliability({'T = 1': bins}, self.folder))

  def test_over_optimisation(self):
    point = lambda n: dict(
        n=n, kl=0.3 * n, proxy=dict(estimate=n, low=n - 1, high=n + 1),
        gold=dict(estimate=-n, low=-n - 1, high=1 - n))
    self.assert_drawn(plots.over_optimisation([point(1), point(2)],
                                              self.folder))

  def test_running_mean_leaves_gaps_out(self):
    values = np.arange(40.0)
    values[30] = np.nan
    mean = plots._running_mean(values)
    np.testing.assert_allclose(mean[3], 1.5)        # (0 + 1 + 2 + 3) / 4
    np.testing.assert_allclose(mean[20], 13.0)      # mean of 6 .. 20
    np.testing.assert_allclose(mean[30], 22.5)      # mean of 16 .. 29

  def test_a_missing_metric_is_named(self):
    panel = plots.Panel('speed', 'Speed', 'tokens per second', ('tokens',))
    with self.assertRaisesRegex(
        ValueError, r"plot 'speed' among .*'reward'.* missing \['tokens'\]"):
      plots.training_curves(records(), [panel], self.folder)
    with self.assertRaisesRegex(ValueError, "Expected 'load'"):
      plots.expert_load(records(), self.folder, metric='load')
    with self.assertRaisesRegex(ValueError, 'got none'):
      plots.training_curves([], [REWARD], self.folder)

  def test_leaves_pyplot_alone(self):
    # A notebook's own figures would otherwise collect ours.
    from matplotlib import pyplot
    plots.training_curves(records(), [REWARD], self.folder)
    self.assertEmpty(pyplot.get_fignums())


if __name__ == '__main__':
  absltest.main()
