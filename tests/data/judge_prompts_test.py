"""What a judge reads: one template, alike cuts, whole marks, labels."""
from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from rljax import prompts
from rljax.data import judge_prompts
from rljax.data import tokenizer as tokenizers
from rljax.data import toy_comparisons

BYTES = tokenizers.ByteTokenizer()


def record(chosen='yes', rejected='no', **more):
  return {'id': 'r-1', 'prompt': [{'role': 'user', 'content': 'Is it?'}],
          'chosen': chosen, 'rejected': rejected, 'margin': None,
          'domain': ''} | more


def shown(tokens):
  return BYTES.decode(tokens)


class Spaced(tokenizers.ByteTokenizer):
  """Writes every letter as two tokens."""

  def encode(self, text):
    return [token for byte in super().encode(text) for token in (32, byte)]


class JudgePromptTest(parameterized.TestCase):

  def test_all_of_it_is_shown_and_the_label_is_what_comes_next(self):
    tokens, status = judge_prompts.prompt_tokens(
        BYTES, record()['prompt'], 'first', 'second', 500)
    text = shown(tokens)
    self.assertEqual(status, 'whole')
    self.assertTrue(text.endswith('[response A]\nfirst\n[response B]\nsecond\n'
                                  '[end]\n[better]'), text)
    self.assertIn('[request]\nIs it?\n', text)
    self.assertEqual(tokens[-1], BYTES.role_ids['assistant'])

  def test_training_and_use_read_the_same_prompt(self):
    for seed in range(8):
      compared, _ = judge_prompts.comparison(BYTES, record(), 500, seed)
      first, second = ('yes', 'no') if compared.ranks == (0, 1) else (
          'no', 'yes')
      used, _ = judge_prompts.prompt_tokens(
          BYTES, record()['prompt'], first, second, 500)
      np.testing.assert_array_equal(compared.texts[0], used)

  def test_labels_are_balanced(self):
    records = toy_comparisons.records(400, seed=0)
    is_first = [judge_prompts.comparison(BYTES, one, 500, 3)[0].ranks == (0, 1)
                for one in records]
    self.assertBetween(np.mean(is_first), 0.43, 0.57)

  @parameterized.parameters(2, 3, 10, 40)
  def test_long_responses_are_cut_alike_and_the_cue_stays(self, room):
    around = len(judge_prompts.prompt_tokens(
        BYTES, record()['prompt'], '', '', 500)[0])
    limit = around + room
    tokens, status = judge_prompts.prompt_tokens(
        BYTES, record()['prompt'], 'x' * 100, 'y' * 70, limit)
    text = shown(tokens)
    self.assertEqual(status, 'cut')
    self.assertLessEqual(len(tokens), limit)
    self.assertEqual(text.count('x' * (room // 2)), 1)
    self.assertEqual(text.count('x'), text.count('y'))
    self.assertTrue(text.endswith('[end]\n[better]'))
    # Negative control: cut from the right, the cue is what is lost.
    whole, _ = judge_prompts.prompt_tokens(
        BYTES, record()['prompt'], 'x' * 100, 'y' * 70, 1_000)
    self.assertNotIn('[better]', shown(whole[:limit]))

  def test_a_cut_within_a_character_still_fits(self):
    for limit in range(120, 150):
      tokens, status = judge_prompts.prompt_tokens(
          BYTES, record()['prompt'], 'é' * 60, '–' * 60, limit)
      if tokens is not None:
        self.assertLessEqual(len(tokens), limit)
        self.assertEqual(status, 'cut')

  def test_what_cannot_be_shown_is_left_out_and_named(self):
    prompt = record()['prompt']
    self.assertEqual(judge_prompts.prompt_tokens(
        BYTES, prompt, 'a', 'b', 20), (None, 'no_room'))
    around = len(judge_prompts.prompt_tokens(BYTES, prompt, '', '', 500)[0])
    self.assertEqual(judge_prompts.prompt_tokens(
        BYTES, prompt, 'same here', 'same there', around + 8),
                     (None, 'same_after_cut'))
    # A response against itself is no accident.
    tokens, _ = judge_prompts.prompt_tokens(
        BYTES, prompt, 'same here', 'same here', around + 8)
    self.assertIsNotNone(tokens)

  def test_a_label_of_more_than_one_token_is_refused(self):
    self.assertEqual(judge_prompts.label_ids(BYTES), (65, 66))
    with self.assertRaisesRegex(ValueError, 'a judge label of more than one'):
      judge_prompts.label_ids(Spaced())

  def test_a_conversation_is_told_by_turns(self):
    prompt = [{'role': 'user', 'content': 'Hi'},
              {'role': 'assistant', 'content': 'Hello'},
              {'role': 'user', 'content': 'Sum?'}]
    self.assertEqual(judge_prompts.question(prompt),
                     'user: Hi\nassistant: Hello\nuser: Sum?')


class PretrainingTest(parameterized.TestCase):

  def test_targets_are_both_responses_with_their_marks_and_the_end(self):
    (tokens, mask), status = judge_prompts.pretraining_example(
        BYTES, record(), 500, 0)
    self.assertEqual(status, 'whole')
    written = shown(tokens[mask])
    first, second = ('yes', 'no') if 'A]\nyes' in written else ('no', 'yes')
    self.assertEqual(written, f'[response A]\n{first}\n[response B]\n{second}\n'
                     '[end]')
    self.assertEqual(tokens[mask][-1], BYTES.eos_id)
    self.assertEqual(mask.sum(), len(written) + 1)
    self.assertIn('Is it?', shown(tokens[~mask]))

  def test_the_marks_are_those_of_the_judge(self):
    (tokens, mask), _ = judge_prompts.pretraining_example(
        BYTES, record(), 500, 0)
    judged, _ = judge_prompts.comparison(BYTES, record(), 500, 0)
    self.assertIn(shown(tokens[mask]), shown(judged.texts[0]))

  def test_no_label_is_looked_at(self):
    for seed in range(6):
      pair, _ = judge_prompts.pretraining_example(
          BYTES, record(), 500, seed)
      unlabeled, _ = judge_prompts.pretraining_example(
          BYTES, {'id': 'r-1', 'prompt': record()['prompt'],
                  'responses': ['yes', 'no']}, 500, seed)
      np.testing.assert_array_equal(pair[0], unlabeled[0])
    both = {'A]\nyes' in shown(judge_prompts.pretraining_example(
        BYTES, record(), 500, seed)[0][0]) for seed in range(20)}
    self.assertEqual(both, {True, False})

  def test_a_long_pair_is_cut_alike_and_stays_whole_in_form(self):
    (tokens, mask), status = judge_prompts.pretraining_example(
        BYTES, record('x' * 90, 'y' * 90), 140, 0)
    self.assertEqual(status, 'cut')
    self.assertLessEqual(len(tokens), 140)
    written = shown(tokens[mask])
    self.assertEqual(written.count('x'), written.count('y'))
    self.assertTrue(written.endswith('\n[end]'))


class TemplatesTest(absltest.TestCase):

  def test_line_breaks_are_line_breaks(self):
    # The official cleaning script writes a backslash and an n.
    for name in ('gram_judge', 'gram_pair', 'gram_pretraining'):
      self.assertNotIn('\\n', prompts.load(name).template)
      self.assertIn('\n', prompts.load(name).template)

  def test_braces_and_dollars_in_a_response_survive(self):
    # The official cleaning script throws away what holds a closing brace.
    tokens, _ = judge_prompts.prompt_tokens(
        BYTES, record()['prompt'], r'\boxed{$5}', '${first}', 500)
    self.assertIn(r'\boxed{$5}', shown(tokens))
    self.assertIn('${first}', shown(tokens))


if __name__ == '__main__':
  absltest.main()
