"""Pairs of a file, for both scripts that train on them, in all its forms."""
import json
import tempfile
import types

from absl.testing import absltest
from absl.testing import parameterized

from configs import common
from configs.preference import dpo_tiny
from configs.reward import bradley_terry_tiny
from experiments import train_reward_model
from experiments.preference import preference_pairs
from rljax import models
from rljax.data import preference
from rljax.data import tokenizer as tokenizers
from rljax.packing import pairs
from tests.data import preference_test

_LISTS = {form: {'prompt': 'Hi', 'responses': ['Yes.', 'No.']}
          for form in preference.LISTS}


class FormsTest(parameterized.TestCase):

  def source(self, form):
    """Twelve lines that differ in what the user says."""
    line = json.dumps((preference_test.LINES | _LISTS)[form])
    rows = [json.loads(line.replace('Hi', f'Hi {i}')) for i in range(12)]
    for i, row in enumerate(rows):
      if 'id' in row:
        row['id'] = i
    folder = self.enterContext(tempfile.TemporaryDirectory())
    path = preference_test.write(folder, *rows)
    return common.preference_file(str(path), form, held_out=4)

  def pairs(self, form):
    config = dpo_tiny.get_config('smoke')
    config.data.source = self.source(form)
    job = types.SimpleNamespace(model=models.create('tiny'),
                                tokenizer=tokenizers.load('byte'))
    return preference_pairs.open_data(config, job)

  def compared(self, form):
    config = bradley_terry_tiny.get_config('smoke')
    config.form = 'pretraining' if form == 'unlabeled' else 'scores'
    config.data.source = self.source(form)
    return train_reward_model.read(config)

  @parameterized.parameters(*preference_test.LINES)
  def test_pairs_for_either_script(self, form):
    data = self.pairs(form)
    self.assertEqual((len(data.train), len(data.held_out)), (8, 4))
    name, train, held_out, _ = self.compared(form)
    self.assertEqual((len(train), len(held_out)), (8, 4))
    self.assertStartsWith(name, f'{form}/')
    # The same prompts are held out.
    self.assertEqual([pair.id for pair in data.held_out],
                     [record['id'] for record in held_out])

  @parameterized.parameters(True, False)
  def test_pairs_fill_a_row_however_their_prompt_is_stored(self, share_prompt):
    config = dpo_tiny.get_config('smoke')
    config.data.source = self.source('jsonl')
    # 9 tokens, <bos> <user> Hi 10 <eos> <assistant>, or 8; Yes. and No., both
    # with their ends cut to 4, stand behind 9 + 1 or 2 · 9.
    config.packing.update(share_prompt=share_prompt,
                          row_length=18 if share_prompt else 26)
    job = types.SimpleNamespace(model=models.create('tiny'),
                                tokenizer=tokenizers.load('byte'))
    data = preference_pairs.open_data(config, job)
    lengths = [pairs.stored_length(pair, share_prompt)
               for pair in [*data.train, *data.held_out]]
    self.assertLen(lengths, 12)
    self.assertEqual(max(lengths), config.packing.row_length)

  @parameterized.parameters('steps', 'labels')
  def test_what_is_not_two_responses_is_for_policies_alone(self, form):
    with self.assertRaisesRegex(ValueError, f"two whole .* got .*'{form}'"):
      train_reward_model.check_form('scores', form)

  @parameterized.parameters(*_LISTS)
  def test_lists_for_reward_models_alone(self, form):
    _, train, held_out, _ = self.compared(form)
    self.assertEqual((len(train), len(held_out)), (8, 4))
    with self.assertRaisesRegex(ValueError, f"form of pairs, got '{form}'"):
      self.pairs(form)


if __name__ == '__main__':
  absltest.main()
