import json
import pathlib
import tempfile
import time
from unittest import mock

from absl.testing import absltest
import jax.numpy as jnp
import numpy as np

from experiments import benchmark
from rljax.models import moe


class CompareTest(absltest.TestCase):

  def test_the_slower_one_has_the_larger_ratio(self):
    wait = lambda seconds: lambda: time.sleep(seconds) or jnp.ones(2)
    case = benchmark.Case('c', {'quick': wait(0.002), 'slow': wait(0.02)}, 0.1)
    quick, slow = benchmark.compare(case, repeats=3)
    self.assertEqual((quick['median ratio'], quick['min ratio']), (1, 1))
    # At least 20 ms, against 2 ms and whatever a busy machine adds.
    self.assertGreaterEqual(slow['min ms'], 20)
    self.assertGreaterEqual(slow['median ms'], slow['min ms'])
    self.assertGreater(slow['min ratio'], 1.2)

  def test_hand_computed(self):
    # Compiling takes 9; then a: 1, 4, 2 and b: 6, 3, 8 seconds.
    taken = {'a': iter((9, 1, 4, 2)), 'b': iter((9, 6, 3, 8))}
    case = benchmark.Case('c', {name: lambda name=name: name for name in 'ab'},
                          0.0)
    with (mock.patch.object(benchmark, '_timed', lambda contestant: (
        next(taken[contestant()]), np.ones(1)))):
      a, b = benchmark.compare(case, repeats=3)
    self.assertEqual((a['median ms'], a['min ms']), (2000, 1000))
    self.assertEqual((b['median ratio'], b['min ratio']), (3, 3))
    self.assertEqual((b['first call s'], b['repeats']), (9, 3))

  def test_contestants_take_turns(self):
    calls = []
    run = lambda name: lambda: calls.append(name) or jnp.ones(1)
    benchmark.compare(
        benchmark.Case('c', {name: run(name) for name in 'abc'}, 0.0), 4)
    self.assertEqual(''.join(calls), 'abc' + 'abc' + 'bca' + 'cab' + 'abc')

  def test_what_computes_something_else_is_not_timed(self):
    for wrong in (1.2, np.nan):
      case = benchmark.Case('c', {'right': lambda: jnp.ones(3),
                                  'wrong': lambda x=wrong: jnp.full(3, x)}, 0.1)
      with self.assertRaisesRegex(ValueError, 'Expected wrong to compute'):
        benchmark.compare(case, 1)


class RunTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
        self.enterContext(tempfile.TemporaryDirectory()), 'new')

  def test_dispatch_reports_every_contestant_at_every_size(self):
    rows = benchmark.run('dispatch', self.folder, smoke=True)
    self.assertEqual([row['contestant'] for row in rows],
                     2 * ['dense', 'block', 'ragged'])
    written = json.loads((self.folder / 'report.json').read_text())
    self.assertEqual(written['results'], rows)
    self.assertIn('backend', written['devices'])
    for row in rows:
      self.assertGreater(row['min ms'], 0)
      self.assertIn(row['contestant'], benchmark.table(rows))

  def test_a_dispatch_that_loses_tokens_is_not_timed(self):
    def block(x_MD, experts_MX, gates_MX, valid_M, *weights):
      return moe.dense(x_MD, experts_MX, gates_MX, valid_M.at[:3].set(False),
                       *weights)

    with (mock.patch.object(moe, 'block', block),
          self.assertRaisesRegex(ValueError, 'Expected block')):
      benchmark.run('dispatch', self.folder, smoke=True)
    self.assertFalse((self.folder / 'report.json').exists())

  def test_unknown_subjects_list_the_known_ones(self):
    with self.assertRaisesRegex(ValueError, r"\['dispatch'\].*'dispatsch'"):
      benchmark.run('dispatsch', self.folder)


if __name__ == '__main__':
  absltest.main()
