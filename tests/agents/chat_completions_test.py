"""Replies of servers, whole and broken."""
from absl.testing import absltest
from absl.testing import parameterized

from rljax.agents import chat_completions
from rljax.agents import language_model

Request = language_model.Request


def ask(content, **options):
  return Request(({'role': 'user', 'content': content},), **options)


class FormatTest(parameterized.TestCase):

  def reply(self, **changes):
    choice = dict(index=0, finish_reason='stop', message={'content': 'x'})
    usage = dict(prompt_tokens=1, completion_tokens=1)
    return {'choices': [choice | changes.pop('choice', {})],
            'usage': usage | changes.pop('usage', {})}

  @parameterized.parameters('length', 'content_filter')
  def test_a_response_cut_short_may_have_no_text(self, reason):
    found = chat_completions.parse(self.reply(choice=dict(
        finish_reason=reason, message={'content': None})), ask('hi'))
    self.assertEqual(found.responses,
                     (language_model.Response('', reason),))

  @parameterized.parameters(
      (dict(choice=dict(index=1)), {}, r'index 0\.\.0.*got \[1\]'),
      (dict(), dict(num_samples=2), r'index 0\.\.1'),
      (dict(choice=dict(finish_reason='tool_calls')), {}, 'tool_calls'),
      (dict(choice=dict(message={})), {}, 'content to be of type str'),
      (dict(choice=dict(message={'content': ['x']})), {}, 'type str'),
      (dict(usage=dict(prompt_tokens=-1)), {}, 'prompt_tokens >= 0'),
      (dict(usage=dict(prompt_tokens=True)), {}, 'type int'),
      (dict(), dict(logprobs=True), 'logprobs to be of type dict'),
      (dict(choice=dict(logprobs={'content': [{'logprob': 'x'}]})),
       dict(logprobs=True), r'content\[0\].logprob to be of type float'),
      (dict(choice=dict(logprobs={'content': [{'logprob': float('nan')}]})),
       dict(logprobs=True), r'content\[0\].logprob to be of type float'))
  def test_what_is_not_as_it_must_be_is_named(self, changes, options, message):
    with self.assertRaisesRegex(language_model.LanguageModelError,
                                message) as at:
      chat_completions.parse(self.reply(**changes), ask('hi', **options))
    self.assertEqual(at.exception.reason, 'malformed')


if __name__ == '__main__':
  absltest.main()
