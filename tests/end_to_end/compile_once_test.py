"""Fifty RL steps of lengths that swing by a factor of ten compile once."""
import contextlib
import dataclasses
from unittest import mock

from absl.testing import absltest
import jax
import numpy as np
import pytest

from configs.pipeline import ring_lite_mini
from experiments import train_policy
from experiments.job import launch
from experiments.job import prompt_records
from experiments.policy import policy_batches
from experiments.policy import policy_pieces
from experiments.policy import responses
from rljax import sharding
from rljax.data import sources
from rljax.data import tokenizer as tokenizers
from rljax.training import batch as batches
from rljax.training import metrics
from rljax.types import RewardResult
from tests.experiments import graded as graded_lib

_STEPS = 50
_ROWS = 64
_ENTROPY = 5.54  # nats; steps are on both sides of it
_FUNCTIONS = ('init_slots', 'prefill', 'decode', 'harvest', 'score',
              'token_weights', 'update')


class Tokenizer(tokenizers.ByteTokenizer):
  """Many ids end a response.

  An untrained policy draws all alike: with eight, lengths are geometric with a
  mean of 34; with the one of the bytes any limit would cut most of them.
  """
  stop_ids = tuple(range(100, 108))


class CoinScorer:
  """Stands in for the verifiers: rewards that differ within a group."""

  def check_golds(self, records):
    del records
    return []

  def score(self, records, texts, lengths, stopped):
    del texts, stopped
    return [RewardResult(bool(n % 2), float(n % 2), 'ok', None, 0.0)
            for n, _ in zip(lengths, records, strict=True)]


def make_config():
  config = ring_lite_mini.get_config('smoke').rl[0]
  config.model = dict(variant='tiny', num_layers=1)  # shapes are the subject
  config.num_steps = _STEPS
  config.checkpoint.every = _STEPS
  config.data.prompts_per_step = 16
  config.rollout.num_slots = 32
  config.packing.select.token_budget = 1_024
  # One row at a time: a step pays for what it fills.
  config.packing.update(row_length=256, num_rows=_ROWS, rows_per_device=1)
  config.entropy_control = dict(target=_ENTROPY, step=5e-4, max_coef=0.05)
  return config


def problems():
  """Prompts of 1 to 39 bytes."""
  lengths = np.random.default_rng(0).integers(1, 40, 64)
  return sources.from_records('swinging', [
      graded_lib.record(i) | dict(
          prompt='a' * int(n), answer='1', family='f', difficulty=0,
          verifier='math', solution='', metadata='{}')
      for i, n in enumerate(lengths)])


@dataclasses.dataclass
class Watcher:
  """Wraps pieces of the script: turns what may turn, notes what passes."""
  counter: metrics.CompilationCounter
  rng: np.random.Generator
  sample: object = responses.sample
  pack: object = policy_batches.select_and_pack
  build: object = policy_pieces.make_stages
  compilations: list = dataclasses.field(default_factory=list)
  lengths: list = dataclasses.field(default_factory=list)
  rows: list = dataclasses.field(default_factory=list)
  stages: object = None

  def sampled(self, *arguments, sampling, **options):
    """A limit and a way of sampling for every step."""
    self.compilations.append(sum(self.counter.counts.values()))
    limit = 3 if len(self.lengths) % 10 == 5 else int(
        6 * 16 ** self.rng.uniform())
    rollout = self.sample(*arguments, **options, sampling=sampling | dict(
        max_new_tokens=limit, temperature=float(self.rng.uniform(0.7, 1.3)),
        top_p=float(self.rng.uniform(0.9, 1)),
        top_k=int(self.rng.integers(0, 99))))
    self.lengths.append(rollout.length_PG.ravel())
    return rollout

  def packed(self, *arguments):
    rows, report = self.pack(*arguments)
    self.rows.append(rows)
    return rows, report

  def built(self, *arguments):
    self.stages = self.build(*arguments)
    return self.stages

  def run(self, folder):
    """The script itself."""
    with contextlib.ExitStack() as stack:
      for place, name, new in (
          (responses, 'sample', self.sampled),
          (policy_batches, 'select_and_pack', self.packed),
          (policy_pieces, 'make_stages', self.built),
          (policy_pieces.rewards, 'create',
           lambda **options: contextlib.nullcontext(CoinScorer())),
          (prompt_records.sources, 'open_source', lambda **options: problems()),
          (launch.tokenizers, 'load', lambda name: Tokenizer())):
        stack.enter_context(mock.patch.object(place, name, new))
      return train_policy.run(make_config(), folder)


class CompileOnceTest(absltest.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path, one_device):
    self.folder = tmp_path

  def test_lengths_and_temperatures_change_and_nothing_compiles_again(self):
    with metrics.CompilationCounter() as counter:
      watcher = Watcher(counter, np.random.default_rng(0))
      state = watcher.run(self.folder)
      lines = metrics.read(self.folder / metrics.FILE_NAME)
      with self.subTest('one compilation each'):
        self.assertLen(watcher.lengths, _STEPS)
        for name in _FUNCTIONS:
          self.assertEqual(counter.counts[name], 1, name)
        # Of anything whatever, after the first step.
        self.assertEqual(watcher.compilations[1], watcher.compilations[-1])
      with self.subTest('what is steered moves'):
        for line in lines:
          self.assertEqual(line['entropy_coef'] > 0,
                           line['entropy'] < _ENTROPY)
        self.assertGreater(
            len({line['entropy_coef'] for line in lines}), 2)
      with self.subTest('lengths swing'):
        for measure in (np.mean, np.max):
          found = [measure(lengths_R) for lengths_R in watcher.lengths]
          self.assertGreater(max(found), 10 * min(found))
      with self.subTest('the budget is filled exactly'):
        budget = make_config().packing.select.token_budget
        sampled = [lengths_R.sum() for lengths_R in watcher.lengths]
        for line, rows, tokens in zip(lines, watcher.rows, sampled,
                                      strict=True):
          self.assertEqual(rows.mask_BT.sum(), min(budget, tokens))
          self.assertEqual(line['selected_tokens'], min(budget, tokens))
        full = np.mean(np.array(sampled) >= budget)
        self.assertBetween(full, 0.3, 0.95)  # both cases occur
      with self.subTest('rows are full'):
        self.check_fill(watcher.rows, [line['row_fill'] for line in lines])
      with self.subTest('negative control: another shape compiles again'):
        self.check_another_shape(watcher, state, counter)

  def check_fill(self, rows, reported):
    """A part without a token is skipped; here each row is one."""
    real = np.array([(r.segment_BT > 0).sum() for r in rows])
    computed = np.array([r.segment_BT[r.segment_BT.any(axis=1)].size
                         for r in rows])
    np.testing.assert_allclose(reported, real / computed, rtol=1e-6)
    print(f'row_fill: {real.sum() / computed.sum():.3f} of all, '
          f'{np.min(reported):.3f} in the worst step')
    self.assertGreater(real.sum() / computed.sum(), 0.9)
    # A short step may end in a row of few tokens; two rows are not given away.
    row_length = rows[0].segment_BT.shape[1]
    self.assertLess(np.max(computed - real), 2 * row_length)

  def check_another_shape(self, watcher, state, counter):
    rows = watcher.rows[-1]
    inputs = batches.ModelInputs(
        rows.tokens_BT, rows.position_BT, rows.segment_BT,
        np.zeros(rows.segment_BT.shape, np.float32),
        asked_BT=rows.response_BT)
    mesh = sharding.make_mesh()
    with sharding.use(mesh):
      watcher.stages.score(state.params, inputs)
      self.assertEqual(counter.counts['score'], 1)
      watcher.stages.score(state.params, jax.tree.map(
          lambda x: np.concatenate([x, x]), inputs))
    self.assertEqual(counter.counts['score'], 2)


if __name__ == '__main__':
  absltest.main()
