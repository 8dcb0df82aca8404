"""Preferences from files: every form, what is refused, and what is counted."""
import collections
import gzip
import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized

from rljax.data import pipeline
from rljax.data import preference

HELLO = '\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: More?\n\nAssistant:'
USER = {'role': 'user', 'content': 'Hi'}
SAYS = lambda text: {'role': 'assistant', 'content': text}
# A line of each form that says: 'Yes.' is better than 'No.'.
LINES = {
    'hh_rlhf': {'chosen': f'{HELLO} Yes.', 'rejected': f'{HELLO} No.'},
    'ultrafeedback': {
        'prompt': 'Hi', 'chosen': [USER, SAYS('Yes.')],
        'rejected': [USER, SAYS('No.')], 'score_chosen': 8.0,
        'score_rejected': 5.5},
    'ultrafeedback_raw': {
        'instruction': 'Hi', 'source': 'evol', 'models': ['a', 'b', 'c'],
        'completions': [
            {'response': 'Perhaps.', 'overall_score': 6.0},
            {'response': 'Yes.', 'overall_score': 8.0, 'model': 'b'},
            {'response': 'No.', 'overall_score': 5.5}]},
    'reward_bench': {
        'prompt': 'Hi', 'chosen': 'Yes.', 'rejected': 'No.',
        'subset': 'chat', 'id': 7, 'chosen_model': 'm'},
    'jsonl': {'prompt': 'Hi', 'chosen': 'Yes.', 'rejected': [SAYS('No.')],
              'margin': 2.5},
}


def write(folder, *rows, name='pairs.jsonl'):
  path = pathlib.Path(folder) / name
  path.write_text('\n'.join(json.dumps(row) for row in rows))
  return path


class FormsTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = self.enterContext(tempfile.TemporaryDirectory())

  def read(self, form, *rows, **options):
    return preference.read(write(self.folder, *rows), form, **options)

  @parameterized.parameters(*LINES)
  def test_each_form_gives_the_same_pair(self, form):
    (record,) = self.read(form, LINES[form]).records
    self.assertEqual((record['chosen'], record['rejected']), ('Yes.', 'No.'))
    self.assertEqual(record['prompt'][0], USER)
    self.assertEqual(record['margin'],
                     None if form in ('hh_rlhf', 'reward_bench') else 2.5)
    self.assertEndsWith(record['file_line'], 'pairs.jsonl, line 1')

  def test_a_dialogue_is_split_at_its_turns_and_gzip_is_read(self):
    path = pathlib.Path(self.folder) / 'pairs.jsonl.gz'
    with gzip.open(path, 'wt') as file:
      file.write(json.dumps(LINES['hh_rlhf']))
    (record,) = preference.read(path, 'hh_rlhf').records
    self.assertEqual(record['prompt'], [
        USER, SAYS('Hello!'), {'role': 'user', 'content': 'More?'}])

  def test_subset_and_id_of_a_benchmark_are_kept(self):
    (record,) = self.read('reward_bench', LINES['reward_bench']).records
    self.assertEqual((record['id'], record['domain']), ('7', 'chat'))

  def test_the_best_is_set_against_the_worst_or_a_random_other(self):
    rows = [LINES['ultrafeedback_raw'] | {'instruction': f'Hi {i}'}
            for i in range(60)]
    others = collections.Counter(record['rejected'] for record in self.read(
        'ultrafeedback_raw', *rows, other='random').records)
    self.assertEqual(set(others), {'No.', 'Perhaps.'})
    self.assertBetween(others['No.'], 15, 45)  # a fair coin: 30 ± 3.9
    again = self.read('ultrafeedback_raw', *rows, other='random', seed=1)
    self.assertNotEqual(
        [record['rejected'] for record in again.records],
        [record['rejected'] for record in self.read(
            'ultrafeedback_raw', *rows, other='random').records])

  @parameterized.parameters(
      ('identical', 'jsonl', {'rejected': ' Yes. '}),
      ('empty_response', 'jsonl', {'rejected': ' '}),
      ('contradicted', 'jsonl', {'margin': -1}),
      ('contradicted', 'ultrafeedback', {'score_rejected': 9}),
      ('tied', 'ultrafeedback', {'score_rejected': 8}),
      ('empty_response', 'hh_rlhf', {'chosen': HELLO}),
      ('empty_response', 'hh_rlhf', {'chosen': '\n\nHuman: Hi'}),
      ('no_common_prompt', 'hh_rlhf',
       {'rejected': f'{HELLO} No.'.replace('More', 'Less')}),
      ('no_common_prompt', 'ultrafeedback', {'chosen': [SAYS('Yes.')]}),
      ('tied', 'ultrafeedback_raw', {'completions': [
          {'response': text, 'overall_score': 1} for text in 'ab']}),
      ('too_few', 'ultrafeedback_raw', {'completions': []}))
  def test_what_teaches_nothing_stops_or_is_counted(self, reason, form, change):
    rows = [LINES[form], LINES[form] | change]
    if form == 'reward_bench':
      rows[1]['id'] = 8
    with self.assertRaisesRegex(ValueError, "line 2: .*unfit='drop'"):
      self.read(form, *rows)
    found = self.read(form, *rows, unfit='drop')
    self.assertLen(found.records, 1)
    self.assertEqual({name: n for name, n in found.dropped.items() if n},
                     {reason: 1})

  @parameterized.parameters(
      ('jsonl', {'rejected': 3}, "field 'rejected' of .*line 2"),
      ('jsonl', {'margin': 'much'}, "'margin' of .*line 2, got 'much'"),
      ('jsonl', {'chosen_ends': 'no'}, "true or false .*'chosen_ends' of .*2"),
      ('jsonl', {'margin': True}, "'margin' of .*line 2, got True"),
      ('jsonl', {'score_chosen': 1}, "both of 'score_chosen'"),
      ('jsonl', {'prompt': ''}, "'prompt' of .*line 2"),
      ('jsonl', {'prompt': [SAYS('Yes.')]}, 'to end before a turn of the assi'),
      ('jsonl', {'chosen': [USER, SAYS('Yes.')]}, 'Expected one message'),
      ('jsonl', {'winner': 'a'}, "Expected only the fields .*got 'winner'"),
      ('hh_rlhf', {'chosen': 'Yes.'}, "begins with .*'chosen' of .*line 2"),
      ('ultrafeedback', {'chosen': [USER]}, 'to end with a message of the ass'),
      ('ultrafeedback', {'chosen': [{'role': 'user'}]}, 'Expected a list of m'),
      ('ultrafeedback_raw', {'completions': 'Yes.'}, 'Expected a list'),
      ('ultrafeedback_raw', {'completions': [{'response': 'Yes.'}] * 2},
       r"'overall_score' in .*line 2, field 'completions\[0\]'"))
  def test_a_bad_line_stops_with_file_line_and_field(self, form, change, text):
    with self.assertRaisesRegex(ValueError, text):
      self.read(form, LINES[form], LINES[form] | change, unfit='drop')

  def test_a_step_begins_where_the_prompt_breaks_off(self):
    row = LINES['jsonl'] | {'prompt': [USER, SAYS('So ')]}
    (record,) = self.read('steps', row).records
    self.assertEqual((record['prompt'], record['steps']), ([USER], 'So '))
    self.assertEqual((record['chosen'], record['margin']), ('Yes.', 2.5))
    for prompt in ('Hi', [USER]):  # the first step
      (record,) = self.read('steps', row | {'prompt': prompt}).records
      self.assertEqual((record['prompt'], record['steps']), ([USER], ''))
    for prompt in ([SAYS('So ')], [USER, SAYS('So'), SAYS(' so ')], '', 3):
      with self.assertRaisesRegex(ValueError, "field 'prompt' of .*line 1"):
        self.read('steps', row | {'prompt': prompt})
    with self.assertRaisesRegex(ValueError, "end before a turn.*as 'steps'"):
      self.read('jsonl', row)

  def test_steps_of_one_question_are_held_out_together(self):
    rows = [LINES['jsonl'] | {'prompt': [
        {'role': 'user', 'content': f'Hi {i}'}, SAYS('So')]}
            for i in range(8)]
    rows += [row | {'prompt': [row['prompt'][0], SAYS('Or')]} for row in rows]
    parts = preference.split(self.read('steps', *rows).records, test_size=3)
    asked = [{preference.prompt_key(record) for record in parts[name]}
             for name in ('train', 'test')]
    self.assertEqual([len(keys) for keys in asked], [5, 3])
    self.assertNoCommonElements(*asked)

  def test_a_label_is_a_pair_with_one_side(self):
    row = {'prompt': 'Hi', 'response': 'Yes.', 'label': True}
    good, bad = self.read('labels', row, row | {'label': False}).records
    self.assertEqual((good['chosen'], good['rejected']), ('Yes.', ''))
    self.assertEqual((bad['chosen'], bad['rejected']), ('', 'Yes.'))
    self.assertEqual(good['prompt'], [USER])
    for change, text in (({'label': 1}, "true or false .*'label' of .*got 1"),
                         ({'response': ' '}, 'expected text in response')):
      with self.assertRaisesRegex(ValueError, text):
        self.read('labels', row | change)

  def test_a_missing_field_an_id_twice_and_nothing_left_are_refused(self):
    with self.assertRaisesRegex(ValueError, "field 'rejected' in .*line 1"):
      self.read('jsonl', {'prompt': 'Hi', 'chosen': 'Yes.'})
    row = LINES['jsonl'] | {'id': 'x'}
    with self.assertRaisesRegex(ValueError, "'x' in .*line 1 and in .*line 2"):
      self.read('jsonl', row, row)
    with self.assertRaisesRegex(ValueError, 'at least one record.*1 lines'):
      self.read('jsonl', row | {'chosen': 'No.'}, unfit='drop')
    with self.assertRaisesRegex(ValueError, "form among .*got 'hh'"):
      self.read('hh', row)

  def test_lists_keep_their_order_and_unlabeled_ones_are_two(self):
    row = {'prompt': 'Hi', 'responses': ['a', 'b', 'c'], 'id': 'i'}
    (record,) = self.read('ranked', row).records
    self.assertEqual(record['responses'], ['a', 'b', 'c'])
    with self.assertRaisesRegex(ValueError, "two texts .*line 1, got 3"):
      self.read('unlabeled', row)
    with self.assertRaisesRegex(ValueError, 'different texts'):
      self.read('unlabeled', row | {'responses': ['a', 'a']})

  def test_the_name_changes_with_what_was_read(self):
    names = {self.read('jsonl', LINES['jsonl'] | {'margin': i}).name
             for i in (1, 2)}
    self.assertLen(names, 2)


class UseTest(absltest.TestCase):

  def records(self, count=40):
    return [{'id': f'r{i}', 'prompt': [USER | {'content': f'Hi {i // 2}'}],
             'chosen': 'Yes.', 'rejected': 'No.', 'margin': None,
             'domain': 'even' if i % 2 == 0 else 'odd', 'file_line': ''}
            for i in range(count)]

  def test_a_prompt_is_in_one_part_only(self):
    parts = preference.split(self.records(), test_size=5, seed=3)
    keys = {name: {preference.prompt_key(r) for r in part}
            for name, part in parts.items()}
    self.assertLen(keys['test'], 5)
    self.assertLen(parts['test'], 10)  # two records to a prompt
    self.assertEmpty(keys['test'] & keys['train'])

  def test_pairs_are_held_out_of_the_file_or_come_from_another(self):
    folder = self.enterContext(tempfile.TemporaryDirectory())
    row = lambda i, **more: LINES['jsonl'] | {'prompt': f'Hi {i}'} | more
    path = write(folder, *map(row, range(10)), row(3, chosen='Yes.'))
    parts = preference.open_files(
        path=path, form='jsonl', held_out=2, unfit='drop')
    self.assertLen(parts.held_out, 2)
    self.assertLen(parts.train, 9)
    self.assertEqual(sum(parts.dropped.values()), 0)
    other = write(folder, row(50), row(51, chosen=''), name='test.jsonl')
    parts = preference.open_files(
        path=path, form='jsonl', held_out=0, test_path=other, unfit='drop')
    ids = [record['id'] for record in parts.train + parts.held_out]
    self.assertLen(set(ids), 12)  # lines of two files have equal numbers
    self.assertEqual(parts.dropped['empty_response'], 1)
    with self.assertRaisesRegex(ValueError, 'no test prompt in the training'):
      preference.open_files(path=path, form='jsonl', held_out=0,
                            test_path=path)
    for bad in (dict(held_out=0), dict(held_out=2, test_path=other)):
      with self.assertRaisesRegex(ValueError, 'either held_out > 0 or a test'):
        preference.open_files(path=path, form='jsonl', **bad)

  def test_the_order_of_a_pair_is_a_coin_of_seed_and_id(self):
    records = self.records(400)
    first = [preference.in_order(record, seed=0)[2] for record in records]
    # 400 fair coins: 200 ± 10.
    self.assertBetween(sum(first), 160, 240)
    self.assertEqual(first[::-1], [preference.in_order(record, seed=0)[2]
                                   for record in records[::-1]])
    self.assertNotEqual(first, [preference.in_order(record, seed=1)[2]
                                for record in records])
    for record, is_first in zip(records, first, strict=True):
      a, b, _ = preference.in_order(record, seed=0)
      self.assertEqual((a, b), ('Yes.', 'No.') if is_first else ('No.', 'Yes.'))

  def test_batches_resume_and_hosts_share_them_out(self):
    source = preference.source('pairs/abc', self.records())
    make = lambda **host: pipeline.prompts(
        source, seed=0, batch_size=host.pop('size', 4), **host)
    whole = make()
    seen = [next(whole) for _ in range(5)]
    resumed = make()
    for _ in range(2):
      next(resumed)
    state = resumed.get_state()
    again = make()
    again.set_state(state)
    self.assertEqual([next(again) for _ in range(3)], seen[2:])
    hosts = [next(make(size=2, host_index=i, host_count=2)) for i in range(2)]
    self.assertEqual([r for pair in zip(*hosts, strict=True) for r in pair],
                     seen[0])
    odd = pipeline.prompts(source, seed=0, batch_size=4, domains=['odd'])
    self.assertEqual({r['domain'] for r in next(odd)}, {'odd'})


if __name__ == '__main__':
  absltest.main()
