"""Tests of Hugging Face tokenizers and templates against the library itself."""
import dataclasses
import json
import pathlib
import sys
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import tokenizers
import transformers

from experiments.job import launch
from experiments.job import starting_params
from rljax.data import chat
from rljax.data import tokenizer as tokenizer_lib
from tests.end_to_end import smoke

CHATML = (
    '{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>'
    '\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n'
    '{% endif %}')
TAGGED = (
    '{% for m in messages %}<|im_start|>{{ m.role }}\n'
    "{% if m.role == 'assistant' %}{%- generation -%}{{ m.content }}"
    '<|im_end|>{%- endgeneration -%}{% else %}{{ m.content }}<|im_end|>'
    '{% endif %}\n{% endfor %}'
    '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}')
TALK = [
    {'role': 'system', 'content': 'Be brief.'},
    {'role': 'user', 'content': 'What is 2 + 3?'},
    {'role': 'assistant', 'content': '2+3=5. \\boxed{5}'},
]
# Answers once more only what the last message says.
FORGETFUL = (
    '{% for m in messages %}<|im_start|>{{ m.role }}\n'
    "{{ m.content if loop.last else '...' }}<|im_end|>\n{% endfor %}"
    '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}')


def save_bpe(folder, template=CHATML, **kwargs):
  """A small byte-level BPE with a chat template, as Hugging Face saves it."""
  bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
  bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
      add_prefix_space=False)
  bpe.decoder = tokenizers.decoders.ByteLevel()
  text = ['What is 2 + 3? user assistant system the sum of the numbers'] * 4
  bpe.train_from_iterator(text, tokenizers.trainers.BpeTrainer(
      vocab_size=300, show_progress=False,
      initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
      special_tokens=['<pad>', '<|im_start|>', '<|im_end|>', '<eos>']))
  options = dict(eos_token='<|im_end|>', pad_token='<pad>') | kwargs
  fast = transformers.PreTrainedTokenizerFast(
      tokenizer_object=bpe, additional_special_tokens=['<|im_start|>'],
      **options)
  fast.chat_template = template
  fast.save_pretrained(folder)
  return fast


class HuggingFaceTokenizerTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = self.enterContext(tempfile.TemporaryDirectory())

  def test_equals_the_library_it_wraps(self):
    save_bpe(self.folder)
    golden = transformers.AutoTokenizer.from_pretrained(self.folder)
    ours = tokenizer_lib.load(self.folder)
    for text in ('What is the sum?', 'naïve 漢字', '', ' two  spaces\n'):
      ids = ours.encode(text)
      self.assertEqual(ids, golden.encode(text, add_special_tokens=False))
      self.assertEqual(ours.decode(ids), text)
    for prompt in (False, True):
      want = golden.apply_chat_template(TALK, add_generation_prompt=prompt,
                                        tokenize=False)
      ids = ours.apply_chat_template(TALK, prompt)
      self.assertEqual(golden.decode(ids), want)
      self.assertEqual(ids, golden.apply_chat_template(
          TALK, add_generation_prompt=prompt, return_dict=True)['input_ids'])
    self.assertEqual(ours.vocab_size, len(golden))
    self.assertEqual(ours.pad_id, golden.pad_token_id)
    self.assertEqual(ours.stop_ids, (golden.eos_token_id,))

  def test_decode_skips_special_tokens(self):
    save_bpe(self.folder)
    ours = tokenizer_lib.load(self.folder)
    ids = ours.encode('the sum') + list(ours.stop_ids)
    self.assertEqual(ours.decode(ids), 'the sum')

  def test_stop_tokens_of_the_generation_config_are_added(self):
    fast = save_bpe(self.folder, eos_token='<eos>')
    end = fast.convert_tokens_to_ids('<|im_end|>')
    path = pathlib.Path(self.folder) / 'generation_config.json'
    path.write_text(json.dumps({'eos_token_id': [fast.eos_token_id, end]}))
    ours = tokenizer_lib.load(self.folder)
    self.assertEqual(ours.stop_ids, (fast.eos_token_id, end))

  def test_special_tokens_are_not_of_text(self):
    fast = save_bpe(self.folder, unk_token='<eos>')
    ids = lambda *names: set(fast.convert_tokens_to_ids(list(names)))
    found = tokenizer_lib.load(self.folder).special_ids
    self.assertEqual(found, ids('<pad>', '<|im_start|>', '<|im_end|>'))
    with self.subTest('the unknown one is, unless it ends a text as well'):
      save_bpe(self.folder, unk_token='<eos>', eos_token='<eos>',
               pad_token='<eos>')
      found = tokenizer_lib.load(self.folder).special_ids
      self.assertContainsSubset(ids('<eos>'), found)
      self.assertTrue(chat.has_special(
          tokenizer_lib.load(self.folder), 'What<eos> is'))

  def test_a_prompt_and_an_answer_are_one_text(self):
    fast = save_bpe(self.folder)
    ours = tokenizer_lib.load(self.folder)
    text = fast.apply_chat_template(TALK[:2], add_generation_prompt=True,
                                    tokenize=False) + 'What'
    self.assertEqual(ours.with_answer(TALK[:2], 'What'),
                     fast.encode(text, add_special_tokens=False))
    self.assertEqual(ours.with_answer(TALK[:2], ''),
                     ours.apply_chat_template(TALK[:2], True))

  def test_a_missing_folder_is_named(self):
    with self.assertRaisesRegex(ValueError, "'byte' or a local folder"):
      tokenizer_lib.load(self.folder + '/gpt2')

  def test_a_missing_library_is_named(self):
    with mock.patch.dict(sys.modules, transformers=None):
      with self.assertRaisesRegex(ImportError, r'pip install .rljax\[text\]'):
        tokenizer_lib.load(self.folder)

  def test_a_missing_chat_template_is_named(self):
    save_bpe(self.folder, template=None)
    with self.assertRaisesRegex(ValueError, 'Expected a chat template'):
      tokenizer_lib.load(self.folder).apply_chat_template(TALK, True)

  def test_a_tokenizer_without_an_end_is_refused(self):
    save_bpe(self.folder, eos_token=None)
    with self.assertRaisesRegex(ValueError, 'end-of-text token'):
      tokenizer_lib.load(self.folder)



class HuggingFaceChatTest(parameterized.TestCase):

  def load(self, template):
    folder = self.enterContext(tempfile.TemporaryDirectory())
    save_bpe(folder, template)
    return tokenizer_lib.load(folder)

  @parameterized.named_parameters(
      ('by_prefixes', CHATML, False),
      ('by_generation_tags', TAGGED, True))
  def test_targets_are_the_answers_and_their_end(self, template, tagged):
    tokenizer = self.load(template)
    self.assertEqual(tokenizer.marks_assistant_tokens(), tagged)
    talk = [*TALK, {'role': 'user', 'content': 'And 2 + 4?'},
            {'role': 'assistant', 'content': 'It is 6.'}]
    tokens, mask = chat.training_example(tokenizer, talk)
    # The newline that the template puts behind an end token is no target.
    self.assertEqual(tokenizer.inner.decode(tokens[mask]),
                     '2+3=5. \\boxed{5}<|im_end|>It is 6.<|im_end|>')
    whole = tokenizer.inner.apply_chat_template(talk, tokenize=False)
    self.assertEqual(tokenizer.inner.decode(tokens), whole)

  def test_an_end_token_outside_the_tags_is_still_a_target(self):
    template = TAGGED.replace(
        '<|im_end|>{%- endgeneration -%}', '{%- endgeneration -%}<|im_end|>')
    tokenizer = self.load(template)
    tokens, mask = chat.training_example(tokenizer, TALK)
    self.assertEqual(tokenizer.inner.decode(tokens[mask]),
                     '2+3=5. \\boxed{5}<|im_end|>')

  def test_other_roles_by_prefixes(self):
    tokenizer = self.load(CHATML)
    tokens, mask = chat.training_example(tokenizer, TALK,
                                         ('user',))
    self.assertEqual(tokenizer.inner.decode(tokens[mask]),
                     'What is 2 + 3?<|im_end|>')

  def test_a_template_that_rewrites_earlier_turns_is_refused(self):
    tokenizer = self.load(FORGETFUL)
    with self.assertRaisesRegex(ValueError, 'rewrites earlier turns'):
      chat.training_example(tokenizer, TALK)



class DifferencesTest(absltest.TestCase):

  def load(self, **kwargs):
    folder = self.enterContext(tempfile.TemporaryDirectory())
    save_bpe(folder, **kwargs)
    return tokenizer_lib.load(folder)

  def test_what_decides_the_meaning_of_an_id_is_compared(self):
    one, same = self.load(), self.load(template=TAGGED)
    self.assertEmpty(tokenizer_lib.differences(one, same))
    stops = self.load(eos_token='<eos>')
    self.assertLen(tokenizer_lib.differences(one, stops), 1)
    self.assertIn('stop tokens', tokenizer_lib.differences(one, stops)[0])
    self.assertIn('number of ids: ', tokenizer_lib.differences(
        one, tokenizer_lib.ByteTokenizer())[0])
    renamed = self.load()
    words = renamed.inner.get_vocab()
    first, second, *_ = words
    swapped = words | {first: words[second], second: words[first]}
    with mock.patch.object(type(renamed.inner), 'get_vocab', autospec=True,
                           side_effect=lambda inner: swapped if (
                               inner is renamed.inner) else words):
      self.assertEqual(tokenizer_lib.differences(one, renamed),
                       ['the words of the ids'])

  def test_a_published_reference_with_another_tokenizer_is_refused(self):
    folder = self.enterContext(tempfile.TemporaryDirectory())
    save_bpe(folder)
    job = launch.Job('t', pathlib.Path(folder), None, None, None,
                     tokenizer_lib.ByteTokenizer(), {})
    with self.assertRaisesRegex(ValueError, 'one that differs: number of ids'):
      starting_params.check_tokenizer(job, folder)
    same = dataclasses.replace(job, tokenizer=tokenizer_lib.load(folder))
    starting_params.check_tokenizer(same, folder)
    config = smoke.get_config('sft')  # a start is the reference of later
    config.init.checkpoint = folder
    with mock.patch.object(starting_params.convert, 'is_published',
                           lambda path: True):
      with self.assertRaisesRegex(ValueError, 'differs: number of ids'):
        starting_params.initial_state(config, job, None, None)


if __name__ == '__main__':
  absltest.main()
