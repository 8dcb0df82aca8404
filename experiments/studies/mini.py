"""The problems and the model of most studies, cheap enough for many runs.

The start has learnt sums of one-digit numbers, words spelt backwards and rules
of number sequences, and is taken from a checkpoint where it gets a little over
half of the sums right. RL then sees the sums alone, unless a study says
otherwise: in thirty steps of 64 responses it learns these, and not the others.
Solutions have one line or two, 16 to 41 tokens; the budget is about two thirds
of the tokens of a step, so that there is something to cut.
"""
from __future__ import annotations

from configs import common
from experiments.studies import compare

_TASKS = (('basic_arithmetic', 1), ('spell_backward', 1),
          ('number_sequence', 1))
_LIMITS = dict(max_prompt_length=32, max_new_tokens=48)       # sums
_ALL_LIMITS = dict(max_prompt_length=64, max_new_tokens=96)   # any task
_START = 600  # step of the distillation

BUSY = 'The machine did other work at the same time.'  # for the notes

# The demo's model with a quarter of its parameters.
MODEL = dict(variant='mini', model_dim=64, num_heads=2, num_kv_heads=1,
             expert_dim=64, remat='none')


def configs(smoke: bool = False, *, domains=('math',), prompts: int = 8,
            token_budget: int = 1_216):
  """Configs of start, policy and measurement, unlocked.

  Args:
    smoke: a tiny model and few steps.
    domains: of RL and of the measurement; None is all.
    prompts: in a step, with eight responses each.
    token_budget: of a step.
  """
  found = compare.load('configs/pipeline/ring_lite_mini.py',
                       'smoke' if smoke else '')
  sft, evaluation = found.sft, found.evaluation
  policy = found.rl[0].copy_and_resolve_references().unlock()
  limits = _LIMITS if domains == ('math',) else _ALL_LIMITS
  for config in (sft, policy, evaluation):
    config.unlock()
    config.data.source = common.reasoning_gym(
        _TASKS, train_size=60 if smoke else 600, held_out=8 if smoke else 40)
    config.data.max_prompt_length = _ALL_LIMITS['max_prompt_length']
    if not smoke:
      config.model = MODEL
  for config in (policy, evaluation):
    config.data.domains = domains
    config.data.max_prompt_length = limits['max_prompt_length']
    config.rollout.update(limits)
  _shrink_start(sft, smoke)
  policy.name = 'rl'
  policy.init.step = sft.num_steps if smoke else _START
  policy.data.prompts_per_step = 4 if smoke else prompts
  policy.packing = common.packing(
      token_budget=128 if smoke else token_budget, row_length=176,
      num_rows=16 if smoke else 8 * prompts, rows_per_device=2 if smoke else 8)
  policy.rollout.num_slots = 8 if smoke else 8 * prompts
  policy.checkpoint = dict(every=1_000, keep=1)
  evaluation.rollout.num_slots = 8 if smoke else 64
  return sft, policy, evaluation


def _shrink_start(sft, smoke: bool):
  sft.num_steps = 4 if smoke else 800
  sft.optimizer = common.muon(sft.num_steps)
  sft.data.examples_per_step = 8 if smoke else 32
  sft.packing = common.rows(176, num_rows=8 if smoke else 32,
                            rows_per_device=1 if smoke else 8)


def study(*, smoke: bool, num_steps: int, notes: str, sizes=None,
          **plan) -> compare.Study:
  """A study on these; `plan` is the rest of `compare.Study`.

  Args:
    smoke: as of `configs`.
    num_steps: of RL.
    notes: of the study.
    sizes: further arguments of `configs`.
    **plan: name, question, arms, metrics, claims and the like.
  """
  sft, policy, evaluation = configs(smoke, **(sizes or {}))
  policy.num_steps = 3 if smoke else num_steps
  if smoke:
    plan |= dict(seeds=(0, 1))
  return compare.Study(sft=sft, policy=policy, evaluation=evaluation,
                       notes=f'{notes} {BUSY}', **plan)


def without_budget(smoke: bool) -> dict:
  """Overrides that train on every token of a step."""
  _, policy, _ = configs(smoke)
  most = policy.data.prompts_per_step * policy.rollout.samples_per_prompt
  return {'packing.select.token_budget': most * policy.rollout.max_new_tokens}
