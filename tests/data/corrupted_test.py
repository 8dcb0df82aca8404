"""Toy pairs: one number apart, and the judge knows which is right."""
import difflib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized

from rljax.data import corrupted
from rljax.data import preference
from rljax.data import sources
from rljax.data import teacher

TASKS = (('basic_arithmetic', 1), ('gcd', 1))


class CorruptedTest(parameterized.TestCase):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.options = dict(data_dir=cls.folder, tasks=TASKS, train_size=30,
                       held_out=6, seed=0)
    cls.parts = corrupted.open_pairs(**cls.options)
    problems = sources.open_source(
        'reasoning_gym', data_dir=cls.folder, split='train', tasks=TASKS,
        train_size=30, validation_size=0, test_size=6, seed=0)
    cls.problems = {problem['id']: problem for problem in problems}

  def test_right_against_wrong_by_one_number(self):
    self.assertLen(self.parts.train, 60)
    for record in self.parts.train:
      problem = self.problems[record['id']]
      self.assertTrue(teacher.check(problem, record['chosen']).valid)
      self.assertFalse(teacher.check(problem, record['rejected']).valid)
      digits = lambda text: corrupted._NUMBER.split(text)
      self.assertEqual(digits(record['chosen']), digits(record['rejected']))
      self.assertGreater(difflib.SequenceMatcher(
          None, record['chosen'], record['rejected']).ratio(), 0.7)

  def test_parts_share_neither_prompts_nor_ids(self):
    for key in (preference.prompt_key, lambda record: record['id']):
      sets = [{key(record) for record in part}
              for part in (self.parts.train, self.parts.held_out)]
      self.assertEmpty(sets[0] & sets[1])
    self.assertLen(self.parts.held_out, 12)

  def test_the_seed_alone_decides(self):
    again = corrupted.open_pairs(**self.options)
    self.assertEqual(again, self.parts)

  def test_a_solution_that_nothing_spoils_is_refused(self):
    problem = next(iter(self.problems.values()))
    with self.assertRaisesRegex(ValueError, 'no change makes it wrong'):
      corrupted.corrupt(problem, 'no numbers here', 0)


if __name__ == '__main__':
  absltest.main()
