"""The lock-step peer is a fair one, and a refilling sampler twice as fast."""
from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarking.subjects import decode_skewed
from tests import toys

MIX = decode_skewed.Mix(num_slots=8, num_prompts=16, samples_per_prompt=4,
                        prompt_length=6, mean_length=16, max_new_tokens=128)


def untrained():
  """All tokens equally likely, whatever the context."""
  model, params = toys.model_and_params('tiny')
  kernel = params['head']['kernel']
  return model, params | {'head': {'kernel': jnp.zeros_like(kernel)}}


class DecodeSkewedTest(absltest.TestCase):

  def test_slots_that_refill_need_half_the_model_calls(self):
    found = decode_skewed.decode_skewed(*untrained(), MIX, rounds=1)
    calls = found['model_calls']
    self.assertGreater(calls['lock_step'], 2 * calls['rljax'])
    # Geometric, one stop id in 16: mean 16, standard error 2 in 64 draws.
    self.assertBetween(found['mean_length'], 9, 23)
    self.assertEqual(found['tokens'], round(found['mean_length'] * 64))
    self.assertAlmostEqual(found['occupancy'],
                           found['tokens'] / calls['rljax'] / 8)

  def test_lock_step_calls_are_the_longest_of_each_batch(self):
    model, params = toys.model_and_params('tiny')  # reads its context
    generate = decode_skewed.make_lock_step(model, MIX, tuple(range(32, 40)))
    prompts = np.random.default_rng(0).integers(0, 272, (16, 6), np.int32)
    length_PG, calls, tokens_PGT = generate(params, prompts, jax.random.key(0))
    self.assertEqual(calls, length_PG.reshape(-1, 8).max(axis=1).sum())
    last_PG = np.take_along_axis(tokens_PGT, length_PG[..., None] - 1, -1)
    ended_PG = (last_PG[..., 0] >= 32) & (last_PG[..., 0] < 40)
    np.testing.assert_array_equal(ended_PG | (length_PG == 128), True)
    self.assertGreater(ended_PG.mean(), 0.5)

  def test_samplers_that_differ_are_not_timed(self):
    model, params = toys.model_and_params('tiny')
    decode_skewed.decode_skewed(model, params, MIX, rounds=1)
    wrong = jax.tree.map(lambda x: x * 1.05, params)
    make = decode_skewed.make_lock_step

    def other(*arguments):
      generate = make(*arguments)
      return lambda _, prompts, key: generate(wrong, prompts, key)

    self.enter_context(
        absltest.mock.patch.object(decode_skewed, 'make_lock_step', other))
    with self.assertRaisesRegex(ValueError, 'Expected the same responses'):
      decode_skewed.decode_skewed(model, params, MIX, rounds=1)

  def test_batches_must_be_full(self):
    with self.assertRaisesRegex(ValueError, 'Round the numbers'):
      decode_skewed.Mix(num_slots=12, samples_per_prompt=8)
    with self.assertRaisesRegex(ValueError, 'Round the numbers'):
      decode_skewed.Mix(num_slots=16, num_prompts=3, samples_per_prompt=8)


if __name__ == '__main__':
  absltest.main()
