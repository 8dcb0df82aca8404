"""The problems and the model of most studies, cheap enough for many runs.

Sums, words spelt backwards and rules of number sequences: responses have 16 to
80 tokens, so that a step's tokens vary, and a budget of about two thirds of
them has something to cut.
"""
from __future__ import annotations

from configs import common
from experiments.studies import compare

_TASKS = (('basic_arithmetic', 1), ('spell_backward', 1),
          ('number_sequence', 1))
_PROMPT, _RESPONSE = 64, 96  # tokens
_ROW = 176
_BUDGET = 3_072

# The demo's model with a quarter of its parameters.
MODEL = dict(variant='mini', model_dim=64, num_heads=2, num_kv_heads=1,
             expert_dim=64, remat='none')


def configs(smoke: bool = False):
  """Configs of start, policy and measurement, unlocked."""
  found = compare.load('configs/pipeline/ring_lite_mini.py',
                       'smoke' if smoke else '')
  sft, evaluation = found.sft, found.evaluation
  policy = found.rl[0].copy_and_resolve_references().unlock()
  source = common.reasoning_gym(_TASKS, train_size=60 if smoke else 600,
                                held_out=8 if smoke else 40)
  for config in (sft, policy, evaluation):
    config.unlock()
    config.data.source = source
    config.data.max_prompt_length = _PROMPT
    if not smoke:
      config.model = MODEL
  for config in (policy, evaluation):
    config.rollout.update(max_prompt_length=_PROMPT, max_new_tokens=_RESPONSE)
  sft.num_steps = 4 if smoke else 800
  sft.optimizer = common.muon(sft.num_steps)
  sft.data.examples_per_step = 8 if smoke else 32
  sft.packing = common.rows(_ROW, num_rows=8 if smoke else 32,
                            rows_per_device=1 if smoke else 8)
  policy.name = 'rl'
  policy.data.domains = None
  policy.data.prompts_per_step = 4 if smoke else 16
  policy.packing = common.packing(
      token_budget=256 if smoke else _BUDGET, row_length=_ROW,
      num_rows=16 if smoke else 128, rows_per_device=2 if smoke else 8)
  policy.rollout.num_slots = 8 if smoke else 128
  policy.checkpoint = dict(every=1_000, keep=1)
  evaluation.rollout.num_slots = 8 if smoke else 128
  evaluation.evaluation.num_samples = 4
  evaluation.evaluation.ks = (1, 2, 4)
  return sft, policy, evaluation


def study(*, smoke: bool, num_steps: int, **plan) -> compare.Study:
  """A study on these; `plan` is the rest of `compare.Study`."""
  sft, policy, evaluation = configs(smoke)
  policy.num_steps = 3 if smoke else num_steps
  if smoke:
    plan |= dict(seeds=(0, 1))
  return compare.Study(sft=sft, policy=policy, evaluation=evaluation, **plan)


def without_budget(smoke: bool) -> dict:
  """Overrides that train on every token of a step."""
  _, policy, _ = configs(smoke)
  most = policy.data.prompts_per_step * policy.rollout.samples_per_prompt
  return {'packing.select.token_budget': most * policy.rollout.max_new_tokens}
