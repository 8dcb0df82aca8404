"""Tests of the builder of a user's own JSONL."""
import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized

from rljax.data import sources
from rljax.data.builders import jsonl

FIXTURE = str(pathlib.Path(jsonl.__path__[0]) / 'fixture.jsonl')
GOOD = {'prompt': 'What is 1 + 1?', 'answer': '2'}


class JsonlBuilderTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = self.enterContext(tempfile.TemporaryDirectory())

  def write(self, *lines):
    path = pathlib.Path(self.folder) / 'mine.jsonl'
    path.write_bytes(b'\n'.join(
        line if isinstance(line, bytes) else json.dumps(line).encode()
        for line in lines))
    return str(path)

  def open(self, path, split='train', **options):
    return sources.open_source('jsonl', self.folder, split, path=path,
                               **options)

  def test_reads_the_fixture(self):
    records = list(self.open(FIXTURE, verifier='math', domain='science'))
    self.assertLen(records, 4)  # the empty line is none
    self.assertEqual(records[1]['prompt'], 'Wie heißt die Wurzel aus 9?')
    self.assertEqual([r['domain'] for r in records],
                     ['math', 'science', 'math', 'code'])
    self.assertEqual(records[2]['solution'], '1+2=3; 3+3=6; \\boxed{6}')
    self.assertEqual(records[3]['id'], 'byte')
    self.assertEqual({r['verifier'] for r in records}, {'math'})

  @parameterized.named_parameters(
      ('missing', {'prompt': 'x'}, "field 'answer'.*line 2"),
      ('misspelt', dict(GOOD, domian='math'), "line 2.*'domian'"),
      ('number', dict(GOOD, answer=2), "'answer' of .*line 2.*got 2"),
      ('empty', dict(GOOD, prompt=' '), "'prompt' of .*line 2"),
      ('list', [1], 'object in .*line 2, got list'),
      ('corrupt', b'{"prompt": "x", "ans', 'line 2, got text that cannot'),
      ('not_utf8', b'{"prompt": "\xff", "answer": "1"}', 'line 2, got text'),
  )
  def test_a_bad_line_is_named_by_file_line_and_field(self, line, message):
    path = self.write(GOOD, line)
    with self.assertRaisesRegex(ValueError, f'(?s){message}') as caught:
      self.open(path)
    self.assertIn('mine.jsonl', str(caught.exception))

  def test_an_empty_file_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'at least one problem'):
      self.open(self.write(b''))

  def test_a_missing_file_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'which is not a file'):
      self.open(self.folder + '/none.jsonl')

  def test_a_repeated_id_is_refused(self):
    twice = [dict(GOOD, id='a', prompt=p) for p in 'xy']
    with self.assertRaisesRegex(ValueError, "'a' twice"):
      self.open(self.write(*twice))

  def test_an_unknown_verifier_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'Expected a verifier among'):
      self.open(FIXTURE, verifier='generator')

  def test_equal_prompts_stay_in_one_split(self):
    # 10 prompts, each on three lines: 12 test lines are 4 whole prompts.
    lines = [{'prompt': f'q{i % 10}', 'answer': str(i)} for i in range(30)]
    options = dict(test_size=4, validation_size=2)
    path = self.write(*lines)
    got = {split: {r['prompt'] for r in self.open(path, split, **options)}
           for split in ('train', 'validation', 'test')}
    self.assertEqual([len(got[s]) for s in got], [4, 2, 4])
    self.assertLen(set.union(*got.values()), 10)
    self.assertLen(self.open(path, 'test', **options), 12)

  def test_holding_out_everything_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'fewer held-out prompts'):
      self.open(FIXTURE, test_size=4)

  def test_a_changed_file_is_built_anew(self):
    path = self.write(GOOD)
    before = self.open(path)
    path = self.write(GOOD, dict(GOOD, prompt='What is 1 * 2?'))
    after = self.open(path)
    self.assertLen(before, 1)
    self.assertLen(after, 2)
    self.assertNotEqual(before.name, after.name)


if __name__ == '__main__':
  absltest.main()
