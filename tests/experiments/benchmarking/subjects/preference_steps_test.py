"""The pairs of the benchmark, the counted products, and who is sent away."""
import math

from absl.testing import absltest

from experiments.benchmarking.subjects import crews
from experiments.benchmarking.subjects import preference_steps
from rljax import models


class PairsTest(absltest.TestCase):

  def test_everybody_can_read_them(self):
    pairs = preference_steps.make_pairs(32_000, smoke=False)
    self.assertEqual(pairs, preference_steps.make_pairs(32_000, smoke=False))
    self.assertLen(pairs, 8)
    for prompt, *sides in pairs:
      for side in sides:
        self.assertEqual(side[-1], 1)  # the end of text, once
        self.assertNotIn(1, [*prompt, *side[:-1]])
        self.assertNotIn(0, [*prompt, *side])  # the padding of peers
        self.assertLess(max([*prompt, *side]), 32_000)
      # Both texts of a pair fit into a row of ours, for the reward.
      self.assertLessEqual(2 * len(prompt) + sum(map(len, sides)), 1_024)

  def test_lengths_are_skewed(self):
    # The longest text is well above the mean: what padding costs.
    texts = [len(prompt) + len(side)
             for prompt, *sides in preference_steps.make_pairs(32_000, False)
             for side in sides]
    self.assertGreater(max(texts), 1.5 * sum(texts) / len(texts))


class RowLengthTest(absltest.TestCase):

  def test_the_least_room_is_left(self):
    # 64: three rows of 64 hold 40, 40, 40; 128: 40 + 40 + 40 in one.
    self.assertEqual(preference_steps.row_length([40, 40, 40]), 128)
    # 100 and 100 need 256 slots either way: the shorter row wins.
    self.assertEqual(preference_steps.row_length([100, 100]), 128)


class LimitTest(absltest.TestCase):

  def test_products_of_a_pair_by_hand(self):
    # One layer, width 2, one head of 2, feed-forward 3, vocabulary 5. Weights
    # of a token: 2 · 2 · (2 + 2) + 3 · 2 · 3 = 34; products 68 + 8 per token
    # attended to. Prompt of 1: attends 1. Sides of 1 and 3: 1 + 1 and 1 + 2.
    config = models.create('tiny_dense', model_dim=2, num_layers=1, num_heads=1,
                           num_kv_heads=1, head_dim=2, mlp_dim=3,
                           vocab_size=5).config
    layers = (68 + 8) + (68 + 8 * 2) + 3 * (68 + 8 * 3)
    head = 2 * 2 * 5 * (1 + 3)
    self.assertEqual(preference_steps.dpo_flops(config, 1, 1, 3), layers + head)
    self.assertEqual(crews.flops_of_token(config, 3), 68 + 8 * 2 + 20)

  def test_a_shared_prompt_is_counted_once(self):
    config = models.create('tiny_dense').config
    apart = sum(200 * crews.flops_of_layers(config, (200 + 1) / 2)
                for _ in range(2))
    together = preference_steps.dpo_flops(config, 150, 50, 50)
    self.assertLess(together - 100 * 2 * config.model_dim * config.vocab_size,
                    0.7 * apart)


class AgreementTest(absltest.TestCase):

  def test_a_policy_that_is_not_its_reference_is_refused(self):
    start = math.log(2)
    preference_steps.check_start({'rljax': [start], 'trl': [start + 5e-5]},
                                 start)
    with self.assertRaisesRegex(ValueError, 'trl to begin with.*0.6931'):
      preference_steps.check_start({'rljax': [start], 'trl': [0.7]}, start)


if __name__ == '__main__':
  absltest.main()
