"""The critic of a policy run: `config.advantage='gae'` and `config.critic`.

A network of the policy's size, with an optimiser of its own, that begins as a
copy of the policy and is saved with it. Each step it values the packed rows,
which makes the advantages, and is then fitted to their targets.
"""
from __future__ import annotations

import dataclasses
from typing import Any
from typing import Callable

import jax
import numpy as np

from rljax import losses
from rljax import sharding
from rljax.models import critic as critics
from rljax.models import lora
from rljax.ops import advantages
from rljax.ops import gae
from rljax.training import batch as batches
from rljax.training import critic as training
from rljax.training import optimizer as optimizers
from rljax.training import state as states
from rljax.training import update as updates
from rljax.types import PackedRows
from rljax.types import PolicyBatch
from rljax.types import TrainState
from rljax.types import ValueBatch

GAE = 'gae'


@dataclasses.dataclass(frozen=True)
class Critic:
  """The compiled functions of a critic; each compiles once in a run."""
  score: Callable
  token_weights: Callable
  estimate: Callable
  update: Callable


def check(config):
  """Refuses, before anything is compiled, what cannot work together.

  Raises:
    ValueError: an advantage or a coefficient that is none, or a selection that
      wants advantages before there are any.
  """
  if config.advantage != GAE:
    advantages.get(config.advantage)
    return
  gae.check(config.critic.gamma, config.critic.gae_lambda)
  losses.get('value', **config.critic.loss)
  if config.packing.select.drop_zero_adv_groups:
    raise ValueError(
        'Expected packing.select.drop_zero_adv_groups=False with the advantage '
        "'gae', which is known after the selection, got True. Use "
        'dynamic_sampling to drop groups by their rewards.')


def needs_reference(config) -> bool:
  """Whether the reward holds a KL penalty."""
  return config.advantage == GAE and config.critic.kl_coef > 0


def response_advantages(config, graded) -> np.ndarray:
  """One for each response, to be packed; with GAE its reward, in their place.

  Returns:
    float32, flat.
  """
  estimate = (lambda reward_PG, valid_PG: reward_PG * valid_PG) if (
      config.advantage == GAE) else advantages.get(config.advantage)
  return np.asarray(estimate(graded.reward_PG, graded.valid_PG)).ravel()


def create(config, job, policy_params, key, num_microbatches: int
           ) -> tuple[TrainState, Critic] | tuple[None, None]:
  """A critic that begins as the policy, or none where none is asked for."""
  if config.advantage != GAE:
    return None, None
  options, rows = config.critic, sharding.batch(job.mesh)
  model = critics.Critic(job.model.config)
  optimizer = optimizers.make_optimizer(**options.optimizer)
  objective = losses.get('value', **options.loss)
  state, state_sharding = states.init_state(
      model, optimizer, key, job.mesh, job.rules,
      params=critics.from_policy(lora.merge(policy_params)))
  forward = training.make_forward(model)

  def value_weights(rows):
    return objective.token_weights(rows)

  micro = dict(num_microbatches=num_microbatches, batch_sharding=rows)
  return state, Critic(
      score=training.make_score_fn(forward, **micro),
      token_weights=jax.jit(value_weights, out_shardings=rows),
      estimate=training.make_estimate_fn(
          gamma=options.gamma, gae_lambda=options.gae_lambda,
          whiten=options.whiten, kl_coef=options.kl_coef, batch_sharding=rows),
      update=updates.make_update_fn(
          training.compose(forward, objective.loss,
                           balance_coef=config.regularize.balance_coef,
                           z_coef=config.regularize.z_coef),
          optimizer, router_bias_rate=config.router_bias_rate,
          state_sharding=state_sharding, name='update_critic', **micro))


def judge(critic: Critic, state: TrainState, batch: PolicyBatch,
          rows: PackedRows, rollout) -> tuple[PolicyBatch, ValueBatch, Any]:
  """The policy's batch with advantages, the critic's, and metrics."""
  inputs = batches.ModelInputs(batch.tokens_BT, batch.position_BT,
                               batch.segment_BT, batch.share_BT)
  after_BT, load_LE = critic.score(state.params, inputs)
  advantage_BT, value_BT, return_BT, metrics = critic.estimate(
      after_BT, training.episodes(rows, rollout, batch))
  values = ValueBatch(
      tokens_BT=batch.tokens_BT, position_BT=batch.position_BT,
      segment_BT=batch.segment_BT, weight_BT=critic.token_weights(rows),
      share_BT=batch.share_BT, return_BT=return_BT, old_value_BT=value_BT,
      load_BLE=batches.alike_in_all_rows(load_LE, rows.tokens_BT.shape[0]))
  return batch.replace(advantage_BT=advantage_BT), values, metrics


def fit(critic: Critic, state: TrainState, values: ValueBatch, key):
  """One step of the critic: (state, metrics under names of their own)."""
  state, metrics = critic.update(state, values, key)
  return state, {f'critic_{name.removeprefix("value_")}': value
                 for name, value in metrics.items()}
