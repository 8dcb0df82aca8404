"""Extraction finds the last box after the thinking, and never raises."""
from absl.testing import absltest
from absl.testing import parameterized
import hypothesis
from hypothesis import strategies

from rljax.rewards import extraction
from rljax.rewards import format as response_format

FRAGMENTS = [r'\boxed{', r'\fbox {', '{', '}', '\\', r'\{', r'\\', '<think>',
             '</think>', '$', '^', '9', 'a', '\n', '\x00', '\ud800', 'é']


class ExtractionTest(parameterized.TestCase):

  @parameterized.parameters(
      (r'\boxed{5}', '5'),
      (r'\boxed{ 5 }', '5'),
      (r'\boxed{a} \boxed{b}', 'b'),
      (r'\boxed{\frac{1}{2}}', r'\frac{1}{2}'),
      (r'\boxed{\{1\}}', r'\{1\}'),
      (r'\boxed{\\}', r'\\'),           # an escaped backslash, then the end
      (r'\boxed{\boxed{5}}', '5'),
      (r'\boxed{5}}}', '5'),
      (r'{{\boxed{5}', '5'),            # open braces around do not matter
      (r'\boxed{1 \boxed{5}', '5'),     # the open box is the earlier one
      (r'\boxed{4} \boxed{5', None),
      (r'\boxed{5 \} ', None),
      (r'\boxed{}', ''),
      (r'\boxedx{5}', None),
      ('5', None),
      ('', None),
  )
  def test_last_boxed(self, text, expected):
    self.assertEqual(extraction.last_boxed(text), expected)

  @parameterized.parameters(
      ('a', 'a'), ('<think>a', None), ('<think>a</think>b', 'b'),
      ('a</think>b', 'b'), ('</think>a</think>b', 'b'),
      ('<think>a</think>b<think>c', None),
  )
  def test_after_think(self, text, expected):
    self.assertEqual(extraction.after_think(text), expected)

  @hypothesis.settings(max_examples=200, deadline=None)
  @hypothesis.given(strategies.one_of(
      strategies.text(),
      strategies.lists(strategies.sampled_from(FRAGMENTS)).map(''.join)))
  def test_never_raises_on_arbitrary_text(self, text):
    extraction.answer(text)
    extraction.normalize(text)
    extraction.screen(text)
    self.assertBetween(response_format.score(text), 0.0, 1.0)

  @hypothesis.settings(max_examples=100, deadline=None)
  @hypothesis.given(
      strategies.text(alphabet=strategies.characters(
          exclude_characters='{}\\<>', exclude_categories=['Cs'])),
      strategies.text())
  def test_finds_any_content_without_braces_after_any_text(self, content, head):
    text = head.replace('\\', '') + rf'</think>\boxed{{{content}}}'
    self.assertEqual(extraction.answer(text), content.strip())

  def test_time_is_linear_in_hostile_text(self):
    # 300,000 unclosed boxes: a search that restarts at each would take hours.
    self.assertIsNone(extraction.last_boxed(r'\boxed{' * 300_000))
    self.assertEqual(
        len(extraction.boxes(r'\boxed{' * 50_000 + '}' * 50_000)), 1)

  @parameterized.parameters(
      '9^9^9', '9**9**9', '9^{9^9}', '9^{9^{9}}', '2^{(3^{4})}', '9 ^ {9 ^ 9}',
      '10^{123456}', '2**999999', '2^{-1000000}', '7' * 1001, '(' * 2001)
  def test_screen_refuses(self, text):
    self.assertIsNotNone(extraction.screen(text))

  @parameterized.parameters(
      '2^{2023}-1', 'x^2+y^2', '3^{2}5^{2}', '2^3*3^2', '2**3*3**2', 'x^2y^2',
      'e^{-x^2}', '(1+2)^2', '(x^2)^3', '10^{-3}', '7' * 1000, r'\frac{1}{2}')
  def test_screen_lets_pass(self, text):
    self.assertIsNone(extraction.screen(text))

  @parameterized.parameters(
      ('$5$', '5'), (r'\(5\)', '5'), ('5.', '5'), (' a  b ', 'a b'),
      (r'\dfrac12', r'\frac12'), (r'\left(1,2\right)', '(1,2)'),
      (r'\leftarrow', r'\leftarrow'), ('$5$ or $6$', '$5$ or $6$'),
      ('$', '$'), ('$$', '$$'))
  def test_normalize(self, text, expected):
    self.assertEqual(extraction.normalize(text), expected)


if __name__ == '__main__':
  absltest.main()
