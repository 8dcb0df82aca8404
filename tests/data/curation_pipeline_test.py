"""The whole pipeline on a small file; in the environment of `make curation`."""
import json
import os
from unittest import mock

from absl.testing import absltest
import numpy as np
import pytest

pytest.importorskip('apache_beam', reason='make curation runs these')

from rljax.data import curation  # noqa: E402
from rljax.data import curation_pipeline  # noqa: E402
from rljax.data.builders import lines  # noqa: E402
from tests.data import curation_test  # noqa: E402

RIGHT, WRONG = r'\boxed{4}', r'\boxed{5}'


def row(prompt, student, teacher, **more):
  return dict(prompt=prompt, answer='4', attempts=dict(
      s=[RIGHT] * student + [WRONG] * (4 - student),
      t=[RIGHT] * teacher + [WRONG] * (4 - teacher)), **more)


ROWS = [
    row('What is 2 + 2?', 2, 4, id='good', domain='math'),
    row('what is  2+2 ?', 2, 4, id='same'),
    row(curation_test.LONG.format('eight'), 0, 4, id='far1'),
    row(curation_test.LONG.format('seven'), 0, 4, id='far2'),
    row('Which number is the last one of the hidden exam?', 1, 4, id='exam'),
    row('What is 8 / 2?', 4, 4, id='easy'),
    row('What is the third root of 64?', 0, 0, id='hard'),
    row('(a) What is 1? (b) What is 4?', 1, 1, id='parts'),
    row('Name a number above 3 and below 5.', 1, 0, id='only student')]


def embed(texts):
  """Texts with the word root are alike."""
  return np.array([[1.0, 0.0] if 'root' in text else [0.0, 1.0]
                   for text in texts])


class PipelineTest(absltest.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path):
    self.folder = tmp_path
    self.input, self.exam = tmp_path / 'in.jsonl', tmp_path / 'exam.jsonl'
    self.write(self.input, ROWS)
    self.write(self.exam, [dict(
        question='Which number is the last one of the hidden exam?')])

  def write(self, path, rows):
    path.write_text('\n'.join(map(json.dumps, rows)))

  def run_all(self, **options):
    rules = curation.Rules(student='s', teacher='t')
    return curation_pipeline.run(
        [str(self.input)], self.folder / 'out', rules,
        benchmarks={'exam': str(self.exam)}, say=lambda text: None, **options)

  def kept(self):
    lines = (self.folder / 'out/curated.jsonl').read_text().splitlines()
    return [json.loads(line)['id'] for line in lines]

  def test_every_drop_is_counted_by_its_reason(self):
    report = self.run_all()
    dropped = {name: stage['dropped']
               for name, stage in report['stages'].items()}
    self.assertEqual(dropped, {
        'clean': {'several parts': 1}, 'exact': {'duplicate': 1},
        'near': {'near duplicate': 1}, 'benchmarks': {'in benchmark exam': 1},
        'answers': {'nobody finds the answer': 1},
        'rates': {'the student always solves it': 1}})
    self.assertEqual(self.kept(), ['far1', 'good', 'only student'])
    self.assertEqual((report['read'], report['kept']), (len(ROWS), 3))
    notes = {found['id']: found for found in map(json.loads, (
        self.folder / 'out/annotations.jsonl').read_text().splitlines())}
    self.assertEqual(notes['far1']['difficulty'], 1.0)
    self.assertEqual(notes['good']['domain'], 'math')

  def test_array_records_go_in_and_come_out(self):
    lines.write_array_record(self.folder / 'in.array_record', ROWS)
    self.input.unlink()
    self.input = self.folder / 'in.array_record'
    report = self.run_all(form='array_record')
    self.assertEqual((report['read'], report['kept']), (len(ROWS), 3))
    kept = [row for _, row in lines.objects(
        self.folder / 'out/curated.array_record')]
    self.assertEqual([row['id'] for row in kept],
                     ['far1', 'good', 'only student'])
    self.assertEqual(kept[1]['prompt'], 'What is 2 + 2?')
    self.assertFalse((self.folder / 'out/curated.jsonl').exists())
    with self.assertRaisesRegex(ValueError, "'array_record'.*got 'parquet'"):
      self.run_all(form='parquet')

  def test_problems_of_two_files_with_one_id_are_two_problems(self):
    # "1" of one file is nearly "2"; "1" of the other is neither.
    self.write(self.input, [
        row(curation_test.LONG.format('eight'), 2, 4, id='1'),
        row(curation_test.LONG.format('seven'), 2, 4, id='0')])
    self.write(self.folder / 'in2.jsonl', [row('What is 2 + 2?', 2, 4, id='1')])
    rules = curation.Rules(student='s', teacher='t')
    report = curation_pipeline.run(
        [str(self.folder / 'in*.jsonl')], self.folder / 'out', rules,
        say=lambda text: None)
    self.assertEqual(report['stages']['near']['dropped'],
                     {'near duplicate': 1})
    prompts = [json.loads(line)['prompt'] for line in (
        self.folder / 'out/curated.jsonl').read_text().splitlines()]
    self.assertIn('What is 2 + 2?', prompts)
    self.assertLen(set(self.kept()), 2)

  def test_a_run_that_was_stopped_goes_on_and_ends_alike(self):
    report, first = self.run_all(), self.kept()
    out = self.folder / 'out'
    for name in ('done.json', ):  # killed while it graded
      os.remove(out / '4_answers' / name)
    os.remove(out / '5_rates' / 'done.json')
    begun = []
    run_stage = curation_pipeline._run_stage
    with mock.patch.object(
        curation_pipeline, '_run_stage',
        side_effect=lambda *x: begun.append(x[1].name) or run_stage(*x)):
      self.assertEqual(self.run_all(), report)
    self.assertEqual(begun, ['4_answers', '5_rates'])
    self.assertEqual(self.kept(), first)

  def test_embeddings_find_what_words_do_not(self):
    self.write(self.exam, [dict(prompt='Which root?')])
    report = self.run_all(embed=f'{__name__}:embed')
    self.assertEqual(report['stages']['benchmarks']['dropped'],
                     {'like benchmark exam': 1})

  def test_other_settings_in_the_same_folder_are_refused(self):
    self.run_all()
    self.write(self.input, ROWS[:3])
    with self.assertRaisesRegex(ValueError, 'but files differ'):
      self.run_all()

  def test_a_line_that_cannot_be_read_is_named(self):
    self.input.write_text('{"prompt": "a"}\n{oops')
    with self.assertRaisesRegex(Exception, 'in.jsonl, line 2'):
      self.run_all()
    self.assertFalse((self.folder / 'out/curated.jsonl').exists())

  def test_no_file_is_refused(self):
    self.input.unlink()
    with self.assertRaisesRegex(ValueError, 'nothing matches'):
      self.run_all()


if __name__ == '__main__':
  absltest.main()
