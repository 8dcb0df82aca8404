from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from rljax.data import candidates
from rljax.data import tokenizer as tokenizers
from rljax.data import toy_comparisons
from tests.data import judge_labels_test

BYTES = tokenizers.ByteTokenizer()


def record(*responses):
  one = {'id': 'r', 'prompt': [{'role': 'user', 'content': 'Is it?'}],
         'domain': ''}
  if len(responses) == 2:
    return one | dict(chosen=responses[0], rejected=responses[1], margin=None)
  return one | dict(responses=list(responses))


class CandidatesTest(absltest.TestCase):

  def test_each_behind_its_prompt_with_its_end(self):
    found, status = candidates.texts(BYTES, record('yes', 'no', 'hm'), 500)
    self.assertEqual((status, found.ranks), ('whole', (0, 1, 2)))
    self.assertEqual([BYTES.decode(text) for text in found.texts],
                     ['Is it?yes', 'Is it?no', 'Is it?hm'])
    for text in found.texts:
      self.assertEqual(text[-1], BYTES.eos_id)
      self.assertEqual(text.dtype, np.int32)

  def test_what_was_cut_off_has_no_end(self):
    pair = record('yes', 'no') | {'chosen_ends': False}
    found, _ = candidates.texts(BYTES, pair, 500)
    self.assertEqual([int(text[-1]) for text in found.texts],
                     [ord('s'), BYTES.eos_id])

  def test_responses_are_cut_to_one_number_of_tokens(self):
    prompt = len(BYTES.apply_chat_template(record('', '')['prompt'], True))
    found, status = candidates.texts(
        BYTES, record('x' * 50, 'y' * 60, 'z' * 3), prompt + 34)
    self.assertEqual(status, 'cut')
    # 4 for 'zzz' and its end, 15 for each of the others.
    self.assertEqual([len(text) - prompt for text in found.texts], [15, 15, 4])

  def test_what_is_left_out(self):
    prompt = len(BYTES.apply_chat_template(record('', '')['prompt'], True))
    self.assertEqual(candidates.texts(BYTES, record('a', 'b'), prompt + 1),
                     (None, 'no_room'))
    self.assertEqual(
        candidates.texts(BYTES, record('same here', 'same there'),
                         prompt + 8), (None, 'same_after_cut'))
    kept, counts = candidates.all_of(
        [record('a', 'b'), record('x' * 99, 'y' * 99), record('a', 'a')],
        lambda one: candidates.texts(BYTES, one, prompt + 8))
    self.assertLen(kept, 2)
    self.assertEqual(counts, dict(whole=1, cut=1, no_room=0, same_after_cut=1,
                                  special_token_inside=0))

  def test_a_special_token_in_the_text_is_counted_out(self):
    tokenizer = judge_labels_test.bpe([])
    some = [record('a<|end|>b', 'c'), record('a', 'c', '<|user|>c'),
            record('a<|end|>', 'c'),  # where it belongs, and once
            record('a<end>b', 'c')]   # negative control: words alone
    kept, counts = candidates.all_of(
        some, lambda one: candidates.texts(tokenizer, one, 500))
    self.assertEqual((counts['whole'], counts['special_token_inside']), (2, 2))
    (end,) = tokenizer.stop_ids
    for text in kept[0].texts:  # that of the prompt, and that of the response
      self.assertEqual((text == end).sum(), 2)
    with self.subTest('no text of bytes has one'):
      found, _ = candidates.texts(BYTES, some[0], 500)
      self.assertLen(found.texts, 2)


class ToyTest(parameterized.TestCase):

  @parameterized.parameters(2, 4)
  def test_the_best_comes_first(self, size):
    for one in toy_comparisons.records(50, seed=0, size=size):
      responses, _ = candidates.ranked(one)
      found = [toy_comparisons.quality(one, text) for text in responses]
      self.assertEqual(found, sorted(found, reverse=True))
      self.assertLen(set(found), size)

  def test_labels_are_wrong_as_often_as_asked_for(self):
    wrong = [toy_comparisons.quality(one, one['chosen'])
             < toy_comparisons.quality(one, one['rejected'])
             for one in toy_comparisons.records(1_000, seed=0, flip=0.2)]
    self.assertBetween(np.mean(wrong), 0.16, 0.24)

  def test_what_cannot_be(self):
    for wrong in (dict(size=7), dict(flip=1.0), dict(size=1)):
      with self.assertRaisesRegex(ValueError, 'Correct them'):
        toy_comparisons.records(5, seed=0, **wrong)


if __name__ == '__main__':
  absltest.main()
