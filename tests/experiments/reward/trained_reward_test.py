"""Scores of responses to one prompt, with the prompt computed once."""
from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from experiments.reward import trained_reward
from rljax import models
from rljax import sharding
from rljax.data import tokenizer as tokenizers
from rljax.models import reward as nets
from rljax.training import metrics
from rljax.training import reward as training
from tests.data import judge_labels_test

_ROW = 96  # tokens
_TEXTS = ['yes', 'no', 'perhaps', 'yes', 'a' * 30, 'b' * 200, 'no idea', 'x']
_PROMPTS = ['Is it?'] * 6 + ['Was it?'] * 2


class Recording(tokenizers.ByteTokenizer):
  """Forges turns where it is told so: no text of bytes does."""
  special_ids = frozenset([ord('<')])


def scorer(variant='tiny_dense', candidates=4, heads=1, tokenizer=None):
  """Of random parameters, and the batches that it is asked for."""
  model = nets.RewardModel(models.create(variant=variant, num_layers=2).config,
                           heads)
  dummy_BT = jnp.zeros((1, 8), jnp.int32)
  params = sharding.unbox(model.init(
      jax.random.key(0), dummy_BT, dummy_BT, dummy_BT,
      jnp.zeros((1, 8)))['params'])
  score = training.make_score_fn(training.make_head_forward(model))
  asked = []

  def noted(params, batch):
    asked.append(batch)
    return score(params, batch)

  return trained_reward.Scorer(
      tokenizer or tokenizers.ByteTokenizer(), noted, params,
      dict(num_rows=4, row_length=_ROW, lists_per_row=4,
           num_candidates=candidates), _ROW), asked


def tokens(asked):
  return sum(int(np.sum(batch.segment_BT > 0)) for batch in asked)


class ScorerTest(parameterized.TestCase):

  @parameterized.product(variant=('tiny_dense', 'tiny'), heads=(1, 3))
  def test_scores_are_those_of_the_texts_by_themselves(self, variant, heads):
    ask, asked = scorer(variant, heads=heads)
    with metrics.CompilationCounter() as counter:
      together = ask(_PROMPTS, _TEXTS, [True] * 7 + [False])
      first = len(asked)
      apart = np.concatenate([
          ask([prompt], [text], [ends]) for prompt, text, ends in zip(
              _PROMPTS, _TEXTS, [True] * 7 + [False], strict=True)])
    np.testing.assert_allclose(together, apart, atol=1e-4)
    self.assertGreater(np.nanstd(together), 1e-2)
    self.assertEqual(counter.counts['score_lists'], 1)
    with self.subTest('what is too long has no score, whatever is beside it'):
      np.testing.assert_array_equal(np.isnan(together),
                                    [text == 'b' * 200 for text in _TEXTS])
    with self.subTest('a prompt of many responses is computed once for four'):
      # <bos> <user> Is it? <eos> <assistant> are 10 tokens: they stand there
      # twice, for four responses and for one, and Was it? is 11, once.
      answers = sum(len(text) + 1 for text in _TEXTS if len(text) < 99) - 1
      self.assertEqual(tokens(asked[:first]), 10 * 2 + 11 + answers)
      self.assertEqual(tokens(asked[first:]), 10 * 5 + 11 * 2 + answers)

  def test_a_score_belongs_to_its_text(self):
    # Negative control: a mix-up of the places in a list would be seen.
    ask, _ = scorer()
    order = np.random.default_rng(0).permutation(len(_TEXTS))
    shuffled = ask([_PROMPTS[i] for i in order], [_TEXTS[i] for i in order])
    plain = ask(_PROMPTS, _TEXTS)
    np.testing.assert_allclose(shuffled, plain[order], atol=1e-4)
    self.assertGreater(np.nanmax(np.abs(shuffled - plain)), 1e-2)

  def test_a_forged_turn_has_no_score(self):
    ask, _ = scorer(tokenizer=Recording())
    found = ask(['Is it?'] * 3, ['yes', '<end> yes', 'no'])
    np.testing.assert_array_equal(np.isnan(found), [False, True, False])

  def test_a_stop_token_at_the_end_is_where_it_belongs(self):
    tokenizer = judge_labels_test.bpe([])
    text = lambda response: trained_reward.Scorer(
        tokenizer, None, None, {}, _ROW)._text('Is it?', response, True)
    np.testing.assert_array_equal(text('yes<|end|>'), text('yes'))
    self.assertIsNone(text('yes<|end|>no'))
    self.assertIsNone(text('<|user|>'))

  def test_nothing_to_score(self):
    ask, asked = scorer()
    self.assertEqual(ask([], []).shape, (0,))
    np.testing.assert_array_equal(ask(['P'], ['b' * 200]), [np.nan])
    self.assertEmpty(asked)


class ListsTest(parameterized.TestCase):

  @parameterized.parameters(
      ('aaab', 3, 99, [[0, 1, 2], [3]]),
      ('aaaa', 3, 99, [[0, 1, 2], [3]]),
      ('aaba', 3, 99, [[0, 1], [2], [3]]),  # only neighbours
      ('aaaa', 1, 99, [[0], [1], [2], [3]]),
      # A prompt of two, and a token each: 2 + 1 + 1.
      ('aaaa', 4, 4, [[0, 1], [2, 3]]),
      ('a-aa', 4, 99, [[0, 2, 3]]))
  def test_neighbours_as_far_as_they_fit(self, prompts, most, room, expected):
    texts = [None if prompt == '-' else np.array([1, ord(prompt), i])
             for i, prompt in enumerate(prompts)]
    self.assertEqual(
        trained_reward.in_lists(prompts, texts, room, most), expected)


if __name__ == '__main__':
  absltest.main()
