"""Fifty RL steps of lengths that swing by a factor of ten compile once."""
import dataclasses
import types

from absl.testing import absltest
import jax
import numpy as np
import pytest

from configs.pipeline import ring_lite_mini
from experiments import launch
from experiments import responses
from experiments import train_policy
from rljax import losses
from rljax import models
from rljax import packing
from rljax import sharding
from rljax.data import tokenizer as tokenizers
from rljax.training import batch as batches
from rljax.training import metrics
from rljax.training import optimizer as optimizers
from rljax.training import state as states
from rljax.types import RewardResult

_STEPS = 50
_ROWS = 64
_FUNCTIONS = ('init_slots', 'prefill', 'decode', 'harvest', 'score',
              'token_weights', 'update')
_TOKENIZER = tokenizers.load('byte')
# An untrained policy draws all ids alike: with eight that end a response, its
# length is geometric with a mean of 34, and any limit below that cuts most.
_STOP_IDS = tuple(range(100, 108))


class CoinScorer:
  """Stands in for the verifiers: rewards that differ within a group."""

  def score(self, records, texts, lengths, stopped):
    del texts, stopped
    return [RewardResult(bool(n % 2), float(n % 2), 'ok', None, 0.0)
            for n, _ in zip(lengths, records, strict=True)]


def make_config():
  config = ring_lite_mini.get_config('smoke').rl[0]
  config.model = dict(variant='tiny', num_layers=1)  # shapes are the subject
  config.data.prompts_per_step = 16
  config.rollout.num_slots = 32
  config.packing.select.token_budget = 1_024
  # One row at a time: a step pays for what it fills.
  config.packing.update(row_length=256, num_rows=_ROWS, rows_per_device=1)
  train_policy.check(config)
  return config


@dataclasses.dataclass
class Step:
  """What a step had and what it used."""
  lengths_R: np.ndarray
  selected: int
  row_fill: float
  compilations: int  # of anything whatever, since the start


class CompileOnceTest(absltest.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path):
    self.folder = tmp_path

  def test_lengths_and_temperatures_change_and_nothing_compiles_again(self):
    config = make_config()
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    job = launch.Job('rl', self.folder, mesh, sharding.make_rules(),
                     models.create(**config.model),
                     types.SimpleNamespace(stop_ids=_STOP_IDS), {})
    with (metrics.CompilationCounter() as counter,
          sharding.use(mesh, job.rules)):
      steps, batch = self.train(config, job, counter)
      with self.subTest('one compilation each'):
        for name in _FUNCTIONS:
          self.assertEqual(counter.counts[name], 1, name)
        self.assertEqual(steps[0].compilations, steps[-1].compilations)
      with self.subTest('lengths swing'):
        mean = [step.lengths_R.mean() for step in steps]
        self.assertGreater(max(mean), 10 * min(mean))
        longest = max(step.lengths_R.max() for step in steps)
        shortest = min(step.lengths_R.max() for step in steps)
        self.assertGreater(longest, 10 * shortest)
      with self.subTest('the budget is filled exactly'):
        budget = config.packing.select.token_budget
        for step in steps:
          self.assertEqual(step.selected, min(budget, step.lengths_R.sum()))
        full = [step.lengths_R.sum() >= budget for step in steps]
        self.assertBetween(np.mean(full), 0.3, 0.95)  # both cases occur
      with self.subTest('rows are full'):
        fills = [step.row_fill for step in steps]
        print(f'row_fill: mean {np.mean(fills):.3f}, min {np.min(fills):.3f}')
        self.assertGreater(np.mean(fills), 0.9)
        self.assertGreater(np.min(fills), 0.8)
      with self.subTest('negative control: another shape compiles again'):
        self.score(batch)
        self.assertEqual(counter.counts['score'], 1)
        self.score(jax.tree.map(lambda x: np.concatenate([x, x]), batch))
        self.assertEqual(counter.counts['score'], 2)

  def train(self, config, job, counter):
    """The loop of `train_policy`, with limits drawn for every step."""
    keys = states.named_keys(0, 'init', 'sample', 'update')
    objective = losses.get('policy', **config.loss)
    optimizer = optimizers.make_optimizer(**config.optimizer)
    state, state_sharding = states.init_state(
        job.model, optimizer, keys['init'], job.mesh, job.rules)
    reference = states.frozen_copy(state.params)
    stages = train_policy.make_stages(config, job, objective, optimizer,
                                      state_sharding, _ROWS)
    rng, found = np.random.default_rng(0), []
    for step in range(_STEPS):
      records = [dict(prompt='a' * int(n)) for n in rng.integers(
          1, 40, config.data.prompts_per_step)]
      limit = 3 if step % 10 == 5 else int(6 * 16 ** rng.uniform())
      samples = responses.sample(
          stages.sample, state.params, records,
          jax.random.fold_in(keys['sample'], step), tokenizer=_TOKENIZER,
          num_samples=config.rollout.samples_per_prompt, sampling=dict(
              max_new_tokens=limit, temperature=float(rng.uniform(0.7, 1.3)),
              top_p=float(rng.uniform(0.9, 1)), top_k=int(rng.integers(0, 99))))
      graded = responses.grade(samples, records, CoinScorer(), _TOKENIZER)
      rows, report = train_policy.select_and_pack(config, graded, step,
                                                  _ROWS)
      batch = batches.policy_batch(
          rows, stages.token_weights(rows),
          packing.policy_shares(rows.segment_BT), stages.score, state.params,
          reference)
      state, values = stages.update(state, batch, keys['update'])
      self.assertTrue(np.isfinite(values['loss']))
      found.append(Step(samples.length_PG.ravel(), int(rows.mask_BT.sum()),
                        report['row_fill'], sum(counter.counts.values())))
    inputs = batches.ModelInputs(*(np.asarray(x) for x in (
        batch.tokens_BT, batch.position_BT, batch.segment_BT, batch.share_BT)))
    self.score = lambda inputs: stages.score(state.params, inputs)
    return found, inputs


if __name__ == '__main__':
  absltest.main()
