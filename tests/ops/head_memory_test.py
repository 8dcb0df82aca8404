"""The head at a large vocabulary: what XLA sets aside for it, without running.

Measured: 25 MB, where the logits alone would be 622 MB.
"""
from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp

from experiments.benchmarking.subjects import head_memory
from rljax.ops import logprobs
from rljax.ops import sampling
from rljax.ops import vocabulary
from rljax.training import program

TOKENS, WIDTH, VOCAB = 1_024, 128, 151_936
LIMIT = 160e6  # bytes


def temporary(loss) -> int:
  """Bytes between arguments and gradients."""
  array = lambda dtype, *shape: jax.ShapeDtypeStruct(shape, dtype)
  head = vocabulary.Projection(array(jnp.float32, 1, TOKENS, WIDTH),
                               array(jnp.float32, WIDTH, VOCAB))
  compiled = jax.jit(jax.value_and_grad(loss)).lower(
      head, array(jnp.int32, 1, TOKENS)).compile()
  return program.memory(compiled)['temporary']


class HeadMemoryTest(parameterized.TestCase):

  def test_log_probability_and_entropy_with_gradients(self):
    self.assertLess(temporary(head_memory.blockwise), LIMIT)

  def test_as_sampled_and_with_a_reference(self):
    params = sampling.make_params(top_k=50, top_p=0.9)

    def loss(head, tokens_BT):
      found = logprobs.score(head, tokens_BT, jnp.ones_like(tokens_BT), params,
                             reference=head)
      return jax.tree.reduce(jnp.add, jax.tree.map(jnp.sum, found))
    self.assertLess(temporary(loss), LIMIT)

  def test_whole_logits_would_be_seen(self):
    self.assertGreater(temporary(head_memory.dense), 4 * TOKENS * VOCAB)


if __name__ == '__main__':
  absltest.main()
