"""Reinforcement learning with verifiable rewards on a mixture of experts.

  python -m experiments.train_policy \\
      --config=configs/policy/c3po_tiny.py --workdir=runs/c3po_tiny

Each step: sample groups, grade them, form advantages over complete groups,
select the tokens of the budget, pack them into rows of one fixed shape, update.

Reference: Ring-lite (arXiv 2506.14731) §3; DAPO (arXiv 2503.14476) §3.2 for
dynamic sampling.
"""
from __future__ import annotations

from typing import Any
from typing import Callable

import jax

from experiments.job import launch
from experiments.job import reporting
from experiments.job import run_folder
from experiments.job import shared as sharing
from experiments.policy import critics
from experiments.policy import dynamics
from experiments.policy import guided
from experiments.policy import judging
from experiments.policy import policy_batches
from experiments.policy import policy_draws
from experiments.policy import policy_pieces
from experiments.policy import responses
from experiments.policy import reward_from_model
from rljax import losses
from rljax import packing
from rljax import sharding
from rljax.evaluation import plots
from rljax.ops import corrections
from rljax.training import checkpoint
from rljax.training import entropy_control
from rljax.training import metrics as logging
from rljax.training import optimizer as optimizers
from rljax.training import preemption
from rljax.training import state as states


def run(config, workdir: str, disturb: Callable | None = None,
        shared: sharing.Shared | None = None,
        draw: bool = True) -> states.TrainState:
  """Builds the pieces, then writes the algorithm out as a loop.

  Args:
    config: a policy config.
    workdir: gets checkpoints, metrics and the report.
    disturb: (params, key) -> what the sampler gets in place of the parameters:
      for studies of a sampler that is not quite the policy.
    shared: with other runs of this process; what is compiled for one of them is
      not counted in the reports of the others.
    draw: plots of the run.
  """
  if shared is None:
    with sharing.Shared() as shared:
      return run(config, workdir, disturb, shared, draw)
  job = launch.start(config, workdir, 'rl')
  check(config)
  check_replay(config, job.model)
  parts = launch.num_microbatches(config, job.mesh)
  keys = states.named_keys(config.seed, 'init', 'sample', 'update', 'critic')
  optimizer = optimizers.make_optimizer(**config.optimizer)
  objective = losses.get('policy', **config.loss)
  needs_reference = bool(
      objective.hparams['kl_coef']) or critics.needs_reference(config)
  config = run_folder.claim(config, job.workdir, reads_start=needs_reference)
  with (logging.CompilationCounter() as counter,
        sharding.use(job.mesh, job.rules),
        preemption.Preemption() as stop,
        checkpoint.Checkpointer(job.workdir / 'checkpoints',
                                fingerprint=job.fingerprint,
                                **config.checkpoint) as saver):
    pieces, state = policy_pieces.build(
        config, job, objective, optimizer, keys, parts, shared,
        needs_reference=needs_reference)
    state, progress = saver.restore_or(
        state, first_progress(config, pieces.prompts))
    clock, first = reporting.Clock(progress['seconds']), int(state.step)
    state = train(config, pieces, state, progress, clock, saver, stop, disturb)
  if first >= config.num_steps and reporting.has_report(job):
    return state  # that run's report stays
  write_report(config, job, clock, counter, draw)
  return state


def first_progress(config, prompts) -> dict[str, Any]:
  """What is saved beside the state, before the first step."""
  return {'stage': config.name, 'prompts': prompts.get_state(),
          'seconds': {}, 'entropy_coef': config.regularize.entropy_coef,
          'guide': guided.Memory().get_state()}


def train(config, pieces: policy_pieces.Pieces, state: states.TrainState,
          progress, clock, saver, stop,
          disturb: Callable | None = None) -> states.TrainState:
  """The algorithm: sample, grade, pack, update, save."""
  job, prompts, stages, critic = (
      pieces.job, pieces.prompts, pieces.stages, pieces.critic)
  state, critic_state = state.replace(critic=None), state.critic
  prompts.set_state(progress['prompts'])
  kept_coef = progress['entropy_coef']
  memory = guided.Memory()
  memory.set_state(progress['guide'])
  first = int(state.step)
  with logging.MetricWriter(job.workdir, first,
                            last_checkpoint=saver.latest_path) as writer:
    for step in logging.progress(range(first, config.num_steps), config.name):
      key = jax.random.fold_in(pieces.keys['sample'], step)
      sampled_from = stages.place(state.params)
      if disturb is not None:
        sampled_from = disturb(sampled_from, key)
      graded, sampled = policy_draws.collect(
          config, job, stages, clock, prompts, pieces.scorer, sampled_from, key,
          memory)
      judged = dynamics.record(config, graded, step, job.workdir)
      with clock('pack'):
        rows, packed = policy_batches.select_and_pack(
            config, graded, step, pieces.num_microbatches)
        weight_BT = stages.token_weights(rows)
      with clock('update'):
        kept_coef, entropy_coef = entropy_coefs(
            config, kept_coef, sampled['entropy'])
        batch, values, made = policy_batches.make_batch(
            config, pieces, state.params, critic_state, graded, rows, weight_BT,
            entropy_coef)
        state, metrics = stages.update(state, batch, pieces.keys['update'])
        if critic is not None:
          critic_state, fitted = critics.fit(
              critic, critic_state, values, pieces.keys['critic'])
          metrics |= fitted
        jax.block_until_ready(state.params)
      # At once: a rollout from spoilt parameters would fail less clearly.
      writer.check_finite(step, metrics)
      # `entropy` is over all tokens that were sampled, as in evaluation.
      metrics['trained_entropy'] = metrics.pop('entropy')
      metrics |= packed | sampled | made | judged
      writer.write(step, metrics | clock.rates(packed | sampled))
      progress = {'stage': config.name, 'prompts': prompts.get_state(),
                  'seconds': clock.seconds, 'entropy_coef': kept_coef,
                  'guide': memory.get_state()}
      run_folder.save(saver, writer, stop, state.replace(critic=critic_state),
                      step, metrics, progress,
                      last=step + 1 == config.num_steps)
  run_folder.leave_if_asked(stop, saver)
  return state.replace(critic=critic_state)


def write_report(config, job, clock, counter, draw: bool):
  """Writes the report of a run that has come to its end; `draw` its plots."""
  sections = {
      'curves': reporting.curves(job, (
          'reward', 'accuracy', 'entropy', 'response_length', 'truncated', 'kl',
          'grad_norm', 'budget_fill', 'row_fill', 'explained_variance',
          'answer_right', 'reasoning_right_of_these')),
      'step': reporting.step_seconds(job),
      'verdicts': responses.total_verdicts(job.workdir),
      'reasoning': dynamics.windows(job.workdir, config.num_steps)}
  panels = plots.POLICY_PANELS + (
      (plots.REASONING_PANEL,) if sections['reasoning'] else ())
  reporting.finish(
      job, config, clock, counter, sections,
      reporting.training_plots(job, panels)
      + dynamics.draw(job.workdir, config.num_steps) if draw else [])


def check(config):
  """Refuses, before anything is compiled, what cannot work together."""
  roll, pack = config.rollout, config.packing
  critics.check(config)
  corrections.get(**config.correction)
  guided.check(config)
  judging.check(config)
  reward_from_model.check(config, roll.samples_per_prompt)
  entropy_coefs(config, config.regularize.entropy_coef, 0.0)
  responses.check_prompt_lengths(config)
  if roll.temperature <= 0:
    raise ValueError(
        f'Expected rollout.temperature > 0, got {roll.temperature}: greedy '
        'responses have no probability to learn from, and a group of them is '
        'one response. Raise it.')
  longest = roll.max_prompt_length + roll.max_new_tokens
  if pack.row_length < longest:
    raise ValueError(
        f'Expected packing.row_length >= max_prompt_length + max_new_tokens = '
        f'{longest}, got {pack.row_length}: a response never straddles rows. '
        'Raise row_length.')
  ranks = pack.select.num_ranks if (
      pack.select.budget_scope == 'per_data_rank') else 1
  if config.dynamic_sampling and ranks > 1:
    raise ValueError(
        'Expected dynamic_sampling=False with packing.select.budget_scope='
        "'per_data_rank': what is left of the groups need not divide by the "
        f"{ranks} ranks. Turn it off, or set budget_scope='global'.")
  responses_in_step = (
      config.data.prompts_per_step * roll.samples_per_prompt
      * (config.max_draws if pack.resample else 1))
  packing.check_budget(pack.select.token_budget, responses_in_step // ranks,
                       roll.max_new_tokens)
  whole = (pack.select.cut == 'response'
           or pack.select.selection == 'ring_window')
  needed = packing.rows_bound(
      token_budget=ranks * (pack.select.token_budget
                            + (roll.max_new_tokens if whole else 0)),
      num_responses=responses_in_step, max_prompt_length=roll.max_prompt_length,
      max_response_length=roll.max_new_tokens, row_length=pack.row_length)
  launch.check_rows(pack.num_rows, needed)


def check_replay(config, model):
  """Refuses to replay the routes of a model that has none."""
  if config.routing_replay != 'off' and not model.config.num_experts:
    raise ValueError(
        "Expected routing_replay='off' for a model without experts, got "
        f'{config.routing_replay!r}. Turn it off, or choose a mixture of '
        'experts.')


def entropy_coefs(config, kept: float, entropy: float):
  """The coefficient to keep and that of this step; None is the config's."""
  if not config.entropy_control.target:
    return kept, None
  return entropy_control.next_coef(kept, entropy, **config.entropy_control)


if __name__ == '__main__':
  launch.main(run)
