"""Published forms are read, the right response first; bad lines are named."""
import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized

from rljax.data import reward_benchmarks

ROWS = {
    'reward_bench': dict(
        id=30, prompt='P', chosen='good', rejected='bad', subset='math-prm',
        chosen_model='human', rejected_model='gpt', extra=None),
    'reward_bench_2': dict(
        id='7', prompt='P', chosen=['good'], rejected=['b', 'c', 'd'],
        subset='Factuality', num_correct=1, total_completions=4),
    'judge_bench': dict(
        pair_id='u', original_id='1', source='mmlu-pro-law', question='P',
        response_model='m', response_A='bad', response_B='good', label='B>A'),
    'rm_bench': dict(
        id='x', prompt='P', chosen=['a', 'b', 'c'], rejected=['d', 'e', 'f'],
        domain='safety-refuse'),
    'vl_reward_bench': dict(
        id='v', image_path='images/rlhf-v/v.jpg', query='P',
        response=['bad', 'good'], human_ranking=[1, 0], models=['m', 'n']),
    'best_of_n': dict(id='b', prompt='P', responses=['a', 'b'], gold=[0, 1.5]),
}


class ReadTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
        self.enterContext(tempfile.TemporaryDirectory()))

  def read(self, name, *rows, suffix='.jsonl'):
    path = self.folder / f'{name}{suffix}'
    path.write_text(json.dumps(rows) if suffix == '.json' else ''.join(
        json.dumps(row) + '\n' for row in rows))
    return reward_benchmarks.read(name, path)

  @parameterized.parameters(
      ('reward_bench', ('good', 'bad'), 1, 'math-prm', ('human', 'gpt')),
      ('reward_bench_2', ('good', 'b', 'c', 'd'), 1, 'Factuality', ()),
      ('judge_bench', ('good', 'bad'), 1, 'knowledge', ()),
      ('rm_bench', tuple('abcdef'), 3, 'safety', ()),
      ('vl_reward_bench', ('good', 'bad'), 1, 'hallucination', ('n', 'm')),
      ('best_of_n', ('a', 'b'), 0, 'all', ()))
  def test_the_right_responses_come_first(self, name, responses, right, group,
                                          models):
    item, = self.read(name, ROWS[name])
    self.assertEqual((item.prompt, item.responses, item.num_right, item.group,
                      item.models), ('P', responses, right, group, models))
    self.assertEqual(item.name, str(
        ROWS[name].get('id', ROWS[name].get('pair_id'))))

  def test_every_benchmark_has_a_row_here(self):
    self.assertEqual(set(ROWS), set(reward_benchmarks.READERS))

  def test_a_label_the_other_way_turns_the_pair(self):
    row = ROWS['judge_bench'] | dict(label='A>B')
    self.assertEqual(self.read('judge_bench', row)[0].responses,
                     ('bad', 'good'))
    row = ROWS['vl_reward_bench'] | dict(human_ranking=[0, 1])
    self.assertEqual(self.read('vl_reward_bench', row)[0].responses,
                     ('bad', 'good'))

  def test_ties_have_many_right_responses(self):
    row = ROWS['reward_bench_2'] | dict(
        id='tied:4', subset='Ties', chosen=['r', 'g'], num_correct=2,
        total_completions=5)
    item, = self.read('reward_bench_2', row)
    self.assertEqual((item.num_right, len(item.responses)), (2, 5))

  def test_a_json_list_is_read_too(self):
    rows = [ROWS['rm_bench'], ROWS['rm_bench'] | dict(id='y', domain='code')]
    items = self.read('rm_bench', *rows, suffix='.json')
    self.assertEqual([item.group for item in items], ['safety', 'code'])

  @parameterized.parameters(
      ('reward_bench', dict(subset='math'), "'subset'.*line 2.*'math'"),
      ('reward_bench', dict(chosen=3), "text in the field 'chosen'.*line 2"),
      ('reward_bench', dict(id=''), "'id'.*line 2"),
      ('reward_bench_2', dict(chosen=['a', 'b'], num_correct=2,
                              total_completions=5), "'chosen'.*line 2"),
      ('reward_bench_2', dict(num_correct=2), "'num_correct'.*line 2.*got 2"),
      ('reward_bench_2', dict(total_completions=5), "'total_completions'"),
      ('reward_bench_2', dict(subset='Ties'), "ref:<number>.*line 2.*'7'"),
      ('judge_bench', dict(label='A=B'), "'label'.*line 2.*'A=B'"),
      ('judge_bench', dict(source='arena'), "'source'.*line 2.*'arena'"),
      ('rm_bench', dict(chosen=['a', 'b']), "3 texts.*'chosen'.*line 2"),
      ('rm_bench', dict(domain='law'), "'domain'.*line 2.*'law'"),
      ('vl_reward_bench', dict(human_ranking=[0, 0]), "'human_ranking'.*2"),
      ('vl_reward_bench', dict(image_path='a/b.jpg'), "'image_path'.*line 2"),
      ('best_of_n', dict(gold=[1.0]), "2 numbers.*'gold'.*line 2"),
      ('best_of_n', dict(gold=[1.0, float('nan')]), "'gold'.*line 2"))
  def test_a_bad_field_is_named_with_file_and_line(self, name, change, message):
    second = ROWS[name] | ({} if 'id' in change or 'subset' in change else (
        {'id': '8'} if 'id' in ROWS[name] else {'pair_id': 'w'})) | change
    with self.assertRaisesRegex(ValueError, message):
      self.read(name, ROWS[name], second)

  @parameterized.parameters(*sorted(ROWS))
  def test_a_missing_field_is_named(self, name):
    for field in ROWS[name].keys() - {
        'extra', 'chosen_model', 'rejected_model', 'num_correct', 'models',
        'total_completions', 'original_id', 'response_model'}:
      row = {key: value for key, value in ROWS[name].items() if key != field}
      with self.assertRaisesRegex(ValueError, f"field '{field}' in .*line 1"):
        self.read(name, row)

  def test_what_stands_twice_or_cannot_be_read(self):
    with self.assertRaisesRegex(ValueError, "line 2, got '30' of .*line 1"):
      self.read('reward_bench', ROWS['reward_bench'], ROWS['reward_bench'])
    path = self.folder / 'x.jsonl'
    path.write_text('{"id": 1}\n{"id"')
    with self.assertRaisesRegex(ValueError, 'line 2'):
      reward_benchmarks.read('reward_bench', path)
    path = self.folder / 'x.json'
    path.write_text('{"id": 1}')
    with self.assertRaisesRegex(ValueError, 'name such a file .jsonl'):
      reward_benchmarks.read('rm_bench', path)
    with self.assertRaisesRegex(ValueError, "among .*'rm_bench'.*got 'rmb'"):
      reward_benchmarks.read('rmb', path)


if __name__ == '__main__':
  absltest.main()
