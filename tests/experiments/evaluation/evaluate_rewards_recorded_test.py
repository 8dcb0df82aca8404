"""Answers that were recorded: of one model, of one kind, one to an item."""
import json

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
import pytest

from experiments.evaluation import evaluate_rewards_answers as answers_lib
from experiments.evaluation import evaluate_rewards_recorded as recorded
from rljax.data import reward_benchmarks as files

_HOW = dict(num_votes=9, seed=0, ranking='round_robin')
_ITEMS = [files.Item(f'i{i}', f'P{i}', ('right', 'wrong'), 1, 'g')
          for i in range(3)]


def line(i, benchmark='judge_bench', **said):
  return dict(benchmark=benchmark, id=f'i{i}') | said


def lines(name, score):
  return [line(i, model=name, scores=[score, i]) for i in range(3)]


class ReadTest(parameterized.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path):
    self.path = tmp_path / 'given.jsonl'

  def read(self, *rows):
    self.path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return recorded.read(self.path, rows[0]['benchmark'], _ITEMS, **_HOW)

  def test_a_name_may_stand_in_all_lines_or_in_none(self):
    wanted = [answers_lib.Answer(scores=(7.0, i)) for i in range(3)]
    self.assertEqual(self.read(*lines('a', 7)), wanted)
    self.assertEqual(
        self.read(*[line(i, scores=[7, i]) for i in range(3)]), wanted)
    with self.assertRaisesRegex(
        ValueError, "'a' from line 1, no name from line 4"):
      self.read(*lines('a', 7), line(0, scores=[7, 0]))
    with self.assertRaisesRegex(ValueError, "'model' of .*line 2, got 7"):
      self.read(line(0, scores=[7, 0]), line(1, scores=[7, 1], model=7))

  def test_two_models_in_one_file_are_not_mixed(self):
    # Of a run whose second model has answered one item.
    with self.assertRaisesRegex(
        ValueError, "one model in .*given.jsonl, got 'good' from line 1, 'bad' "
        "from line 4. Copy the lines of one, by their field 'model'"):
      self.read(*lines('good', 9), *lines('bad', -9)[:1])

  def test_a_run_of_two_models_is_split_by_the_names_in_its_lines(self):
    asked = [answers_lib.ask(
        answers_lib.Model(name, scorer=lambda texts, sign=sign: sign * np.array(
            [float(response == 'right') for _, response in texts])),
        'judge_bench', _ITEMS, self.path, chunk=2, **_HOW)
             for name, sign in (('good', 1), ('bad', -1))]
    rows = list(map(json.loads, self.path.read_text().splitlines()))
    with self.assertRaisesRegex(ValueError, "'good' from line 1, 'bad' from"):
      self.read(*rows)
    for name, answers in zip(('good', 'bad'), asked, strict=True):
      self.assertEqual(
          self.read(*[row for row in rows if row['model'] == name]), answers)

  def test_two_answers_to_an_item_are_one_too_many(self):
    with self.assertRaisesRegex(
        ValueError, "one answer to item 'i1' of judge_bench.*line 2 and .*line "
        '4. Keep'):
      self.read(*lines('a', 7), line(1, model='a', scores=[8, 1]))
    # The same name is an item of another benchmark.
    self.assertLen(self.read(*lines('a', 7), line(
        1, 'reward_bench', model='a', scores=[8, 1])), 3)

  def test_answers_of_two_kinds_are_not_mixed(self):
    votes = [[0, 1, 0, 1], [1, 0, 0, 0]]
    with self.assertRaisesRegex(
        ValueError, 'Expected scores in .*line 2, as in .*line 1, got votes'):
      self.read(line(0, scores=[1, 0]), line(1, votes=votes))
    with self.assertRaisesRegex(
        ValueError, 'Expected votes in .*line 1, as in .*line 2, got scores'):
      self.read(line(1, scores=[1, 0]), line(0, votes=votes))

  def test_as_many_votes_on_each_item_of_vl_reward_bench(self):
    votes = [[0, 1, call, 1] for call in range(10)]
    of = lambda i, count: line(i, 'vl_reward_bench', votes=votes[:count])
    with self.assertRaisesRegex(ValueError, '9 votes in .*line 2, as in .*line '
                                '1, got 10 votes. Correct'):
      self.read(of(0, 9), of(1, 10), of(2, 9))
    self.assertLen(self.read(of(0, 10), of(1, 10), of(2, 10))[0].votes, 10)
    # Elsewhere votes on more pairs than are asked for do no harm.
    both = [[0, 1, 0, 1], [1, 0, 0, 0], [0, 1, 1, 1]]
    self.assertLen(self.read(*[line(i, votes=both[:2 + i % 2])
                               for i in range(3)]), 3)

  @parameterized.parameters(
      (dict(scores=[1.0]), "2 numbers.*'scores'.*line 1"),
      (dict(votes=[[0, 1, 0, 2]]), "'votes'.*line 1"),
      (dict(votes=[[1, 2, 0, 1]]), r'places 0 to 1.*got \[1, 2, 0, 1\]'),
      (dict(votes=[[1, 1, 0, 1]]), r'two of the places.*got \[1, 1, 0, 1\]'),
      (dict(votes=[[0.9, 0, 0, 1]]), r'got \[0.9, 0, 0, 1\]'),
      (dict(votes=[[0, 1, 0, 1], [0, 1, 0, 0]]), r'once, got \[0, 1, 0, 0\]'),
      (dict(votes=[[0, 1, 0, 1]]), r'\(1, 0, 0\).*both orders'),
      (dict(id='i99', scores=[1, 2]), "answer to item 'i0'"),
      (dict(id=3, scores=[1, 2]), "'id' of .*line 1"))
  def test_a_line_that_does_not_fit(self, said, message):
    with self.assertRaisesRegex(ValueError, message):
      self.read(line(0) | said)


if __name__ == '__main__':
  absltest.main()
