"""Tests of conversations as token ids and of their loss masks."""
from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from rljax.data import chat
from rljax.data import tokenizer as tokenizer_lib

TALK = [
    {'role': 'user', 'content': 'a'},
    {'role': 'assistant', 'content': 'bc'},
    {'role': 'user', 'content': 'd'},
    {'role': 'assistant', 'content': ''},
]


class ByteChatTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.tokenizer = tokenizer_lib.load('byte')

  @parameterized.parameters(
      # bos usr  a  eos asst b   c  eos usr d  eos asst eos
      (('assistant',), [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1]),
      (('user',), [0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0]),
      (('user', 'assistant'), [0, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1]),
  )
  def test_targets_are_content_and_its_end_token(self, roles, expected):
    tokens, mask = chat.training_example(self.tokenizer, TALK, roles)
    np.testing.assert_array_equal(mask, np.array(expected, bool))
    np.testing.assert_array_equal(
        tokens, [257, 260, 97, 258, 261, 98, 99, 258, 260, 100, 258, 261, 258])
    self.assertEqual((tokens.dtype, mask.dtype), (np.int32, bool))

  def test_the_prompt_is_what_comes_before_the_targets(self):
    # What the model is trained to continue is what it is asked to continue.
    tokens, mask = chat.training_example(self.tokenizer, [
        {'role': 'system', 'content': 's'}, *TALK[:2]])
    prompt = chat.prompt_tokens(self.tokenizer, 'a', system='s')
    first = int(np.argmax(mask))
    np.testing.assert_array_equal(prompt, tokens[:first])
    self.assertTrue(mask[first:].all())
    self.assertEqual(prompt.dtype, np.int32)

  def test_an_example_without_targets_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'teaches nothing'):
      chat.training_example(self.tokenizer, TALK[:1])

  @parameterized.parameters('content', 'role')
  def test_a_message_with_a_missing_field_is_named(self, field):
    broken = [TALK[0], {k: v for k, v in TALK[1].items() if k != field}]
    with self.assertRaisesRegex(ValueError, 'message 1'):
      chat.render(self.tokenizer, broken, False)


if __name__ == '__main__':
  absltest.main()
