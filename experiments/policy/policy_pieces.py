"""What a run of policy training is made of, before its loop begins."""
from __future__ import annotations

from typing import Any
from typing import Callable
from typing import NamedTuple

import jax

from experiments.job import launch
from experiments.job import prompt_records
from experiments.job import shared as sharing
from experiments.job import starting_params
from experiments.policy import critics
from experiments.policy import responses
from experiments.policy import reward_from_model
from rljax import rewards
from rljax import sharding
from rljax.data import pipeline
from rljax.models import lora
from rljax.models import transformer
from rljax.ops import corrections
from rljax.ops import sampling
from rljax.training import forward as forwards
from rljax.training import state as states
from rljax.training import update as updates


class Stages(NamedTuple):
  """The compiled functions of a step; each compiles once in a run."""
  place: Callable  # parameters to where the sampler wants them
  sample: Callable
  score: Callable
  token_weights: Callable
  correct: Callable
  update: Callable
  rescore: Callable | None = None  # rewards of a model; None: the verifiers'


class Pieces(NamedTuple):
  """What the loop is made of, beside the state."""
  job: launch.Job
  keys: dict[str, jax.Array]
  scorer: rewards.Scorer
  prompts: Any
  stages: Stages
  reference: Any   # parameters, or None where nothing reads them
  critic: critics.Critic | None
  num_microbatches: int


def build(config, job, objective, optimizer, keys, parts: int,
          shared: sharing.Shared, *, needs_reference: bool
          ) -> tuple[Pieces, states.TrainState]:
  """The pieces, and the state to begin with; a critic's is a part of it."""
  scorer = shared('scorer', config.reward.to_dict(),
                  lambda: rewards.create(**config.reward))
  state, state_sharding = starting_params.initial_state(
      config, job, optimizer, keys['init'])
  reference = starting_params.reference_of(
      state.params) if needs_reference else None
  critic_state, critic = critics.create(
      config, job, state.params, keys['critic'], parts)
  hinted = config.guide.mode != 'off'
  prompts = pipeline.prompts(
      shared(f'records hinted={hinted}', sharing.records(config),
             lambda: prompt_records.open_records(
                 config, job, 'train', scorer, hinted=hinted)),
      seed=config.seed, **launch.share(config.data.prompts_per_step))
  stages = shared('stages', sharing.compiled(config), lambda: make_stages(
      config, job, objective, optimizer, state_sharding, parts))
  pieces = Pieces(job, keys, scorer, prompts, stages, reference, critic, parts)
  return pieces, state.replace(critic=critic_state)


def sampling_options(config) -> dict:
  """How the `rollout` section wants responses to be drawn."""
  return dict(temperature=config.rollout.temperature,
              top_k=config.rollout.top_k, top_p=config.rollout.top_p,
              min_p=config.rollout.min_p)


def make_stages(config, job, objective, optimizer, state_sharding,
                num_microbatches: int) -> Stages:
  """Builds the compiled functions."""
  rows = sharding.batch(job.mesh)
  forward = forwards.make_forward(job.model, sampling.make_params(
      **sampling_options(config)))
  micro = dict(num_microbatches=num_microbatches, batch_sharding=rows)
  return Stages(
      place=make_placing(config, job),
      sample=responses.make_sampler(
          job, config, record_experts=config.routing_replay == 'rollout',
          gathered_params=config.rollout.gathered_params),
      score=forwards.make_score_fn(
          forward, record_experts=config.routing_replay == 'recompute',
          **micro),
      token_weights=jax.jit(objective.token_weights, out_shardings=rows),
      correct=jax.jit(corrections.get(**config.correction),
                      out_shardings=(rows, None)),
      update=updates.make_update_fn(
          forwards.compose(forward, objective.loss, **config.regularize),
          optimizer, router_bias_rate=config.router_bias_rate,
          state_sharding=state_sharding, **micro),
      rescore=reward_from_model.create(config, job))


def make_placing(config, job) -> Callable:
  """Parameters as they are, merged, or gathered over what splits them."""
  if not config.rollout.gathered_params:
    return jax.jit(lora.merge) if config.lora.rank else lambda params: params
  return jax.jit(lora.merge, out_shardings=sharding.gathered(
      job.mesh, transformer.abstract_params(job.model), job.rules))
