"""Two evaluations are split as the library does, or refused."""
import json

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from experiments import gain

BEFORE = ['0000', '0001', '1000', '1111']
AFTER = ['1111', '1100', '0100', '1111']


def result(samples, **config):
  settings = dict(seed=0, init=dict(checkpoint='a')) | config
  return dict(problems=[dict(id=f'p{i}', samples=text)
                        for i, text in enumerate(samples)],
              request=dict(config=settings))


class GainTest(parameterized.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path, capsys):
    self.folder, self.capsys = tmp_path, capsys

  def write(self, name, **results):
    (self.folder / name).mkdir(exist_ok=True)
    (self.folder / name / 'results.json').write_text(json.dumps(results))
    return str(self.folder / name)

  def compare(self, before, after):
    return gain.run(self.write('a', x=before), self.write('b', x=after),
                    str(self.folder / 'out'))

  def test_the_split_by_hand(self):
    soft = self.compare(result(BEFORE), result(AFTER, init=dict(
        checkpoint='b')))['soft']
    # s before: 0, 1/4, 1/4, 1; after: 1, 1/2, 1/4, 1.
    self.assertAlmostEqual(soft['gain']['estimate'], 1.25 / 4)
    self.assertAlmostEqual(soft['progress']['estimate'],
                           (1 + 0.75 * 0.5 + 0.75 * 0.25) / 4)
    self.assertEqual([point['k'] for point in soft['points']], [1, 2, 4])
    # With all 4 samples only the first problem was out of reach.
    self.assertAlmostEqual(
        soft['points'][-1]['capability']['estimate'], 1 / 4)
    for point in soft['points']:
      self.assertAlmostEqual(
          point['capability']['estimate'] + point['self_distilled']['estimate'],
          soft['progress']['estimate'])
    self.assertTrue((self.folder / 'out/plots/gain.png').is_file())
    report = (self.folder / 'out/report.md').read_text()
    self.assertIn('progress by k', report)
    found = json.loads((self.folder / 'out/report.json').read_text())
    # The first two samples solve all four after, and two of them before.
    self.assertEqual(found['solved by'][1], {
        'k': 2, 'both': 2, 'before only': 0, 'after only': 2, 'neither': 0,
        'p-value': 0.5})
    self.assertIn('k=4: within reach', self.capsys.readouterr().out)

  def test_a_problem_that_was_not_graded_is_left_out_on_both_sides(self):
    after = ['-111', *AFTER[1:]]
    self.compare(result(BEFORE), result(after))
    found = json.loads((self.folder / 'out/report.json').read_text())
    self.assertEqual((found['compared'][0]['problems'],
                      found['compared'][0]['left_out']), (3, 1))

  def test_of_several_checkpoints_one_is_named(self):
    folder = self.write('c', start=result(BEFORE), end=result(AFTER))
    found = gain.run(f'{folder}#start', f'{folder}#end',
                     str(self.folder / 'out'))
    self.assertAlmostEqual(found['soft']['gain']['estimate'], 1.25 / 4)
    with self.assertRaisesRegex(ValueError, "'end', 'start'.*got ''"):
      gain.run(folder, f'{folder}#end', str(self.folder / 'out'))

  @parameterized.parameters(
      (result(AFTER, seed=1), 'but seed differ'),
      (result(AFTER[::-1])
       | dict(problems=result(AFTER)['problems'][::-1]), 'the same problems'),
      (result(['----'] * 3 + AFTER[3:]), 'got 1 of 4'),
      (dict(problems=[dict(id='p0')], request={}), 'older version'))
  def test_what_cannot_be_compared_is_refused(self, after, message):
    with self.assertRaisesRegex(ValueError, message):
      self.compare(result(BEFORE), after)
    self.assertFalse((self.folder / 'out').exists())

  def test_a_folder_without_an_evaluation_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'no results.json'):
      gain.run(str(self.folder), str(self.folder), str(self.folder / 'out'))


if __name__ == '__main__':
  absltest.main()
