"""PPO through the script: what is saved, what resumes, what is compiled."""
import contextlib
from unittest import mock

from absl.testing import absltest
import jax
import numpy as np
import pytest

from configs.policy import ppo_tiny
from experiments import train_policy
from experiments.job import launch
from experiments.policy import policy_pieces
from rljax.data import tokenizer as tokenizers
from rljax.training import checkpoint
from rljax.training import metrics
from rljax.types import RewardResult
from tests import toys

_STEPS = 3
_FUNCTIONS = ('score', 'update', 'score_values', 'estimate', 'value_weights',
              'update_critic')


class ByLength:
  """Stands in for the verifiers: an even length is right."""

  def check_golds(self, records):
    del records
    return []

  def score(self, records, texts, lengths, stopped):
    del texts, stopped, records
    return [RewardResult(n % 2 == 0, float(n % 2 == 0), 'ok', None, 0.0)
            for n in lengths]


class Tokenizer(tokenizers.ByteTokenizer):
  """Many ids end a response: lengths of an untrained policy vary."""
  stop_ids = tuple(range(100, 120))


def make_config(arg='smoke', num_steps=_STEPS):
  config = ppo_tiny.get_config(arg)
  config.model = dict(variant='tiny', num_layers=1)
  config.num_steps = num_steps
  config.critic.kl_coef = 0.01
  return config


@pytest.mark.usefixtures('one_device', 'compilation_cache')
class PpoTest(absltest.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path):
    self.folder = tmp_path

  def run_script(self, config, name, *patches):
    """The script; returns its state, metrics, and what was compiled."""
    config.data.source.data_dir = str(self.folder / 'data')
    with contextlib.ExitStack() as stack:
      for place, attribute, new in (
          (policy_pieces.rewards, 'create',
           lambda **options: contextlib.nullcontext(ByLength())),
          (launch.tokenizers, 'load', lambda name: Tokenizer()), *patches):
        stack.enter_context(mock.patch.object(place, attribute, new))
      counter = stack.enter_context(metrics.CompilationCounter())
      state = train_policy.run(config, self.folder / name)
    return state, metrics.read(
        self.folder / name / metrics.FILE_NAME), counter.counts

  def test_critic_is_trained_saved_and_resumed(self):
    state, lines, counts = self.run_script(make_config(), 'whole')
    with self.subTest('each function is compiled once'):
      self.assertEqual({name: counts[name] for name in _FUNCTIONS},
                       dict.fromkeys(_FUNCTIONS, 1))
    with self.subTest('the critic moves, from a value of nothing'):
      self.assertEqual(int(state.critic.step), _STEPS)
      self.assertEqual(lines[0]['value'], 0.0)
      self.assertNotEqual(lines[-1]['value'], 0.0)
      for line in lines:
        self.assertGreater(line['critic_grad_norm'], 0)
        self.assertLessEqual(line['explained_variance'], 1.0)
    with self.subTest('a stopped run ends as one that was not'):
      self.run_script(make_config(num_steps=_STEPS - 1), 'parts')
      again, other, _ = self.run_script(make_config(), 'parts')
      jax.tree.map(np.testing.assert_array_equal, again, state)
      self.assertEqual([line['critic_loss'] for line in other],
                       [line['critic_loss'] for line in lines])
    with self.subTest('negative control: a critic that is forgotten'):
      restore = checkpoint.Checkpointer.restore_or

      def forgetful(saver, begin, progress):
        fresh = jax.tree.map(jax.numpy.copy, begin.critic)
        found, progress = restore(saver, begin, progress)
        return found.replace(critic=fresh), progress

      self.run_script(make_config(num_steps=_STEPS - 1), 'lost')
      lost, _, _ = self.run_script(
          make_config(), 'lost',
          (checkpoint.Checkpointer, 'restore_or', forgetful))
      self.assertGreater(toys.largest_difference(lost.params, state.params), 0)

  def test_guide_ppo_trains_on_hinted_answers(self):
    config = make_config('guide_smoke', num_steps=1)
    config.guide.update(threshold=1.0, hint_upper=1.0)  # every prompt
    state, lines, _ = self.run_script(config, 'guide')
    self.assertGreater(lines[0]['guided_tokens'], 0)
    self.assertLess(abs(lines[0]['guided_fraction'] - 1), 1e-5)
    self.assertEqual(int(state.critic.step), 1)

  def test_what_cannot_work_is_refused(self):
    config = make_config()
    config.packing.select.drop_zero_adv_groups = True
    with self.assertRaisesRegex(ValueError, 'drop_zero_adv_groups=False'):
      train_policy.check(config)
    config = make_config()
    config.critic.gamma = 1.5
    with self.assertRaisesRegex(ValueError, 'config.critic'):
      train_policy.check(config)


if __name__ == '__main__':
  absltest.main()
