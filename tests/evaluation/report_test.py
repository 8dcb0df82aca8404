"""The report says what was given, in both forms, and is never half written."""
import json
import os
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
import jax.numpy as jnp
import numpy as np

from rljax.evaluation import intervals
from rljax.evaluation import report


class ReportTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
        self.enterContext(tempfile.TemporaryDirectory()))

  def write(self, **changes):
    arguments = dict(
        title='A run', command='python -m x --seed=3', seed=3,
        seconds={'sft': 12.5, 'rl': 30.0}, compilations={'update': 1},
        sections={'sft': {'accuracy': intervals.Interval(0.5, 0.4, 0.6)}})
    return report.write_report(self.folder, **arguments | changes)

  def load(self):
    return json.loads((self.folder / 'report.json').read_text())

  def test_json_holds_what_was_given(self):
    returned = self.write()
    loaded = self.load()
    self.assertEqual(loaded, returned)
    self.assertEqual(loaded['command'], 'python -m x --seed=3')
    self.assertEqual(loaded['seed'], 3)
    self.assertEqual(loaded['seconds'], {'sft': 12.5, 'rl': 30.0})
    self.assertEqual(loaded['compilations'], {'update': 1})
    self.assertEqual(loaded['sft']['accuracy'], {
        'estimate': 0.5, 'low': 0.4, 'high': 0.6, 'level': 0.95})

  def test_names_versions_and_devices(self):
    loaded = self.write()
    for name in ('python', 'jax', 'flax', 'optax', 'orbax-checkpoint', 'rljax'):
      self.assertRegex(loaded['versions'][name], r'^\d+\.\d+')
    self.assertEqual(loaded['devices']['backend'], 'cpu')
    self.assertEqual(loaded['devices']['count'], 8)  # as conftest simulates

  def test_numbers_of_every_library_become_json(self):
    self.write(sections={'rl': {
        'numpy': np.float32(0.5), 'count': np.int64(7), 'array': np.ones(2),
        'jax': jnp.zeros((1, 2)), 'flag': np.bool_(True), 'nan': np.nan,
        'inf': jnp.array(jnp.inf), 'path': pathlib.Path('a/b'),
        'tuple': (1, 'x'), 3: None}})
    self.assertEqual(self.load()['rl'], {
        'numpy': 0.5, 'count': 7, 'array': [1.0, 1.0], 'jax': [[0.0, 0.0]],
        'flag': True, 'nan': None, 'inf': None, 'path': 'a/b',
        'tuple': [1, 'x'], '3': None})

  def test_markdown_shows_intervals_tables_and_plots(self):
    plot = self.folder / 'plots' / 'reward.png'
    self.write(plots=[plot], sections={
        'sft': {'accuracy': intervals.Interval(0.5, 0.4, 0.6)},
        'rl': [{'k': 1, 'estimate': 0.25}, {'k': 2, 'estimate': 0.5}]})
    text = (self.folder / 'report.md').read_text()
    for line in ('# A run', 'python -m x --seed=3',
                 '| accuracy | 0.5 [0.4, 0.6] |', '| k | estimate |',
                 '| 2 | 0.5 |', '| update | 1 |',
                 '![reward](plots/reward.png)'):
      self.assertIn(line, text.split('\n'))
    self.assertEqual(self.load()['plots'], ['plots/reward.png'])
    self.assertNotIn(str(self.folder), text)

  def test_section_may_not_replace_the_command(self):
    with self.assertRaisesRegex(ValueError, r"got \['command'\]"):
      self.write(sections={'command': 'other'})

  def test_refuses_what_json_cannot_hold(self):
    with self.assertRaisesRegex(ValueError, r'set at report\.rl\.bad\[1\]'):
      self.write(sections={'rl': {'bad': [1, {2}]}})

  def test_a_failed_write_leaves_the_old_report(self):
    self.write()
    with mock.patch.object(os, 'replace', side_effect=OSError('disk full')):
      with self.assertRaises(OSError):
        self.write(seed=4)
    self.assertEqual(self.load()['seed'], 3)

  def test_command_line_is_that_of_this_process(self):
    with mock.patch.object(report.sys, 'orig_argv',
                           ['/opt/venv/bin/python', '-m', 'x', '--a=b c']):
      self.assertEqual(report.command_line(), "python -m x '--a=b c'")


if __name__ == '__main__':
  absltest.main()
