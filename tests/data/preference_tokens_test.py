"""Pairs as tokens: the boundary, the stop token, and symmetrical cuts."""
import dataclasses
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from rljax.data import preference_tokens as tokens_lib
from rljax.data import tokenizer as tokenizers
from tests.data import huggingface_test as huggingface

BYTE = tokenizers.ByteTokenizer()
ASK = [{'role': 'user', 'content': 'Hi'}]
WIDE = tokens_lib.Limits(100, 100, 400)


def record(chosen='Yes.', rejected='No.', prompt=ASK, name='r'):
  return {'id': name, 'prompt': prompt, 'chosen': chosen, 'rejected': rejected,
          'margin': None, 'domain': 'd', 'file_line': ''}


class BoundaryTest(parameterized.TestCase):

  def hugging_face(self, template, **kwargs):
    folder = self.enterContext(tempfile.TemporaryDirectory())
    huggingface.save_bpe(folder, template, **kwargs)
    return tokenizers.load(folder)

  def test_the_tokens_of_a_pair_by_hand(self):
    pair = tokens_lib.tokenize(BYTE, record())
    # <bos> <user> H i <eos> <assistant>
    self.assertEqual(pair.prompt.tolist(), [257, 260, 72, 105, 258, 261])
    self.assertEqual(pair.chosen.tolist(), [*b'Yes.', 258])
    self.assertEqual(pair.rejected.tolist(), [*b'No.', 258])
    self.assertEqual(pair.prompt.dtype, np.int32)
    self.assertTrue(pair.chosen_mask.all() and pair.rejected_mask.all())

  def test_a_step_gets_no_stop_token(self):
    pair = tokens_lib.tokenize(BYTE, record(), ends=False)
    self.assertEqual(bytes(pair.chosen.tolist()), b'Yes.')

  def test_a_side_that_was_cut_off_gets_no_stop_token(self):
    pair = tokens_lib.tokenize(BYTE, record() | {'rejected_ends': False})
    self.assertEqual(pair.chosen.tolist(), [*b'Yes.', 258])
    self.assertEqual(bytes(pair.rejected.tolist()), b'No.')

  @parameterized.parameters(('Yes.', ''), ('', 'Yes.'))
  def test_a_label_has_tokens_on_its_side_alone(self, *texts):
    (pair,), counts = tokens_lib.tokenize_all(BYTE, [record(*texts)], WIDE)
    self.assertEqual(counts['pairs'], 1)
    self.assertEqual(pair.prompt.tolist(), [257, 260, 72, 105, 258, 261])
    for text, side in zip(texts, ('chosen', 'rejected'), strict=True):
      tokens = [*text.encode(), 258] if text else []
      self.assertEqual(getattr(pair, side).tolist(), tokens)
      self.assertLen(getattr(pair, f'{side}_mask'), len(tokens))
    tight = dataclasses.replace(WIDE, max_pair_length=6 + 1 + 3)
    (cut,), _ = tokens_lib.tokenize_all(BYTE, [record(*texts)], tight)
    self.assertEqual(len(cut.chosen) + len(cut.rejected), 3)

  def test_the_steps_before_a_step_are_of_the_prompt(self):
    step = record('ok', 'no') | {'steps': 'a=1;'}
    pair = tokens_lib.tokenize(BYTE, step, ends=False)
    # <bos> <user> H i <eos> <assistant> a = 1 ;, and no <eos> behind either.
    self.assertEqual(pair.prompt.tolist(),
                     [257, 260, 72, 105, 258, 261, *b'a=1;'])
    self.assertEqual(pair.chosen.tolist(), [*b'ok'])
    self.assertEqual(pair.rejected.tolist(), [*b'no'])
    self.assertEqual(pair.prompt.dtype, np.int32)
    first = tokens_lib.tokenize(BYTE, step | {'steps': ''}, ends=False)
    self.assertEqual(first.prompt.tolist(), [257, 260, 72, 105, 258, 261])

  def test_what_cannot_be_tokenised_is_named_by_its_line(self):
    tokenizer = self.hugging_face(huggingface.CHATML)
    step = record('er', 'ing') | {'steps': 'us', 'file_line': 'a.jsonl, line 3'}
    with self.assertRaisesRegex(ValueError, 'a.jsonl, line 3: .*joins'):
      tokens_lib.tokenize_all(tokenizer, [step], WIDE, ends=False)

  @parameterized.parameters(
      huggingface.CHATML, huggingface.TAGGED,
      huggingface.CHATML.replace('<|im_end|>', '<|im_end|><|im_end|>', 1))
  def test_steps_go_on_under_a_template(self, template):
    tokenizer = self.hugging_face(template)
    steps, next_step = 'What is 2 + 3?\n', 'the sum'
    prompt, answer = tokens_lib.prompt_and_response(
        tokenizer, ASK, next_step, steps=steps, ends=False)
    before, whole = tokens_lib.prompt_and_response(
        tokenizer, ASK, steps + next_step, ends=False)
    np.testing.assert_array_equal(np.concatenate([prompt, answer]),
                                  np.concatenate([before, whole]))
    self.assertEqual(tokenizer.decode(answer), next_step)
    self.assertEqual(tokenizer.decode(prompt[len(before):]), steps)
    self.assertNoCommonElements(answer.tolist(), tokenizer.stop_ids)
    self.assertNoCommonElements(prompt[len(before):].tolist(),
                                tokenizer.stop_ids)

  def test_steps_that_the_next_one_changes_or_that_end_are_refused(self):
    tokenizer = self.hugging_face(huggingface.CHATML)
    with self.assertRaisesRegex(
        ValueError, "'us' and 'er', which the tokenizer joins. Move"):
      # One word, which the tokenizer has whole.
      tokens_lib.prompt_and_response(tokenizer, ASK, 'er', steps='us',
                                     ends=False)
    with self.assertRaisesRegex(ValueError, "got the steps 'a=1;'.*ends=False"):
      tokens_lib.tokenize(BYTE, record() | {'steps': 'a=1;'})

  @parameterized.parameters(
      huggingface.CHATML, huggingface.TAGGED,
      huggingface.CHATML.replace('<|im_end|>', '<|im_end|><|im_end|>', 1))
  def test_a_stop_token_once_and_nothing_behind_it(self, template):
    tokenizer = self.hugging_face(template)
    prompt, answer = tokens_lib.prompt_and_response(tokenizer, ASK, 'What is')
    (stop,) = tokenizer.stop_ids
    self.assertRegex(tokenizer.decode(prompt), '^user\nHi\n?assistant\n$')
    self.assertEqual(tokenizer.decode(answer), 'What is')
    self.assertEqual(np.flatnonzero(answer == stop).tolist(),
                     [len(answer) - 1])

  def test_the_start_token_comes_once_or_the_template_is_refused(self):
    start = '{{ bos_token }}'
    once = self.hugging_face(start + huggingface.CHATML, bos_token='<eos>')
    prompt, _ = tokens_lib.prompt_and_response(once, ASK, 'What')
    self.assertEqual(np.flatnonzero(
        prompt == once.inner.bos_token_id).tolist(), [0])
    twice = self.hugging_face(start * 2 + huggingface.CHATML,
                              bos_token='<eos>')
    with self.assertRaisesRegex(ValueError, 'one start token .* got two'):
      tokens_lib.prompt_and_response(twice, ASK, 'What')

  def test_a_tokenizer_without_a_start_token_needs_none(self):
    tokenizer = self.hugging_face(huggingface.CHATML)
    self.assertIsNone(tokenizer.inner.bos_token_id)
    prompt, _ = tokens_lib.prompt_and_response(tokenizer, ASK, 'What')
    self.assertEqual(tokenizer.inner.convert_ids_to_tokens(int(prompt[0])),
                     '<|im_start|>')

  def test_a_boundary_that_the_answer_changes_is_refused(self):
    talk = [ASK[0], {'role': 'assistant', 'content': 'What'}, ASK[0]]
    forgetful = self.hugging_face(huggingface.FORGETFUL)
    with self.assertRaisesRegex(ValueError, 'to be the beginning of prompt'):
      tokens_lib.prompt_and_response(forgetful, talk, 'What')
    # The newline of the header and the first of the answer are one token.
    merging = self.hugging_face(
        huggingface.CHATML.replace("assistant\n'", "assistant user'")
        .replace('{{ m.role }}\n', '{{ m.role }} us'))
    with self.assertRaisesRegex(ValueError, 'to be the beginning of prompt'):
      tokens_lib.prompt_and_response(merging, ASK, 'er')

  def test_a_template_without_an_end_is_refused(self):
    endless = self.hugging_face(huggingface.CHATML.replace('<|im_end|>', ''))
    with self.assertRaisesRegex(ValueError, 'never learn to stop'):
      tokens_lib.prompt_and_response(endless, ASK, 'What')

  def test_a_stop_token_in_the_text_is_counted_out(self):
    tokenizer = self.hugging_face(huggingface.CHATML)
    pairs, counts = tokens_lib.tokenize_all(
        tokenizer, [record('a<|im_end|>b', 'c'), record('a', 'c')], WIDE)
    self.assertLen(pairs, 1)
    self.assertEqual(counts['dropped_stop_token_inside'], 1)

  def test_the_header_of_a_turn_in_the_text_is_counted_out(self):
    tokenizer = self.hugging_face(huggingface.CHATML)
    pairs, counts = tokens_lib.tokenize_all(
        tokenizer, [record('a<|im_start|>user b', 'c'), record('a', 'c'),
                    record('a<|im_end|>', '<im_start>')], WIDE)
    self.assertLen(pairs, 2)  # a stop token at the end is where it belongs
    self.assertEqual(counts['dropped_special_token_inside'], 1)


class CutTest(parameterized.TestCase):

  def fit(self, limits, chosen='a' * 20, rejected='b' * 9):
    # The prompt has 6 tokens, the responses 21 and 10.
    return tokens_lib.tokenize_all(BYTE, [record(chosen, rejected)], limits)

  @parameterized.parameters(
      # 6 + 1 + 21 + 10 = 38 with one copy of the prompt, 43 with two.
      (1, 38, (21, 10)), (1, 37, (20, 10)), (2, 43, (21, 10)),
      (2, 42, (20, 10)),
      # No room for the shorter one either: both get a half.
      (1, 7 + 20, (10, 10)), (1, 7 + 19, (9, 9)), (1, 7 + 2, (1, 1)))
  def test_both_responses_have_the_same_budget(self, copies, room, lengths):
    limits = dataclasses.replace(WIDE, max_pair_length=room,
                                 prompt_copies=copies)
    (pair,), counts = self.fit(limits)
    self.assertEqual((len(pair.chosen), len(pair.rejected)), lengths)
    self.assertEqual((len(pair.chosen_mask), len(pair.rejected_mask)), lengths)
    self.assertEqual(counts['cut_tokens_chosen'], 21 - lengths[0])
    self.assertEqual(counts['cut_tokens_rejected'], 10 - lengths[1])
    self.assertEqual(counts['cut_pairs'], int(lengths != (21, 10)))
    # The start is kept, whichever side is the longer one.
    self.assertEqual(bytes(pair.chosen[:1].tolist()), b'a')

  @parameterized.parameters(
      ([3, 4], 7, 4), ([3, 4], 6, 3), ([9, 9, 2], 12, 5), ([5], 2, 2),
      ([9, 9], 1, 0), ([9, 9], -4, -2))
  def test_equal_budget(self, lengths, room, want):
    self.assertEqual(tokens_lib.equal_budget(lengths, room), want)
    self.assertLessEqual(sum(min(x, max(want, 0)) for x in lengths),
                         max(room, 0))

  def test_the_limit_of_a_response_is_for_both(self):
    (pair,), _ = self.fit(dataclasses.replace(WIDE, max_response_length=5))
    self.assertEqual((len(pair.chosen), len(pair.rejected)), (5, 5))

  @parameterized.parameters(
      ('long_prompt', dict(max_prompt_length=5), {}),
      ('no_room', dict(max_pair_length=7), {}),
      ('no_room', dict(max_pair_length=8), {}),  # one token, of one side
      ('same_after_cut', dict(max_response_length=3), dict(rejected='aaab')))
  def test_what_cannot_be_used_is_counted_and_never_empty(self, reason, limit,
                                                          texts):
    pairs, counts = self.fit(dataclasses.replace(WIDE, **limit), **texts)
    self.assertEmpty(pairs)
    self.assertEqual({name: n for name, n in counts.items() if n},
                     {f'dropped_{reason}': 1})

  def test_the_cut_does_not_say_which_was_chosen(self):
    """Negative control: cutting each to its own half of the row would."""
    one, _ = self.fit(dataclasses.replace(WIDE, max_pair_length=30))
    other, _ = self.fit(dataclasses.replace(WIDE, max_pair_length=30),
                        'b' * 9, 'a' * 20)
    np.testing.assert_array_equal(one[0].chosen, other[0].rejected)
    np.testing.assert_array_equal(one[0].rejected, other[0].chosen)

  def test_the_digest_sees_every_token_and_the_order(self):
    make = lambda *texts: tokens_lib.digest(tokens_lib.tokenize_all(
        BYTE, [record(text) for text in texts], WIDE)[0])
    self.assertEqual(make('a', 'b'), make('a', 'b'))
    self.assertLen({make('a', 'b'), make('b', 'a'), make('a', 'c'),
                    make('a')}, 4)

  def test_limits_that_cannot_be_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'got Limits.*max_pair_length=0'):
      tokens_lib.Limits(1, 1, 0)


if __name__ == '__main__':
  absltest.main()
