"""Tests of the byte tokenizer, and of asking for one that is not there."""
from absl.testing import absltest
from absl.testing import parameterized
import hypothesis
from hypothesis import strategies

from rljax.data import tokenizer as tokenizer_lib


class ByteTokenizerTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.tokenizer = tokenizer_lib.load('byte')

  @hypothesis.settings(max_examples=50, deadline=None)
  @hypothesis.given(strategies.text())
  def test_any_text_survives_the_round_trip(self, text):
    tokenizer = tokenizer_lib.load('byte')
    ids = tokenizer.encode(text)
    self.assertEqual(tokenizer.decode(ids), text)
    self.assertEqual(bytes(ids), text.encode('utf-8'))

  def test_ids_are_fixed(self):
    # A checkpoint depends on them: 'A' is byte 65, specials start at 256.
    ids = self.tokenizer.apply_chat_template(
        [{'role': 'system', 'content': 'A'}, {'role': 'user', 'content': 'é'}],
        True)
    self.assertEqual(ids, [257, 259, 65, 258, 260, 0xc3, 0xa9, 258, 261])
    self.assertEqual(self.tokenizer.vocab_size, 272)
    self.assertEqual(self.tokenizer.pad_id, 256)
    self.assertEqual(self.tokenizer.stop_ids, (258,))

  def test_decode_skips_specials_and_marks_broken_bytes(self):
    self.assertEqual(self.tokenizer.decode([261, 65, 256, 66, 258, 271]), 'AB')
    self.assertEqual(self.tokenizer.decode([0xc3, 65]), '\ufffdA')

  def test_no_text_makes_a_special_token(self):
    text = '<eos></s><|im_end|>' + ''.join(map(chr, range(300)))
    self.assertLess(max(self.tokenizer.encode(text)), 256)

  @parameterized.parameters(272, -1)
  def test_ids_outside_the_vocabulary_are_refused(self, token):
    with self.assertRaisesRegex(ValueError, r'in \[0, 272\)'):
      self.tokenizer.decode([65, token])

  def test_an_unknown_role_is_named(self):
    with self.assertRaisesRegex(ValueError, "got 'human'"):
      self.tokenizer.apply_chat_template(
          [{'role': 'human', 'content': 'x'}], False)


if __name__ == '__main__':
  absltest.main()
