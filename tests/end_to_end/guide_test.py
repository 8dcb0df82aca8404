"""Hints through the script: what is trained on, what is kept, what resumes."""
import contextlib
from unittest import mock

from absl.testing import absltest
import jax
import numpy as np
import pytest

from configs.policy import guide_tiny
from experiments import train_policy
from experiments.job import launch
from experiments.policy import policy_batches
from experiments.policy import policy_pieces
from rljax.data import tokenizer as tokenizers
from rljax.training import metrics
from rljax.types import RewardResult

_STEPS = 4


class OnlyWithHint:
  """Stands in for the verifiers: without a hint, nobody gets it right."""

  def check_golds(self, records):
    del records
    return []

  def score(self, records, texts, lengths, stopped):
    del texts, stopped
    right = [('Hint:' in record['prompt']) and bool(n % 2)
             for record, n in zip(records, lengths, strict=True)]
    return [RewardResult(r, float(r), 'ok', None, 0.0) for r in right]


class Tokenizer(tokenizers.ByteTokenizer):
  """Many ids end a response: lengths of an untrained policy vary."""
  stop_ids = tuple(range(100, 120))


def make_config(num_steps=_STEPS, **options):
  config = guide_tiny.get_config('smoke')
  config.model = dict(variant='tiny', num_layers=1)
  config.num_steps = num_steps
  config.max_draws = 3
  config.guide = dict(
      config.guide.to_dict(), lower=1e-3, threshold=1e-3, hint_lower=1e-3,
      buffer=True) | options
  return config


class GuideTest(absltest.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path, one_device):
    self.folder = tmp_path

  def run_script(self, config, name):
    """The script; returns its state, metrics and the rows of all steps."""
    rows, pack = [], policy_batches.select_and_pack
    config.data.source.data_dir = str(self.folder / 'data')

    def packed(*arguments):
      out = pack(*arguments)
      rows.append(out[0])
      return out

    with contextlib.ExitStack() as stack:
      for place, attribute, new in (
          (policy_batches, 'select_and_pack', packed),
          (policy_pieces.rewards, 'create',
           lambda **options: contextlib.nullcontext(OnlyWithHint())),
          (launch.tokenizers, 'load', lambda name: Tokenizer())):
        stack.enter_context(mock.patch.object(place, attribute, new))
      state = train_policy.run(config, self.folder / name)
    return state, metrics.read(self.folder / name / metrics.FILE_NAME), rows

  def test_hinted_answers_are_trained_on_under_the_prompt_alone(self):
    state, lines, rows = self.run_script(make_config(), 'whole')
    with self.subTest('every prompt failed and some were rescued'):
      for line in lines:
        self.assertEqual(line['hint_trigger_rate'], 1.0)
        self.assertEqual(line['accuracy'], 0.0)  # of what had no hint
        self.assertGreater(line['guided_tokens'], 0)
        self.assertGreater(line['rescued_groups'], 0)
        self.assertLess(abs(line['guided_fraction'] - 1), 1e-5)
    with self.subTest('no row holds a hint'):
      text = lambda tokens_T: ''.join(
          chr(t) if t < 256 else '\0' for t in tokens_T)
      for r in rows:
        for tokens_T in r.tokens_BT:
          self.assertNotIn('Hint:', text(tokens_T))
    with self.subTest('a stopped run ends as one that was not'):
      self.run_script(make_config(num_steps=2), 'parts')
      again, _, _ = self.run_script(make_config(), 'parts')
      jax.tree.map(np.testing.assert_array_equal, again.params, state.params)
    with self.subTest('negative control: trained with the hint, rows hold it'):
      _, lines, rows = self.run_script(
          make_config(num_steps=1, context='hinted'), 'hinted')
      self.assertEqual(lines[0]['guided_tokens'], 0)
      self.assertTrue(any('Hint:' in text(tokens_T)
                          for tokens_T in rows[0].tokens_BT))


if __name__ == '__main__':
  absltest.main()
