"""Reinforcement learning with verifiable rewards on a mixture of experts.

  python -m experiments.train_policy \\
      --config=configs/policy/c3po_tiny.py --workdir=runs/c3po_tiny

Each step: sample groups, grade them, form advantages over complete groups,
select the tokens of the budget, pack them into rows of one fixed shape, update.

Reference: Ring-lite (arXiv 2506.14731) §3; DAPO (arXiv 2503.14476) §3.2 for
dynamic sampling.
"""
from __future__ import annotations

import dataclasses
from typing import Callable
from typing import NamedTuple

import jax
import numpy as np

from experiments import critics
from experiments import dynamics
from experiments import guided
from experiments import judging
from experiments import launch
from experiments import model_rewards
from experiments import responses
from experiments import shared as sharing
from rljax import losses
from rljax import packing
from rljax import processes
from rljax import rewards
from rljax import sharding
from rljax.data import pipeline
from rljax.evaluation import plots
from rljax.models import lora
from rljax.models import transformer
from rljax.ops import advantages
from rljax.ops import corrections
from rljax.ops import sampling
from rljax.rollout import statistics
from rljax.training import batch as batches
from rljax.training import checkpoint
from rljax.training import entropy_control
from rljax.training import forward as forwards
from rljax.training import guidance
from rljax.training import metrics as logging
from rljax.training import optimizer as optimizers
from rljax.training import preemption
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
  config = launch.claim(config, job.workdir, reads_start=needs_reference)
  with (logging.CompilationCounter() as counter,
        sharding.use(job.mesh, job.rules),
        preemption.Preemption() as stop,
        checkpoint.Checkpointer(job.workdir / 'checkpoints',
                                fingerprint=job.fingerprint,
                                **config.checkpoint) as saver):
    scorer = shared('scorer', config.reward.to_dict(),
                    lambda: rewards.create(**config.reward))
    state, state_sharding = launch.initial_state(
        config, job, optimizer, keys['init'])
    reference = launch.reference_of(state.params) if needs_reference else None
    critic_state, critic = critics.create(
        config, job, state.params, keys['critic'], parts)
    hinted = config.guide.mode != 'off'
    prompts = pipeline.prompts(
        shared(f'records hinted={hinted}', sharing.records(config),
               lambda: launch.open_records(config, job, 'train', scorer,
                                           hinted=hinted)),
        seed=config.seed, **launch.share(config.data.prompts_per_step))
    stages = shared('stages', sharing.compiled(config), lambda: make_stages(
        config, job, objective, optimizer, state_sharding, parts))
    progress = {'stage': config.name, 'prompts': prompts.get_state(),
                'seconds': {}, 'entropy_coef': config.regularize.entropy_coef,
                'guide': guided.Memory().get_state()}
    state, progress = saver.restore_or(
        state.replace(critic=critic_state), progress)
    state, critic_state = state.replace(critic=None), state.critic
    prompts.set_state(progress['prompts'])
    kept_coef = progress['entropy_coef']
    memory = guided.Memory()
    memory.set_state(progress['guide'])
    clock = launch.Clock(progress['seconds'])
    first = int(state.step)

    with logging.MetricWriter(job.workdir, first,
                              last_checkpoint=saver.latest_path) as writer:
      for step in logging.progress(range(first, config.num_steps),
                                   config.name):
        key = jax.random.fold_in(keys['sample'], step)
        sampled_from = stages.place(state.params)
        if disturb is not None:
          sampled_from = disturb(sampled_from, key)
        graded, sampled = collect(config, job, stages, clock, prompts, scorer,
                                  sampled_from, key, memory)
        judged = dynamics.record(config, graded, step, job.workdir)
        with clock('pack'):
          rows, report = select_and_pack(config, graded, step, parts)
          weight_BT = stages.token_weights(rows)
        with clock('update'):
          kept_coef, entropy_coef = entropy_coefs(
              config, kept_coef, sampled['entropy'])
          batch = batches.policy_batch(
              rows, weight_BT, packing.policy_shares(rows.segment_BT),
              stages.score, state.params, reference,
              replay=config.routing_replay, entropy_coef=entropy_coef)
          fresh_BT = rows.mask_BT & ~guidance.off_policy(
              rows, graded.guided_PG, graded.recorded_PG)
          mismatch = statistics.mismatch(
              rows.sampled_logp_BT, processes.fetch(batch.old_logp_BT),
              fresh_BT)
          if critic is not None:
            batch, values, valued = critics.judge(
                critic, critic_state, batch, rows, graded.rollout)
          batch, corrected = batches.corrected(batch, rows, stages.correct)
          batch, hints = with_guidance(config, batch, rows, graded)
          state, metrics = stages.update(state, batch, keys['update'])
          if critic is not None:
            critic_state, fitted = critics.fit(
                critic, critic_state, values, keys['critic'])
            metrics |= valued | fitted
          jax.block_until_ready(state.params)
        # At once: a rollout from spoilt parameters would fail less clearly.
        writer.check_finite(step, metrics)
        # `entropy` is over all tokens that were sampled, as in evaluation.
        metrics['trained_entropy'] = metrics.pop('entropy')
        metrics |= report | mismatch | sampled | corrected | hints | judged
        if entropy_coef is not None:
          metrics['entropy_coef'] = entropy_coef
        writer.write(step, metrics | clock.rates(report | sampled))
        progress = {'stage': config.name, 'prompts': prompts.get_state(),
                    'seconds': clock.seconds, 'entropy_coef': kept_coef,
                    'guide': memory.get_state()}
        launch.save(saver, writer, stop, state.replace(critic=critic_state),
                    step, metrics, progress,
                    last=step + 1 == config.num_steps)
    saver.wait()  # a request that comes meanwhile counts
    launch.leave_if_asked(stop, saver)
  if first >= config.num_steps and launch.has_report(job):
    return state.replace(critic=critic_state)  # that run's report stays
  sections = {
      'curves': launch.curves(job, (
          'reward', 'accuracy', 'entropy', 'response_length', 'truncated', 'kl',
          'grad_norm', 'budget_fill', 'row_fill', 'explained_variance',
          'answer_right', 'reasoning_right_of_these')),
      'step': launch.step_seconds(job),
      'verdicts': responses.total_verdicts(job.workdir),
      'reasoning': dynamics.windows(job.workdir, config.num_steps)}
  panels = plots.POLICY_PANELS + (
      (plots.REASONING_PANEL,) if sections['reasoning'] else ())
  launch.finish(job, config, clock, counter, sections,
                launch.training_plots(job, panels)
                + dynamics.draw(job.workdir, config.num_steps) if draw else [])
  return state.replace(critic=critic_state)


def check(config):
  """Refuses, before anything is compiled, what cannot work together."""
  roll, pack = config.rollout, config.packing
  critics.check(config)
  corrections.get(**config.correction)
  guided.check(config)
  judging.check(config)
  model_rewards.check(config)
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
  if pack.num_rows < needed:
    raise ValueError(
        f'Expected packing.num_rows >= {needed}, which any lengths fit in, got '
        f'{pack.num_rows}. Raise it: micro-batches without a token cost '
        'nothing.')


def check_replay(config, model):
  """Refuses to replay the routes of a model that has none."""
  if config.routing_replay != 'off' and not model.config.num_experts:
    raise ValueError(
        "Expected routing_replay='off' for a model without experts, got "
        f'{config.routing_replay!r}. Turn it off, or choose a mixture of '
        'experts.')


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
      rescore=model_rewards.create(config, job))


def make_placing(config, job) -> Callable:
  """Parameters as they are, merged, or gathered over what splits them."""
  if not config.rollout.gathered_params:
    return jax.jit(lora.merge) if config.lora.rank else lambda params: params
  return jax.jit(lora.merge, out_shardings=sharding.gathered(
      job.mesh, transformer.abstract_params(job.model), job.rules))


def entropy_coefs(config, kept: float, entropy: float):
  """The coefficient to keep and that of this step; None is the config's."""
  if not config.entropy_control.target:
    return kept, None
  return entropy_control.next_coef(kept, entropy, **config.entropy_control)


def with_guidance(config, batch, rows, graded):
  """The batch with hinted answers marked, and their metrics."""
  if config.guide.mode == 'off':
    return batch, {}
  # Whole, so that nothing of what follows is exchanged between processes.
  batch = batch.replace(old_logp_BT=processes.fetch(batch.old_logp_BT),
                        advantage_BT=processes.fetch(batch.advantage_BT))
  batch, report = guidance.guided_batch(
      batch, rows, graded.guided_PG.ravel(), graded.recorded_PG.ravel(),
      denominator=config.guide.denominator, quantile=config.guide.quantile,
      plain_weight=config.guide.plain_weight)
  # On the host again: the update splits its rows over the devices.
  made = ('old_logp_BT', 'advantage_BT', 'guided_BT', 'gamma_B')
  return batch.replace(**{
      name: processes.fetch(getattr(batch, name)) for name in made}), report


def collect(config, job, stages, clock, prompts, scorer, params, key,
            memory=None):
  """Samples and grades until the step has what it asks for.

  One draw is the rule. With `dynamic_sampling`, groups whose rewards are all
  alike are dropped and replaced; likewise with `guide`, which also tries failed
  prompts again with a hint; with `packing.resample`, prompts are added until
  their tokens fill the budget. `max_draws` bounds all of them.

  Returns:
    What to train on, and metrics of everything that was sampled.
  """
  drawn, parts, dropped, hints = [], [], 0, []
  options = config.rollout
  if memory is not None and memory.surplus is not None:
    parts.append(memory.surplus)  # the oldest first
  for draw in range(config.max_draws):
    records = processes.gather_own(next(prompts))
    sample = responses.Draw(
        stages.sample, params, jax.random.fold_in(key, draw), job.tokenizer,
        scorer, sampling_options(config), clock, stages.rescore)
    if config.guide.mode == 'off':
      graded = sample(records, options.samples_per_prompt)
      drawn.append(graded)
    else:
      graded, plain, report = guided.groups(config, sample, records)
      drawn.append(plain)
      hints.append(report | memory.note(plain, config.guide.threshold))
      dropped += len(records) - len(graded.records)
    if config.dynamic_sampling:
      keep_P = np.asarray(advantages.informative_groups(
          graded.reward_PG, graded.correct_PG, graded.valid_PG))
      dropped += int((~keep_P).sum())
      graded = responses.take(graded, keep_P)
    parts.append(graded)
    joined = responses.join(parts)
    if not lacks(config, joined):
      break
  if not joined.records:
    raise ValueError(
        f'Expected a group with right and wrong answers in {config.max_draws} '
        'draws, got none. Use easier or harder prompts, raise max_draws, or '
        'turn dynamic_sampling or guide.mode off.')
  # Static shapes: what exceeds the step's prompts is not trained on.
  wanted = config.data.prompts_per_step * (
      config.max_draws if config.packing.resample else 1)
  kept = np.arange(len(joined.records)) < wanted
  if memory is not None:
    memory.surplus = responses.take(joined, ~kept) if (
        config.guide.buffer and not kept.all()) else None
    if memory.surplus is not None:
      memory.surplus = dataclasses.replace(
          memory.surplus, recorded_PG=np.ones_like(memory.surplus.valid_PG))
  sampled = responses.summary(responses.join(drawn)) | {
      'draws': float(draw + 1), 'uninformative_groups': float(dropped)}
  sampled |= guided.rates(hints)
  sampled['sampled_tokens'] += sampled.get('hint_tokens', 0.0)
  return responses.take(joined, kept), sampled


def lacks(config, graded) -> bool:
  """Whether the step needs another draw."""
  if (config.dynamic_sampling or config.guide.mode != 'off') and (
      len(graded.records) < config.data.prompts_per_step):
    return True
  options = config.packing.select
  ranks = options.num_ranks if options.budget_scope == 'per_data_rank' else 1
  return config.packing.resample and bool(packing.needs_more(
      selectable(graded), options.token_budget, ranks))


def selectable(graded) -> np.ndarray:
  """Lengths; a response that nobody could grade has 0: never selected."""
  return np.where(graded.valid_PG, graded.rollout.length_PG, 0).ravel()


def select_and_pack(config, graded, step: int, num_microbatches: int = 1):
  """Advantages over complete groups, then the budget, then the rows."""
  advantage_R = critics.response_advantages(config, graded)
  selection = packing.select(
      selectable(graded), seed=[config.seed, step], advantage_R=advantage_R,
      group_size=config.rollout.samples_per_prompt, **config.packing.select)
  rows = packing.pack(
      graded.rollout, advantage_R, selection,
      num_rows=config.packing.num_rows, row_length=config.packing.row_length,
      num_microbatches=num_microbatches,
      max_response_length=config.rollout.max_new_tokens)
  fill = packing.row_fill(rows.segment_BT, num_microbatches)
  report = packing.statistics(selection) | {
      'row_fill': fill, 'train_tokens': float((rows.segment_BT > 0).sum())}
  return rows, report


if __name__ == '__main__':
  launch.main(run)
