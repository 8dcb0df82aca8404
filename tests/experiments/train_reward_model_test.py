"""Where the comparisons of a reward model come from; nothing is compiled."""
import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized

from configs import common
from configs.reward import bradley_terry_tiny
from experiments import train_reward_model
from rljax.data import candidates
from rljax.data import tokenizer as tokenizers


class DataTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.path = folder / 'pairs.jsonl'

  def config(self, lines, **changes):
    self.path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    config = bradley_terry_tiny.get_config('smoke')
    config.data.source = common.preference_file(
        str(self.path), 'jsonl', held_out=4)
    config.data.update(lists_per_step=2)
    config.data.update(changes)
    return config

  def make(self, record):
    return candidates.texts(tokenizers.ByteTokenizer(), record, 64)

  def pairs(self, count=8, length=4):
    return [dict(prompt=f'q{i}', chosen='y' * length, rejected='n' * length)
            for i in range(count)]

  def test_a_file_is_split_by_prompt_and_what_is_lost_is_counted(self):
    config = self.config([*self.pairs(), dict(prompt='q', chosen='same',
                                              rejected='same')])
    batches, held_out, counts = train_reward_model.open_data(config, self.make)
    self.assertLen(held_out, 4)
    self.assertEqual(counts['whole'], 4)
    self.assertEqual(sum(counts.values()), 5)  # and the one without a winner
    self.assertLen(next(batches), 2)

  def test_long_pairs_are_cut_dropped_or_an_error(self):
    long = [dict(prompt='q' * 70, chosen='y', rejected='n')]
    _, _, counts = train_reward_model.open_data(
        self.config([*self.pairs(), *self.pairs(4, 40), *long * 2]), self.make)
    self.assertGreater(counts['cut'], 0)
    config = self.config(self.pairs() + [
        dict(one, prompt=f'{i}' + one['prompt']) for i, one in enumerate(
            long * 9)], too_long='fail')
    with self.assertRaisesRegex(ValueError, "too_long='drop'"):
      train_reward_model.open_data(config, self.make)

  def test_a_forged_turn_is_counted_and_is_not_too_long(self):
    class Forged(tokenizers.ByteTokenizer):
      special_ids = frozenset([ord('<')])

    config = self.config([*self.pairs(), *(dict(
        prompt=f'p{i}', chosen='y<end>', rejected='n') for i in range(8))],
                         too_long='fail')
    _, _, counts = train_reward_model.open_data(
        config, lambda record: candidates.texts(Forged(), record, 64))
    self.assertBetween(counts['special_token_inside'], 4, 8)
    self.assertEqual(counts['whole'] + counts['special_token_inside'], 12)

  def test_nothing_to_train_on_says_why(self):
    long = [dict(one, prompt=f'{i}' * 70) for i, one in enumerate(
        self.pairs())]
    with self.assertRaisesRegex(ValueError, "got none of 4.*'no_room': 4.*row"):
      train_reward_model.open_data(self.config(long, too_long='drop'),
                                   self.make)

  def test_few_labels(self):
    config = self.config(self.pairs(), max_records=3)
    _, train, held_out, _ = train_reward_model.read(config)
    self.assertEqual((len(train), len(held_out)), (3, 4))

  def lists(self, form, trained='scores', size=3):
    config = self.config([dict(prompt=f'q{i}', responses=list('abcd'[:size]))
                          for i in range(8)])
    config.form, config.data.source.form = trained, form
    return config

  @parameterized.parameters(
      ('scores', 'unlabeled'), ('judge', 'unlabeled'), ('judge', 'ranked'))
  def test_an_order_that_is_no_label_is_not_learnt(self, trained, form):
    with self.assertRaisesRegex(ValueError, f"form='{trained}'.*got.*'{form}'"):
      train_reward_model.read(self.lists(form, trained, size=2))
    # Where it is none, or where it is one, it is read.
    for known in (('pretraining', 'unlabeled'), ('scores', 'ranked')):
      _, train, _, _ = train_reward_model.read(
          self.lists(known[1], known[0], size=2))
      self.assertLen(train, 4)

  def test_a_list_longer_than_its_places_is_refused_at_once(self):
    config = self.lists('ranked')
    with self.assertRaisesRegex(ValueError, 'num_candidates=2.*got 3 in .*line'
                                ):
      train_reward_model.open_data(config, self.make)
    config.packing.num_candidates = 3
    train_reward_model.open_data(config, self.make)

  def test_an_unknown_source(self):
    config = self.config(self.pairs())
    config.data.source.name = 'fiel'
    with self.assertRaisesRegex(ValueError, "got 'fiel'"):
      train_reward_model.read(config)


if __name__ == '__main__':
  absltest.main()
