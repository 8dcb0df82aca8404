"""Pairs from a policy's own responses: sampled, resumed, read by training."""
import contextlib
import json
import math
from unittest import mock

from absl.testing import absltest
import pytest

from configs.pairs import worked_sums
from experiments import make_pairs
from experiments.job import launch
from experiments.policy import reward_from_model
from rljax import journal
from rljax.data import preference
from rljax.data import tokenizer as tokenizers
from rljax.types import RewardResult

_append = journal.append


class Tokenizer(tokenizers.ByteTokenizer):
  """Many ids end a response, and others are letters: texts are never empty."""
  stop_ids = tuple(range(100, 120))

  def decode(self, ids):
    return 'said ' + ' '.join(map(str, ids))


class ByLength:
  """Stands in for the verifiers: the longer the better, in four steps."""

  def check_golds(self, records):
    del records
    return []

  def score(self, records, texts, lengths, stopped):
    del texts, stopped
    return [RewardResult(bool(n > 30), math.floor(n / 16) / 4, 'ok', None, 0.0)
            for _, n in zip(records, lengths, strict=True)]


@pytest.mark.usefixtures('one_device', 'compilation_cache')
class ScriptTest(absltest.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path):
    self.folder = tmp_path

  def run_script(self, name, seed=0, dies_after=None):
    config = worked_sums.get_config('smoke')
    config.seed = seed
    config.model = dict(variant='tiny', num_layers=1, vocab_size=272)
    config.data.source.data_dir = str(self.folder / 'data')
    appended = []

    def append(path, rows):
      if len(appended) == dies_after:
        raise KeyboardInterrupt
      appended.append(rows)
      _append(path, rows)

    with contextlib.ExitStack() as stack:
      for place, attribute, new in (
          (make_pairs.rewards, 'create',
           lambda **options: contextlib.nullcontext(ByLength())),
          (make_pairs.journal, 'append', append),
          (launch.tokenizers, 'load', lambda name: Tokenizer())):
        stack.enter_context(mock.patch.object(place, attribute, new))
      return make_pairs.run(config, self.folder / name)

  def test_pairs_are_resumed_and_read_by_training(self):
    counts = self.run_script('whole')
    path = self.folder / 'whole' / 'pairs.jsonl'
    self.assertEqual(sum(counts.values()) - counts['ties'], 60)
    self.assertGreater(counts['pair'], 10)
    with self.subTest('training reads them'):
      records = preference.read(path, 'jsonl').records
      self.assertLen(records, counts['pair'])
      for record in records:
        self.assertGreaterEqual(record['margin'], 0.25)
    with self.subTest('where they come from'):
      line = json.loads(path.read_text().splitlines()[0])
      self.assertEqual(line['provenance']['samples_per_prompt'], 4)
    with self.subTest('a kill, and a line that it has cut'):
      with self.assertRaises(KeyboardInterrupt):
        self.run_script('cut', dies_after=2)
      self.assertFalse((self.folder / 'cut' / 'pairs.jsonl').exists())
      groups = self.folder / 'cut' / 'groups.jsonl'
      groups.write_text(groups.read_text()[:-9])
      self.run_script('cut')
      self.assertEqual((self.folder / 'cut' / 'pairs.jsonl').read_text(),
                       path.read_text())
    with self.subTest('a reward model chooses in the place of the verifiers'):
      shortest = lambda graded, draw: reward_from_model.with_rewards(
          graded, -graded.rollout.length_PG.ravel().astype(float))
      with mock.patch.object(reward_from_model, 'create',
                             lambda config, job: shortest):
        self.run_script('shortest')
      for one, other in zip(*(preference.read(
          self.folder / name / 'pairs.jsonl', 'jsonl').records[:9]
                              for name in ('shortest', 'whole')), strict=True):
        # Its choice says fewer numbers; that of the verifiers says more.
        self.assertLess(len(one['chosen'].split()),
                        len(one['rejected'].split()))
        self.assertGreater(len(other['chosen'].split()),
                           len(other['rejected'].split()))
    with self.subTest('other settings'):
      with self.assertRaisesRegex(ValueError, 'seed: there 0, now 1'):
        self.run_script('cut', seed=1)

if __name__ == '__main__':
  absltest.main()
