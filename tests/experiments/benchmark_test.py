"""The benchmark in its smoke form, and its ratios by hand."""
import json

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from experiments import benchmark
from experiments.benchmarking import benchmark_rows


class CompletedTest(parameterized.TestCase):

  @parameterized.parameters(
      # Tokens per second: 30 against the better 20; of 40 possible.
      (True, 30, {'a': 10, 'b': 20}, 40, 1.5, 0.75),
      # Milliseconds: 5 against the better 10; 4 would be possible.
      (False, 5, {'a': 10, 'b': 20}, 4, 2.0, 0.8),
      (False, 5, {}, None, None, None))
  def test_above_one_means_ahead(self, higher, ours, peers, limit, ratio,
                                 share):
    row = benchmark_rows.completed(dict(
        row='x', metric='y', higher_is_better=higher, rljax=ours, peers=peers,
        limit=limit))
    self.assertEqual(row['ratio_to_best_peer'], ratio)
    self.assertEqual(row['share_of_limit'], share)

  def test_an_unknown_subject_is_refused(self):
    with self.assertRaisesRegex(ValueError, "grouped_matmul.*got .'matmul'"):
      benchmark.run(['matmul'], 'unused')

  def test_the_slow_one_is_slower(self):
    found = benchmark.interleaved(
        {'slow': lambda: benchmark.time.sleep(0.05), 'fast': lambda: None}, 3)
    self.assertGreater(found['slow'], 10 * found['fast'])


class PublishedTest(absltest.TestCase):
  ROW = dict(metric='m', higher_is_better=True, peers=dict(a=1.0), limit=4.0,
             rljax=2.0)

  @pytest.fixture(autouse=True)
  def share(self, tmp_path):
    self.folder = tmp_path

  def save(self, **changes):
    rows = [benchmark_rows.completed(self.ROW | changes)]
    benchmark_rows.save(dict(command='c', machine={}, rows=rows), self.folder,
                        self.readme)

  def test_a_later_run_replaces_its_own_rows_only(self):
    self.readme = self.folder / 'README.md'
    self.readme.write_text(
        'before\n<!-- benchmark: begin -->\nold\n<!-- benchmark: end -->'
        '\nafter')
    self.save(row='decode')
    self.save(row='moe_train')
    self.save(row='decode', rljax=3.0)
    rows = json.loads((self.folder / 'benchmark.json').read_text())['rows']
    self.assertEqual([(row['row'], row['ratio_to_best_peer']) for row in rows],
                     [('moe_train', 2.0), ('decode', 3.0)])
    text = self.readme.read_text()
    self.assertEqual((text[:7], text[-6:]), ('before\n', '\nafter'))
    self.assertNotIn('old', text)
    self.assertIn('| `decode`: m | 3 | a 1 | 3 | 75% |', text)

  def test_a_text_without_the_marks_is_refused(self):
    self.readme = self.folder / 'README.md'
    self.readme.write_text('no table')
    with self.assertRaisesRegex(ValueError, 'Put them where'):
      self.save(row='decode')
    self.assertEqual(self.readme.read_text(), 'no table')


class SmokeTest(absltest.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path):
    self.folder = tmp_path

  def check(self, subjects):
    benchmark.run(subjects, str(self.folder), smoke=True)
    rows = json.loads((self.folder / 'report.json').read_text())['rows']
    self.assertEqual({row['row'] for row in rows}, set(subjects))
    for row in rows:
      self.assertGreater(row['rljax'], 0)
      self.assertEqual(bool(row['peers']), bool(row['ratio_to_best_peer']))

  def test_one_of_each_kind_writes_its_rows(self):
    self.check(['dense_train', 'grouped_matmul', 'reward_step'])

  @pytest.mark.slow
  def test_every_subject_writes_its_rows(self):
    self.check(list(benchmark.SUBJECTS))


if __name__ == '__main__':
  absltest.main()
