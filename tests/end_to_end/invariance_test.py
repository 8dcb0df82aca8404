"""One RL step by the script's own functions, laid out and shared out anew.

`training/update_test.py` and `sharding_test.py` change one thing at a time on
rows laid out by hand. Here everything changes at once: selection, packing,
scoring and update run from configs that differ in rows, micro-batches and mesh.
"""
import pathlib

from absl.testing import absltest
import jax
import numpy as np
import optax

from configs.pipeline import ring_lite_mini
from experiments import train_policy
from experiments.job import launch
from experiments.policy import policy_batches
from experiments.policy import policy_pieces
from experiments.policy import responses
from rljax import losses
from rljax import packing
from rljax import sharding
from rljax.data import tokenizer as tokenizers
from rljax.training import batch as batches
from rljax.training import state as states
from tests import toys
from tests.packing import rollouts

_PROMPTS, _SAMPLES = 4, 4


def graded(seed=0) -> responses.Graded:
  """Sixteen responses of 3 to 96 tokens, half of them right."""
  rng = np.random.default_rng(seed)
  shape = (_PROMPTS, _SAMPLES)
  rollout = rollouts.make_rollout(
      rng.integers(3, 97, shape), rng.integers(5, 60, _PROMPTS), 96, seed)
  correct_PG = np.arange(16).reshape(shape) % 3 == 0
  return responses.Graded(
      records=({},) * _PROMPTS, rollout=rollout, texts=('',) * 16, results=(),
      reward_PG=correct_PG.astype(np.float32), correct_PG=correct_PG,
      valid_PG=np.ones(shape, bool))


def sgd_step(mesh, *, row_length, num_rows, num_microbatches):
  """Parameters after one step of plain SGD, and the step's statistics."""
  config = ring_lite_mini.get_config('smoke').rl[0]
  config.packing.update(row_length=row_length, num_rows=num_rows)
  config.packing.select.token_budget = 500
  config.loss.kl_coef = 0.1
  config.regularize.update(entropy_coef=0.05, balance_coef=0.2, z_coef=0.05)
  train_policy.check(config)
  model, params = toys.model_and_params('tiny')
  _, reference = toys.model_and_params('tiny', seed=1)
  job = launch.Job('rl', pathlib.Path(), mesh, sharding.make_rules(), model,
                   tokenizers.load('byte'), {})
  objective = losses.get('policy', **config.loss)
  optimizer = optax.sgd(0.1)
  with sharding.use(mesh, job.rules):
    state, state_sharding = states.init_state(
        model, optimizer, jax.random.key(0), mesh, job.rules, params=params)
    stages = policy_pieces.make_stages(config, job, objective, optimizer,
                                       state_sharding, num_microbatches)
    rows, report = policy_batches.select_and_pack(config, graded(), 0,
                                                  num_microbatches)
    batch = batches.policy_batch(
        rows, stages.token_weights(rows), packing.policy_shares(
            rows.segment_BT), stages.score, state.params, reference)
    state, metrics = stages.update(state, batch, jax.random.key(1))
  return params, state.params, report | {
      name: np.asarray(value) for name, value in metrics.items()}


class InvarianceTest(absltest.TestCase):

  def test_packed_on_one_device_and_padded_on_eight_are_one_step(self):
    one = sharding.make_mesh(devices=jax.devices()[:1])
    begin, packed, report = sgd_step(
        one, row_length=256, num_rows=16, num_microbatches=4)
    # 208 positions hold one prompt of up to 112 and one response of up to 96.
    _, padded, other = sgd_step(
        sharding.make_mesh(data=2, fsdp=2, expert=2), row_length=208,
        num_rows=16, num_microbatches=1)
    toys.assert_trees_close(packed, padded, atol=2e-5, rtol=0)
    self.assertEqual(report['selected_tokens'], 500)
    self.assertGreater(report['row_fill'], other['row_fill'])
    for name in ('loss', 'kl', 'grad_norm', 'router_balance', 'expert_load'):
      np.testing.assert_allclose(report[name], other[name], rtol=1e-4,
                                 err_msg=name)
    # The step is far larger than the tolerance, for every array.
    for path, change in jax.tree_util.tree_leaves_with_path(jax.tree.map(
        lambda a, b: np.abs(a - b).max(), begin, packed)):
      self.assertGreater(change, 20 * 2e-5, jax.tree_util.keystr(path))


if __name__ == '__main__':
  absltest.main()
