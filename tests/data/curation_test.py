"""Each rule on problems that it must drop, and beside them some it must not."""
import math

from absl.testing import absltest
from absl.testing import parameterized

from rljax import rewards
from rljax.data import curation

RULES = curation.Rules(student='s', teacher='t')
LONG = ('A farmer walks {} kilometres to the market in the morning and comes '
        'home by bus in the evening, which takes a third of the time.')


def problem(prompt='What is 2 + 2?', answer='4', **more):
  return curation.parse(dict(prompt=prompt, answer=answer, **more), 'here')


class CleanTest(parameterized.TestCase):

  @parameterized.parameters(
      (dict(prompt=' '), 'no question'), (dict(answer=''), 'no answer'),
      (dict(prompt='What \ufffd is 2?'), 'invalid characters'),
      (dict(prompt='What\x00 is 2?'), 'invalid characters'),
      (dict(prompt='See ![](a.png). How many?'), 'needs an image'),
      (dict(prompt='In the figure below, what is x?'), 'needs an image'),
      (dict(prompt='(a) Find x. (b) Find y.'), 'several parts'),
      (dict(prompt='Part A: x? Part B: y?'), 'several parts'),
      (dict(prompt='Which?\nA. one\nB. two'), 'multiple choice'),
      (dict(options=['a', 'b'], answer='A'), 'multiple choice'),
      (dict(answer='Yes.'), 'yes or no'),
      (dict(answer=r'\text{false}'), 'yes or no'),
      (dict(answer='1 or 2'), 'several answers'),
      (dict(prompt='go on and on ' * 20), 'repetition'),
      (dict(prompt=r'What is \frac{1}{2'), 'truncated or broken LaTeX'),
      (dict(prompt=r'\begin{align} x = 1. Find x.'),
       'truncated or broken LaTeX'),
      (dict(prompt='Find the value of'
                   ' the sum,'), 'truncated or broken LaTeX'))
  def test_is_dropped(self, changes, reason):
    self.assertEqual(curation.unclean(problem(**changes), RULES), reason)

  @parameterized.parameters(
      dict(), dict(prompt='Let f(a) = 2a. What is f(3)?', answer='6'),
      dict(prompt=r'Simplify $\frac{1}{2} + \{3\}$.', answer=r'\frac{7}{2}'),
      dict(prompt='Berechne die Größe: 3 m × 2 m', answer='6 m²'),
      dict(prompt='Yes or no is not asked. How many letters has "no"?',
           answer='2'),
      dict(prompt='Step (a) is done. How many remain?', answer='3'))
  def test_stays(self, **changes):
    self.assertIsNone(curation.unclean(problem(**changes), RULES))

  @parameterized.parameters(
      ([], 'got \\[\\]'), (dict(question='x'), 'fields among'),
      (dict(prompt=3), 'object of texts'),
      (dict(prompt='a', attempts=['x']), "'attempts'"),
      (dict(prompt='a', attempts={'s': 'x'}), "'attempts'"))
  def test_lines_that_are_no_problems_are_refused(self, row, message):
    with self.assertRaisesRegex(ValueError, message):
      curation.parse(row, 'f, line 3')

  def test_an_id_follows_from_the_text(self):
    self.assertEqual(problem()['id'], problem()['id'])
    self.assertNotEqual(problem()['id'], problem(answer='5')['id'])
    self.assertEqual(problem(id='mine')['id'], 'mine')


class DuplicatesTest(parameterized.TestCase):

  def test_normalized_text_is_blind_to_typography(self):
    self.assertEqual(curation.normalized('What  is ２+2 ?'),
                     curation.normalized('what is 2 + 2?'))
    self.assertNotEqual(curation.normalized('2 + 2'),
                        curation.normalized('2 - 2'))

  def test_equal_ids_are_told_apart_by_the_text(self):
    one, other = problem('one', id='1'), problem('other', id='1')
    found = curation.own_ids([(one, None), (other, None), (one, 'duplicate')])
    first, second, dropped = (p['id'] for p, _ in found)
    self.assertStartsWith(first, '1-')
    self.assertNotEqual(first, second)
    self.assertEqual(dropped, '1')
    alone = [(one, None), (other, 'duplicate')]
    self.assertEqual(curation.own_ids(alone), alone)

  def test_near_duplicates_by_hand(self):
    self.assertEqual(curation.jaccard(frozenset('abc'), frozenset('bcd')), 0.5)
    some = [problem(LONG.format(n), id=name) for name, n in (
        ('c', 'nine'), ('a', 'eight'), ('b', 'seven'))]
    other = problem('How many primes are there below fifty?', id='d')
    self.assertEqual(curation.near_duplicates([*some, other], RULES),
                     [('b', 'a'), ('c', 'a')])
    self.assertEqual(curation.near_duplicates(
        some, curation.Rules(similarity=1.0)), [])

  def test_candidates_are_found_as_often_as_the_bands_promise(self):
    rules = curation.Rules(bands=8, band_rows=4)
    hits, s = 0, []
    for i in range(60):
      words = [f'w{i}x{j}' for j in range(40)]
      a, b = ' '.join(words), ' '.join(words[:30] + [f'v{i}{j}' for j in
                                                     range(10)])
      s.append(curation.jaccard(*(curation.shingles(x, rules.shingle)
                                  for x in (a, b))))
      hits += bool(set(curation.band_keys(a, rules))
                   & set(curation.band_keys(b, rules)))
    p = sum(1 - (1 - x**4)**8 for x in s) / 60
    self.assertAlmostEqual(hits / 60, p, delta=4 * math.sqrt(p * (1 - p) / 60))
    self.assertNotIn(p, (0, 1))


class ContaminationTest(parameterized.TestCase):

  INDEX = curation.benchmark_index(
      {'exam': [LONG.format('ten'), 'What is the last digit of 7 to the 7?',
                'Find x.']}, curation.Rules())

  @parameterized.parameters(
      (LONG.format('twenty'), 'in benchmark exam'),
      ('Hard one. what is THE last digit of 7 to the 7 ?', 'in benchmark exam'),
      ('Find x.', 'in benchmark exam'),
      ('Find x. It is the number of legs of two dogs.', None),
      ('A farmer walks to the market.', None))
  def test_words_in_common(self, prompt, reason):
    self.assertEqual(curation.contaminated(
        problem(prompt), self.INDEX, curation.Rules()), reason)


class AnswersTest(parameterized.TestCase):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.scorer = rewards.create(num_workers=1)
    cls.addClassCleanup(cls.scorer.close)

  def grade(self, **changes):
    return curation.graded(problem(**changes), self.scorer)

  def test_pass_rates_are_those_of_the_verifier_of_training(self):
    found, reason = self.grade(answer=r'\frac{1}{2}', attempts={
        's': [r'\boxed{0.5}', r'\boxed{2}', 'no box', r'\boxed{1/2}'],
        't': [r'\boxed{\frac12}'], 'none': []})
    self.assertEqual((found['pass_rates'], reason), (dict(s=0.5, t=1.0), None))

  def test_what_nobody_finds_is_dropped(self):
    _, reason = self.grade(attempts={'s': [r'\boxed{5}'], 't': ['x']})
    self.assertEqual(reason, 'nobody finds the answer')
    self.assertIsNone(self.grade()[1])  # nobody has tried

  def test_an_answer_that_its_verifier_rejects_is_dropped(self):
    self.assertEqual(self.grade(answer=r'\frac{'.strip())[1],
                     'its verifier rejects the answer')

  def test_an_unknown_verifier_is_refused(self):
    with self.assertRaisesRegex(ValueError, "got 'maths'"):
      self.grade(verifier='maths')

  @parameterized.parameters(
      (1.0, 1.0, 'the student always solves it'),
      (0.0, 0.0, 'neither student nor teacher solves it'),
      (0.0, 0.25, None), (0.5, 0.0, None), (0.9, 1.0, None))
  def test_both_ends_are_dropped(self, student, teacher, reason):
    rated = problem() | dict(pass_rates=dict(s=student, t=teacher))
    self.assertEqual(curation.too_easy_or_hard(rated, RULES), reason)
    self.assertIsNone(curation.too_easy_or_hard(rated, curation.Rules()))

  def test_missing_attempts_are_an_error(self):
    with self.assertRaisesRegex(ValueError, "attempts of .'t'., got.*'s'"):
      curation.too_easy_or_hard(problem() | dict(pass_rates=dict(s=1.0)), RULES)

  def test_difficulty_is_the_students(self):
    rated = problem(domain='math') | dict(pass_rates=dict(s=0.25, t=1.0))
    found = curation.annotation(rated, RULES)
    self.assertEqual((found['difficulty'], found['domain']), (0.75, 'math'))
    self.assertIsNone(curation.annotation(rated, curation.Rules())[
        'difficulty'])


class RulesTest(parameterized.TestCase):

  @parameterized.parameters(
      (dict(similarity=0.0), 'similarity'), (dict(ngram=0), 'ngram >= 1'),
      (dict(student='a'), 'both a student and a teacher'))
  def test_refused(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      curation.Rules(**changes)


if __name__ == '__main__':
  absltest.main()
