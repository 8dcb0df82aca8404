"""Tests of the builder of a user's own JSONL."""
import json
import os
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized

from rljax.data import pipeline
from rljax.data import sources
from rljax.data.builders import jsonl
from rljax.data.builders import lines
from rljax.data.builders.jsonl import builder
from rljax.rewards import choice

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

  def test_an_array_record_file_is_read_as_its_lines(self):
    rows = [dict(GOOD, id='a'), {'prompt': 'Was heißt 2 + 2?', 'answer': '4',
                                 'id': 'b'}]
    path = pathlib.Path(self.folder) / 'mine.array_record'
    lines.write_array_record(path, rows)
    self.assertEqual(os.listdir(self.folder), [path.name])  # nothing beside
    same = ('id', 'prompt', 'answer')
    read = lambda path: [{name: r[name] for name in same}
                         for r in self.open(path)]
    self.assertCountEqual(read(str(path)), read(self.write(*rows)))
    lines.write_array_record(path, [GOOD, {'prompt': 'x'}])
    with self.assertRaisesRegex(ValueError, "'answer' in .*_record, line 2"):
      self.open(str(path))

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
    with self.assertRaisesRegex(ValueError, 'at least one record'):
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

  CHOICE = {'prompt': 'Which is even?', 'options': ['one', 'two', 'three'],
            'answer': 'B'}

  def test_options_are_lettered_under_the_prompt_and_judged(self):
    rows = [dict(self.CHOICE, prompt=f'Which is even? {i}') for i in range(20)]
    records = list(self.open(self.write(*rows), verifier='choice'))
    self.assertEqual({r['answer'] for r in records}, {'A', 'B', 'C'})
    for record in records:
      self.assertIn(f'\n{record["answer"]}. two', record['prompt'])
      judge = lambda text, record=record: choice.judge(
          record=record, text=text).status
      self.assertEqual(judge(f'Answer: {record["answer"]}'), 'ok')
      wrong = 'A' if record['answer'] != 'A' else 'B'
      self.assertEqual(judge(f'Answer: {wrong}'), 'wrong')

  def test_options_keep_their_order_under_a_solution_that_names_a_letter(self):
    rows = [dict(self.CHOICE, prompt=f'Which is even? {i}',
                 solution='It is two. Answer: B') for i in range(20)]
    records = list(self.open(self.write(*rows), verifier='choice'))
    for record in records:
      self.assertEqual(record['answer'], 'B')
      self.assertEqual(choice.judge(
          record=record, text=record['solution']).status, 'ok')

  @parameterized.named_parameters(
      ('missing', {'prompt': 'x', 'answer': 'A'}, "'options' with .*line 2"),
      ('not_a_list', {'options': 'one two'}, "list of .*'options' of .*line 2"),
      ('one', {'options': ['one']}, "2 to 26 different .*'options'.*line 2"),
      ('alike', {'options': ['one', 'one']}, '2 to 26 different'),
      ('no_letter', {'answer': 'two'}, "letters ABC .*'answer' of .*line 2"),
      ('beyond', {'answer': 'D'}, 'letters ABC'))
  def test_bad_options_are_named_by_line(self, change, message):
    row = change if 'prompt' in change else self.CHOICE | change
    path = self.write(self.CHOICE, row)
    with self.assertRaisesRegex(ValueError, f'(?s){message}'):
      self.open(path, verifier='choice')

  def test_options_for_another_verifier_are_refused(self):
    with self.assertRaisesRegex(ValueError, "'options' with verifier='choice'"):
      self.open(self.write(self.CHOICE), verifier='math')

  def test_demonstrations_are_the_solutions_of_the_file(self):
    path = self.write(*[dict(GOOD, prompt=f'{i}', solution=f'\\boxed{{{i}}}')
                        for i in range(4)])
    batch = next(pipeline.demonstrations(self.open(path), seed=0,
                                         batch_size=4))
    self.assertEqual({r['prompt']: r['solution'] for r in batch},
                     {f'{i}': f'\\boxed{{{i}}}' for i in range(4)})

  def test_a_line_without_a_solution_is_named_when_demonstrations_are_asked(
      self):
    good = dict(GOOD, solution='\\boxed{2}')
    path = self.write(good, b'', dict(GOOD, id='mine', prompt='y'))
    with self.assertRaisesRegex(
        ValueError, r"1 of 2, first in 'mine' \(.*mine.jsonl, line 3\); add"):
      pipeline.demonstrations(self.open(path), seed=0, batch_size=1)
    self.assertLen(next(pipeline.prompts(self.open(path), seed=0,
                                         batch_size=2)), 2)

  def test_ids_are_line_numbers_of_the_file(self):
    records = list(self.open(self.write(GOOD, b'', dict(GOOD, prompt='y'))))
    self.assertEqual([r['id'] for r in records],
                     ['jsonl-000001', 'jsonl-000003'])

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

  def test_another_revision_is_built_anew(self):
    name = lambda: sources.open_source(
        'jsonl', self.folder, 'train', path=FIXTURE).name
    before = name()
    self.assertEqual(name(), before)
    with mock.patch.object(builder, '_REVISION', -1):
      self.assertNotEqual(name(), before)


if __name__ == '__main__':
  absltest.main()
