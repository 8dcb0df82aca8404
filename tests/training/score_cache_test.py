"""Scores on disk: kept by token, resumed, and refused when they are stale."""
import os
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax.numpy as jnp
import numpy as np

from rljax.training import score_cache
from tests.training import pairs_test

PRINT = {'parameters': 'a', 'tokenizer': 'byte', 'truncation': {'row': 8}}


class Model:
  """Stands in for a scorer; says how often it was asked."""

  def __init__(self, dies_after=None):
    self.calls, self.dies_after = 0, dies_after

  def __call__(self, pairs):
    if self.calls == self.dies_after:
      raise KeyboardInterrupt
    self.calls += 1
    return [tuple(np.float32(-int(pair.id) - np.arange(len(side)) / 8)
                  for side in (pair.chosen, pair.rejected)) for pair in pairs]


class ScoreCacheTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(
        tempfile.TemporaryDirectory())) / 'scores'
    self.pairs = pairs_test.pairs()  # six

  def scored(self, model, pairs=None, **changes):
    return score_cache.scored(
        self.folder, self.pairs if pairs is None else pairs, model,
        PRINT | changes, per_call=2, calls_per_part=1)

  def assert_whole(self, found):
    want = dict(zip([pair.id for pair in self.pairs],
                    [sides for pair in self.pairs for sides in Model()([pair])],
                    strict=True))
    self.assertEqual(found.keys(), want.keys())
    for name, sides in want.items():
      for a, b in zip(found[name], sides, strict=True):
        np.testing.assert_array_equal(a, b)
        self.assertEqual(a.dtype, np.float32)

  def test_every_token_is_scored_once_and_read_afterwards(self):
    model = Model()
    self.assert_whole(self.scored(model))
    self.assertEqual(model.calls, 3)
    self.assert_whole(self.scored(model))
    self.assertEqual(model.calls, 3)

  @parameterized.parameters(0, 1, 2)
  def test_what_a_kill_left_is_whole_and_the_rest_is_scored(self, calls):
    with self.assertRaises(KeyboardInterrupt):
      self.scored(Model(dies_after=calls))
    model = Model()
    self.assert_whole(self.scored(model))
    self.assertEqual(model.calls, 3 - calls)
    self.assertEmpty(list(self.folder.glob('*.tmp')))

  def test_two_runs_may_write_the_same_part_at_once(self):
    fsync, others = os.fsync, []

    def while_it_is_written(file):
      fsync(file)
      if not others:
        others.append(None)
        others.append(self.scored(Model()))

    with mock.patch.object(os, 'fsync', while_it_is_written):
      self.assert_whole(self.scored(Model()))
    self.assert_whole(others[1])
    self.assertEmpty(list(self.folder.glob('*.tmp')))

  @parameterized.parameters(
      (dict(parameters='b'), "parameters: there 'a', now 'b'"),
      (dict(tokenizer='other'), "tokenizer: there 'byte', now 'other'"),
      (dict(truncation={'row': 9}), 'truncation: there .*8.*now .*9'),
      (dict(dtype='bfloat16'), r"dtype: there '\(absent\)', now 'bfloat16'"))
  def test_a_stale_cache_is_refused_with_what_differs(self, change, message):
    self.scored(Model())
    before = sorted(self.folder.iterdir())
    with self.assertRaisesRegex(ValueError, message):
      self.scored(Model(), **change)
    self.assertEqual(sorted(self.folder.iterdir()), before)

  def test_fewer_pairs_are_other_data(self):
    self.scored(Model())
    with self.assertRaisesRegex(ValueError, 'pairs: there 6, now 5'):
      self.scored(Model(), self.pairs[:5])

  @parameterized.parameters(b'', b'PK nonsense')
  def test_a_damaged_part_is_named(self, content):
    self.scored(Model())
    (self.folder / '00001.npz').write_bytes(content)
    with self.assertRaisesRegex(ValueError, '00001.npz.*cannot be read'):
      self.scored(Model())

  def test_a_part_of_other_lengths_is_named(self):
    self.scored(Model())
    (self.folder / '00000.npz').rename(self.folder / '00001.npz')
    with self.assertRaisesRegex(ValueError, '00001.npz.*numbers instead of'):
      self.scored(Model())

  def test_an_id_twice_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'a different id for each of 2'):
      self.scored(Model(), [self.pairs[0]] * 2)


class ChecksumTest(parameterized.TestCase):

  def tree(self):
    rng = np.random.default_rng(0)
    return {'a': jnp.asarray(rng.normal(size=(3, 5)), jnp.float32),
            'b': {'c': jnp.asarray(rng.normal(size=7), jnp.bfloat16)}}

  def test_every_bit_and_every_place_counts(self):
    base, seen = self.tree(), {score_cache.checksum(self.tree())}
    self.assertEqual(seen, {score_cache.checksum(base)})
    changed = [
        base | {'a': base['a'].at[1, 2].set(np.nextafter(
            np.float32(base['a'][1, 2]), np.float32(9)))},
        base | {'a': base['a'][::-1]}, base | {'a': base['a'][:, ::-1]},
        base | {'a': base['a'].reshape(5, 3)}, base | {'a': -base['a']},
        {'d': base['a'], 'b': base['b']},
        base | {'b': {'c': base['b']['c'][::-1]}}]
    for tree in changed:
      seen.add(score_cache.checksum(tree))
    self.assertLen(seen, 1 + len(changed))


if __name__ == '__main__':
  absltest.main()
