"""Reward models through the script: saved whole, resumed, handed over."""
import json

from absl.testing import absltest
import jax
import numpy as np
import pytest

from configs.policy import c3po_tiny
from configs.reward import bradley_terry_tiny
from configs.reward import gram_stage1_tiny
from configs.reward import gram_tiny
from configs.reward import plackett_luce_tiny
from experiments import train_policy
from experiments import train_reward_model
from experiments.reward import trained_reward
from rljax import sharding
from rljax.agents import pair_judge
from rljax.data import toy_comparisons
from rljax.models import reward as models
from rljax.training import metrics

_STEPS = 3
# A run that ends with the parameters that it has begun with.
_STILL = {'num_steps': 1, 'optimizer.learning_rate': 0.0}


def make_config(module, **changes):
  config = module.get_config('smoke')
  config.model = dict(variant='tiny_dense', num_layers=1)
  config.num_steps = _STEPS
  config.update_from_flattened_dict(changes)
  return config


@pytest.mark.usefixtures('one_device', 'compilation_cache')
class RewardModelTest(absltest.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path):
    self.folder = tmp_path

  def train(self, config, name):
    """The script; returns its state, metrics, and what was compiled."""
    with metrics.CompilationCounter() as counter:
      state = train_reward_model.run(config, self.folder / name)
    return state, metrics.read(
        self.folder / name / metrics.FILE_NAME), counter.counts

  def load(self, name, **options):
    mesh = sharding.make_mesh()
    return trained_reward.load(self.folder / name, mesh, sharding.make_rules(),
                               **options)

  def test_heads_are_saved_whole_and_resumed(self):
    config = make_config(bradley_terry_tiny, num_heads=2)
    state, lines, counts = self.train(config, 'whole')
    with self.subTest('each function is compiled once'):
      self.assertEqual([counts[name] for name in ('update', 'score_lists')],
                       [1, 1])
    with self.subTest('a stopped run ends as one that was not'):
      self.train(make_config(bradley_terry_tiny, num_heads=2,
                             num_steps=_STEPS - 1), 'parts')
      again, other, _ = self.train(config, 'parts')
      jax.tree.map(np.testing.assert_array_equal, again, state)
      self.assertEqual([line['loss'] for line in other],
                       [line['loss'] for line in lines])
    records = toy_comparisons.records(6, seed=5)
    prompts = [one['prompt'] for one in records]
    texts = [one['chosen'] for one in records]
    loaded = self.load('whole')
    with self.subTest('loaded, it gives the scores of what was trained'):
      in_memory = trained_reward.Scorer(
          loaded.ask.tokenizer, loaded.ask.score, state.params,
          loaded.ask.shape, loaded.ask.max_length)
      np.testing.assert_array_equal(loaded.ask(prompts, texts),
                                    in_memory(prompts, texts))
      self.assertGreater(np.std(loaded.ask(prompts, texts)), 1e-3)
    with self.subTest('negative control: a head that was not restored'):
      fresh = {**state.params, models.HEAD: models.from_language_model(
          state.params, 2, jax.random.key(1))[models.HEAD]}
      self.assertGreater(np.abs(
          trained_reward.Scorer(
              loaded.ask.tokenizer, loaded.ask.score, fresh, loaded.ask.shape,
              loaded.ask.max_length)(prompts, texts)
          - loaded.ask(prompts, texts)).max(), 1e-2)
    with self.subTest('what is too long has no score; a cut text no end'):
      found = loaded.ask(['c'] * 3, ['a' * 99, 'ab', 'ab'],
                         [True, True, False])
      np.testing.assert_array_equal(np.isnan(found), [True, False, False])
      self.assertNotEqual(found[1], found[2])
    with self.subTest('the statistics are those of its own step'):
      stored = json.loads(
          (self.folder / 'whole' / 'score_statistics.json').read_text())
      self.assertEqual((stored['step'], stored['count']), (_STEPS, 32))

  def test_stages_of_a_judge_hand_over(self):
    self.train(make_config(gram_stage1_tiny), 'stage_1')
    begin = {'init.checkpoint': str(self.folder / 'stage_1' / 'checkpoints')}
    state, lines, counts = self.train(
        make_config(gram_tiny, **begin, **{'loss.wrong_label_mass': 0.1}),
        'stage_2')
    with self.subTest('it begins where stage 1 ended'):
      _, without, _ = self.train(make_config(gram_tiny, num_steps=1), 'without')
      self.assertNotEqual(lines[0]['param_norm'], without[0]['param_norm'])
    self.assertEqual([counts[name] for name in ('update', 'score_lists')],
                     [1, 1])
    with self.subTest('adaptation goes on from stage 2'):
      adapted, _, _ = self.train(make_config(gram_tiny, **_STILL, **{
          'init.checkpoint': str(self.folder / 'stage_2' / 'checkpoints'),
          'data.source.length': 8}), 'adapted')
      jax.tree.map(np.testing.assert_array_equal, adapted.params, state.params)
    with self.subTest('the judge is a PairJudge'):
      judge = self.load('stage_2').ask
      pairs = [pair_judge.Pair('c', 'cca', 'bab'),
               pair_judge.Pair('c', 'x', 'x')]
      found = pair_judge.scores(judge, pairs)
      np.testing.assert_allclose(found.sum(axis=1), 1.0)
      self.assertEqual(found[1, 0], 0.5)
      np.testing.assert_array_equal(
          pair_judge.rank(judge, ['c'], [['cc', 'cc']], 'knockout'), [[1, 0]])
    with self.subTest('a text that is too long for one answer is cut alike'):
      long = pair_judge.scores(judge, [pair_judge.Pair('c', 'a' * 900,
                                                       'b' * 900)])
      self.assertFalse(np.isnan(long).any())
    with self.subTest('stage 1 alone judges nothing'):
      with self.assertRaisesRegex(ValueError, 'learnt no preference'):
        self.load('stage_1')
    self.assertEqual(int(state.step), _STEPS)
    self.assertLen(lines, _STEPS)

  def test_a_head_goes_on_a_language_model_and_on_a_reward_model(self):
    at = lambda name: str(self.folder / name / 'checkpoints')
    language_model, _, _ = self.train(
        make_config(gram_stage1_tiny, num_steps=1), 'language_model')
    first, _, _ = self.train(make_config(plackett_luce_tiny, **_STILL, **{
        'init.checkpoint': at('language_model')}), 'first')
    second, _, _ = self.train(make_config(plackett_luce_tiny, **_STILL, **{
        'init.checkpoint': at('first'), 'init.head_from_checkpoint': True}),
                              'second')
    same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
    with self.subTest('the parameters are those of the run that is named'):
      trunk = {name: part for name, part in first.params.items()
               if name != models.HEAD}
      same(trunk, {name: language_model.params[name] for name in trunk})
      same(second.params, first.params)
    with self.subTest('a language model is no reward model, nor the reverse'):
      with self.assertRaisesRegex(ValueError, 'num_heads'):
        self.train(make_config(plackett_luce_tiny, num_steps=1, **{
            'init.checkpoint': at('language_model'),
            'init.head_from_checkpoint': True}), 'third')
      with self.assertRaisesRegex(ValueError, 'num_heads'):
        self.train(make_config(plackett_luce_tiny, num_steps=1, **{
            'init.checkpoint': at('first')}), 'fourth')

  def test_both_reward_a_policy(self):
    for module, name in ((bradley_terry_tiny, 'scores'), (gram_tiny, 'judge')):
      self.train(make_config(module, num_steps=1, **{
          'packing.row_length': 256, 'model.num_layers': 1}), name)
      config = c3po_tiny.get_config('smoke')
      config.model = dict(variant='tiny_dense', num_layers=1)
      config.num_steps, config.dynamic_sampling = 1, False
      config.data.source.data_dir = str(self.folder / 'data')
      config.reward_model.update(run=str(self.folder / name),
                                 normalize=name == 'scores')
      with metrics.CompilationCounter() as counter:
        train_policy.run(config, self.folder / f'policy_{name}')
      line, = metrics.read(
          self.folder / f'policy_{name}' / metrics.FILE_NAME)
      with self.subTest(f'{name}: an untrained policy is always wrong'):
        self.assertEqual(line['accuracy'], 0.0)  # as the verifiers say
        self.assertEqual(line['ungradable'], 0.0)
        self.assertNotEqual(line['reward'], 0.0)
        self.assertGreater(line['grad_norm'], 0)  # and yet there is a signal
      with self.subTest(f'{name}: nothing is compiled for it twice'):
        for function in ('score_lists', 'prefill', 'decode', 'update'):
          self.assertEqual(counter.counts[function], 1, function)
    with self.subTest('a judge needs no statistics, and has none'):
      config.reward_model.normalize = True
      with self.assertRaisesRegex(ValueError, 'normalize=False'):
        train_policy.run(config, self.folder / 'refused')

  def test_what_cannot_work_is_refused(self):
    for changes, message in (
        ({'form': 'score'}, "got 'score'"),
        ({'num_heads': 0}, 'num_heads >= 1'),
        ({'data.lists_per_step': 99}, 'num_rows >='),
        ({'data.source.held_out': 3}, 'four held-out .*got 3'),
        ({'loss.center_coef': -1.0}, 'center_coef >= 0'),
        ({'data.source.size': 3}, 'num_candidates')):
      with self.assertRaisesRegex(ValueError, message):
        self.train(make_config(bradley_terry_tiny, **changes), 'refused')
    with self.assertRaisesRegex(ValueError, 'num_candidates=2'):
      self.train(make_config(gram_tiny, **{'packing.num_candidates': 3}), 'no')
    with self.assertRaisesRegex(ValueError, "too_long='drop'"):
      self.train(make_config(bradley_terry_tiny, **{
          'data.too_long': 'fail', 'packing.row_length': 8}), 'short')


if __name__ == '__main__':
  absltest.main()
