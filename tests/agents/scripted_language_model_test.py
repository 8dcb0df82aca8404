"""The script is kept to the letter."""
from absl.testing import absltest
from absl.testing import parameterized

from rljax.agents import language_model
from rljax.agents import scripted_language_model

Request = language_model.Request


def ask(content, **options):
  return Request(({'role': 'user', 'content': content},), **options)


class ScriptTest(parameterized.TestCase):

  def test_samples_are_those_of_the_script(self):
    model = scripted_language_model.make({'hi': ['one', 'two'], 'ho': ['3']})
    seen = {}
    replies = model([ask('ho'), ask('hi', num_samples=2)],
                    on_reply=seen.__setitem__)
    texts = [[r.text for r in reply.responses] for reply in replies]
    self.assertEqual(texts, [['3'], ['one', 'two']])
    self.assertEqual((replies[1].prompt_tokens, replies[1].response_tokens),
                     (2, 6))
    self.assertEqual(seen, dict(enumerate(replies)))
    self.assertEqual(model([ask('ho')]), replies[:1])

  @parameterized.parameters(
      (dict(), 'a-b', 'stop'), (dict(stop=('-',)), 'a', 'stop'),
      (dict(max_tokens=2), 'a-', 'length'), (dict(max_tokens=3), 'a-b', 'stop'),
      (dict(max_tokens=2, stop=('-',)), 'a', 'stop'),
      (dict(max_tokens=1, stop=('-',)), 'a', 'length'))
  def test_limits_are_kept(self, options, text, reason):
    model = scripted_language_model.make({'hi': ['a-b']})
    self.assertEqual(model([ask('hi', **options)])[0].responses,
                     (language_model.Response(text, reason),))

  def test_the_whole_conversation_may_be_the_key(self):
    model = scripted_language_model.make(
        {'a|b': ['c']}, key=lambda ms: '|'.join(m['content'] for m in ms))
    turns = [{'role': role, 'content': text}
             for role, text in (('user', 'a'), ('assistant', 'b'))]
    self.assertEqual(model([Request(turns)])[0].responses[0].text, 'c')

  @parameterized.parameters(
      (ask('hello'), r"script, \['hi'\], got 'hello' in request 1"),
      (ask('hi', num_samples=2), "at most 1 samples of 'hi'.*got 2"),
      (ask('hi', logprobs=True), 'no probabilities'))
  def test_the_unexpected_is_an_error(self, request, message):
    model = scripted_language_model.make({'hi': ['one']})
    with self.assertRaisesRegex(ValueError, message):
      model([ask('hi'), request])

  def test_a_text_in_place_of_samples_is_an_error(self):
    with self.assertRaisesRegex(ValueError, 'list of samples'):
      scripted_language_model.make({'hi': 'one'})


if __name__ == '__main__':
  absltest.main()
