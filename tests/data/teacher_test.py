r"""Tests of the teacher's solutions and of the judge of their steps."""
import json
import re

from absl.testing import absltest
from absl.testing import parameterized
import reasoning_gym

from rljax.data import teacher
from rljax.data.builders.reasoning_gym import curriculum
from rljax.data.builders.reasoning_gym import problems
from rljax.data.teachers import steps

LEVELS = [(family, difficulty)
          for family, entry in curriculum.FAMILIES.items()
          for difficulty in range(1, len(entry.levels) + 1)]


def some_records(family, difficulty, count=12):
  return problems.make([(family, difficulty)], dict(
      train=count, validation=0, test=0), seed=7)['train']


def record_of(family, answer, prompt='', **facts):
  return {'id': 'x', 'family': family, 'answer': answer, 'prompt': prompt,
          'metadata': json.dumps(facts)}


SUM = record_of('chain_sum', '14', expression='7 - 3 + 10')
WORD = record_of('spell_backward', 'nus', word='sun')
TWELVE_EIGHT = record_of('lcm', '24', numbers=[12, 8])
EQUATION = record_of('simple_equations', '5', equation='3*x + 5 = 20',
                     variable='x')
SEQUENCE = record_of('number_sequence', '11', rule='add 3',
                     sequence=[2, 5, 8, 11])


class TeacherTest(parameterized.TestCase):

  @parameterized.parameters(*LEVELS)
  def test_solutions_are_valid_and_graded_right(self, family, difficulty):
    score = reasoning_gym.get_score_answer_fn(family)
    for record in some_records(family, difficulty):
      entry = {'answer': record['answer'],
               'metadata': json.loads(record['metadata'])}
      for seed in range(6):
        solution = teacher.solve(record, seed)
        report = teacher.check(record, solution)
        self.assertTrue(report.valid, (record, solution, report))
        self.assertEqual(score(report.answer, entry), 1.0)
        self.assertEndsWith(solution, f'\\boxed{{{record["answer"]}}}')

  @parameterized.parameters(*LEVELS)
  def test_any_changed_digit_is_found(self, family, difficulty):
    tried = 0
    for record in some_records(family, difficulty, count=6):
      for seed in range(4):
        solution = teacher.solve(record, seed)
        for found in re.finditer(r'\d', solution):
          other = str((int(found.group()) + 1 + seed) % 10)
          changed = solution[:found.start()] + other + solution[found.end():]
          report = teacher.check(record, changed)
          self.assertFalse(report.valid, (record, solution, changed))
          tried += 1
    self.assertGreater(tried, 0)

  @parameterized.parameters(*LEVELS)
  def test_any_missing_step_is_found(self, family, difficulty):
    for record in some_records(family, difficulty, count=6):
      solution = teacher.solve(record, 0)
      pieces = re.split(r'(?<=[;,.] )|(?<=\n)', solution)
      for i in range(len(pieces) - 1):
        # What only says something again may go: a trial, a count that is named.
        variable = json.loads(record['metadata']).get('variable')
        is_trial = variable and not re.search(rf'{variable}=', pieces[i])
        if is_trial or (family == 'aiw' and ':' in pieces[i]):
          continue
        without = ''.join(pieces[:i] + pieces[i + 1:])
        self.assertFalse(teacher.check(record, without).valid,
                         (record, solution, without))

  @parameterized.parameters('letter', 'order')
  def test_misspelt_words_are_found(self, change):
    for record in some_records('spell_backward', 2):
      word = json.loads(record['metadata'])['word']
      for seed in range(4):
        solution = teacher.solve(record, seed)
        head, tail = solution.rsplit('\\boxed', 1)
        if change == 'letter':
          head = head.replace(word[-1], 'Q', 1)
        else:
          tail = '{' + word + '}'
        same = word == word[::-1] and change == 'order'
        self.assertEqual(teacher.check(record, head + '\\boxed' + tail).valid,
                         same)

  def test_another_seed_gives_another_text(self):
    texts = {teacher.solve(SUM, seed) for seed in range(40)}
    self.assertGreater(len(texts), 20)
    self.assertEqual(teacher.solve(SUM, 3), teacher.solve(SUM, 3))

  def test_an_unknown_family_is_named(self):
    with self.assertRaisesRegex(ValueError, "got 'gsm8k'"):
      teacher.solve(record_of('gsm8k', '1'), 0)


class JudgeTest(parameterized.TestCase):
  """By hand. `bad` is the first wrong step; None means the text is valid."""

  def judge(self, record, text, bad):
    report = teacher.check(record, text)
    self.assertEqual(report.first_bad_step, bad, report)
    self.assertEqual(report.valid, bad is None)

  @parameterized.parameters(
      (r'7-3=4; 4+10=14; \boxed{14}', None),
      (r'so -3+10=7. then 7+7=14. thus \boxed{14}.', None),  # any order
      (r'10+7=17, 17-3=14, \boxed{14}', None),  # not one of the teacher's
      (r'7-3=5; 4+10=14; \boxed{14}', 0),   # wrong, though the answer is right
      (r'7-3=4; 4+10=15; \boxed{14}', 1),
      (r'7-3=4; 7+10=17; \boxed{14}', 1),   # uses the 7 twice
      (r'7-3=4; \boxed{14}', 1),            # stops early
      (r'\boxed{14}', 0),
      (r'7-3=4; 4+10=14; \boxed{15}', 2),   # concludes something else
      (r'7-3=4; 4+10=14', 1),  # the last line must be the conclusion
      (r'7-3=4; hm; 4+10=14; \boxed{14}', 1),
      (r'7-3=4; 4+10=14; 14+0=14; \boxed{14}', 2),  # 0 is not a term
      (r'7-3=04; 4+10=14; \boxed{14}', 0),
      ('', 0),
  )
  def test_sums(self, text, bad):
    self.judge(SUM, text, bad)

  @parameterized.parameters(
      (r's-u-n; n-u-s; \boxed{nus}', None),
      (r'1s2u3n; 3n2u1s; \boxed{nus}', None),
      (r'n; nu; nus; \boxed{nus}', None),
      (r's-u-n; n-s-u; \boxed{nus}', 1),
      (r'1s2u3n; 3n1u2s; \boxed{nus}', 1),
      (r'n; nus; \boxed{nus}', 1),
      (r's-u-n; n-u-s; \boxed{sun}', 2),
  )
  def test_words(self, text, bad):
    self.judge(WORD, text, bad)

  @parameterized.parameters(
      (r'12=4*3; 8=4*2; 4*3*2=24; \boxed{24}', None),
      (r'12%8=4; 24%8=0; \boxed{24}', None),
      (r'8%12=8; 16%12=4; 24%12=0; \boxed{24}', None),
      (r'12=2*6; 8=2*4; 2*6*4=48; \boxed{48}', 2),  # not the least
      (r'12%8=4; 36%8=4; \boxed{24}', 1),           # leaves one out
      (r'12=4*3; 8=2*4; 4*3*2=24; \boxed{24}', 1),  # two common factors
  )
  def test_common_multiples(self, text, bad):
    self.judge(TWELVE_EIGHT, text, bad)

  @parameterized.parameters(
      (r'3*x=20-5=15; x=15/3=5; \boxed{5}', None),
      (r'3*x=20-5=15; x=15/3=5; 3*5+5=20; \boxed{5}', None),
      (r'3*x=20+5=15; x=15/3=5; \boxed{5}', 0),
      (r'2*x=20-5=15; x=15/3=5; \boxed{5}', 0),
      (r'x=15/3=5; \boxed{5}', 0),       # the constant was not moved
      (r'3*x=20-5=15; \boxed{5}', 1),
      (r'3*x=20-5=15; x=15/3=5; 3*4+8=20; \boxed{5}', 2),
  )
  def test_equations(self, text, bad):
    self.judge(EQUATION, text, bad)

  @parameterized.parameters(
      (r'rule:+3; 8+3=11; \boxed{11}', None),
      (r'5-2=3; 8-5=3; 8+3=11; \boxed{11}', None),
      (r'rule:+2; 8+2=10; \boxed{10}', 0),   # does not give the terms shown
      (r'rule:+3; 8+4=12; \boxed{11}', 1),
      (r'8-5=3; 8+3=11; \boxed{11}', 0),     # a difference left out
      (r'rule:^99999999; \boxed{11}', 0),    # is not worked out
  )
  def test_sequences(self, text, bad):
    self.judge(SEQUENCE, text, bad)

  def test_long_numbers_are_refused_and_not_computed(self):
    self.judge(SUM, '7-3=4; 4+' + '9' * 5000 + r'=14; \boxed{14}', 1)


class StepsTest(parameterized.TestCase):

  @parameterized.parameters(
      ('2+3*4', 14), ('-3-4', -7), ('5--3', 8), ('20/3*3', 20), ('0', 0),
      ('2*-3', -6), ('12/4/3', 1))
  def test_evaluates_with_precedence(self, text, value):
    self.assertEqual(steps.evaluate(text), value)

  @parameterized.parameters('', '2+', '+2', '02', '2**3', '1/0', 'x', '(1)',
                            '-0', '1 + 1')
  def test_refuses_what_is_not_an_expression(self, text):
    self.assertIsNone(steps.evaluate(text))


if __name__ == '__main__':
  absltest.main()
