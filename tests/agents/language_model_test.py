"""What can be asked."""
from absl.testing import absltest
from absl.testing import parameterized

from rljax.agents import language_model

Request = language_model.Request


def ask(content, **options):
  return Request(({'role': 'user', 'content': content},), **options)


class RequestTest(parameterized.TestCase):

  @parameterized.parameters(
      (dict(messages=[]), 'at least one message'),
      (dict(messages=[{'role': 'user'}]), "{'role': 'str'} in message 0"),
      (dict(messages=[{'role': 'user', 'content': None}]), 'NoneType'),
      (dict(num_samples=0), 'num_samples >= 1'),
      (dict(temperature=-0.1), 'temperature >= 0'),
      (dict(temperature=float('nan')), 'temperature >= 0'),
      (dict(top_p=0.0), 'top_p in'),
      (dict(max_tokens=0), 'max_tokens >= 1'),
      (dict(stop='end'), r"Write \('end',\)"),
      (dict(stop=('',)), 'stop strings with characters'),
      (dict(seed=-1), 'seed in'))
  def test_what_cannot_be_asked(self, options, message):
    with self.assertRaisesRegex(ValueError, message):
      Request(**dict(messages=ask('a').messages) | options)

  def test_the_first_stop_string_in_the_text_ends_it(self):
    self.assertEqual(language_model.cut_at_stop('a-b+c', ('+', '-')),
                     ('a', True))
    self.assertEqual(language_model.cut_at_stop('a-b', ('x',)), ('a-b', False))


if __name__ == '__main__':
  absltest.main()
