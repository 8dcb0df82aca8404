"""Small models with large weights, and packed rows, that many tests share.

At the scale of an initialisation a tiny model says the same whatever it reads;
these weights make routing decisive, attention sharp and logits of order one.
"""
import functools

from flax import linen as nn
import jax
import numpy as np

from rljax import models
from rljax.models import transformer


@functools.cache
def model_and_params(variant='tiny', seed=0, **overrides):
  """A model and parameters drawn by NumPy, so that nothing is compiled."""
  model = models.create(variant, **overrides)
  shapes = nn.meta.unbox(transformer.abstract_params(model))
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    value = rng.normal(size=leaf.shape)
    if path[-1].key == 'scale':
      value = 1 + 0.2 * value
    elif path[-1].key != 'table':
      value = value * 1.5 * model.config.model_dim ** -0.5
    return jax.numpy.asarray(value, leaf.dtype)

  return model, jax.tree_util.tree_map_with_path(draw, shapes)


def rows(lengths, row_length, seed=0, vocab_size=272):
  """Random tokens with positions and segments.

  Args:
    lengths: for each row, the lengths of its segments, in order; what is left
      of the row is padding.
    row_length: positions in a row.
    seed: of the tokens.
    vocab_size: bound of the tokens.

  Returns:
    tokens_BT, position_BT, segment_BT, int32; padding has random tokens too.
  """
  shape_BT = (len(lengths), row_length)
  rng = np.random.default_rng(seed)
  tokens_BT = rng.integers(0, vocab_size, shape_BT, dtype=np.int32)
  position_BT, segment_BT = (np.zeros(shape_BT, np.int32) for _ in range(2))
  segment = 0
  for b, row in enumerate(lengths):
    begin = 0
    for length in row:
      segment += 1
      position_BT[b, begin:begin + length] = np.arange(length)
      segment_BT[b, begin:begin + length] = segment
      begin += length
  return tokens_BT, position_BT, segment_BT


def assert_trees_close(got, want, **tolerance):
  """Compares leaf by leaf and names the leaf that differs."""
  jax.tree_util.tree_map_with_path(
      lambda path, a, b: np.testing.assert_allclose(
          np.asarray(a, np.float32), np.asarray(b, np.float32),
          err_msg=jax.tree_util.keystr(path), **tolerance), got, want)


def largest_difference(a, b) -> float:
  """Over all leaves of two trees."""
  return max(jax.tree.leaves(jax.tree.map(
      lambda x, y: float(np.max(np.abs(np.asarray(x) - np.asarray(y)))), a,
      b)))
