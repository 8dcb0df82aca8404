"""The format score: closed box, balanced tags, one answer."""
from absl.testing import absltest
from absl.testing import parameterized

from rljax.rewards import format as response_format


class FormatTest(parameterized.TestCase):

  @parameterized.parameters(
      (r'\boxed{5}', 1.0),
      (r'<think>a</think>\boxed{5}', 1.0),
      (r'<think>\boxed{4}</think>\boxed{5}', 1.0),  # thinking may try things
      (r'\boxed{5} and again \boxed{ 5 }', 1.0),
      (r'\boxed{5} or \boxed{6}', 1 / 2),
      (r'\boxed{5} or \boxed{6} or \boxed{7}', 1 / 3),
      ('5', 0.0),
      (r'\boxed{}', 0.0),
      (r'\boxed{5', 0.0),
      (r'<think>\boxed{5}', 0.0),
      (r'<think><think>a</think></think>\boxed{5}', 0.0),
      (r'a</think>\boxed{5}', 0.0),
      ('', 0.0),
  )
  def test_score(self, text, expected):
    self.assertAlmostEqual(response_format.score(text), expected)


if __name__ == '__main__':
  absltest.main()
