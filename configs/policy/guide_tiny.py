r"""Guide on sums of one-digit numbers: failed prompts get a second try, hinted.

  python -m experiments.sft \
      --config=configs/supervised/sft_tiny.py:hinted --workdir=runs/sft_hinted
  python -m experiments.train_policy \
      --config=configs/policy/guide_tiny.py --workdir=runs/guide_tiny \
      --config.init.checkpoint=runs/sft_hinted/checkpoints

The hint is the first step of a solution. `experiments.sweep` compares it with
its own baseline, which drops the same groups and gives no hint, with the other
denominators, and with training where the hint is seen. `:smoke` shrinks it to
seconds.

Reference: Guide (arXiv 2506.13923); sizes are ours.
"""
from ml_collections import config_dict

from configs import common

_PROMPT, _RESPONSE = 96, 48  # tokens; the prompt with its hint


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'smoke'):
    raise ValueError(f'Unknown variant {arg!r}; use "" or "smoke".')
  smoke = arg == 'smoke'
  source = common.reasoning_gym((('basic_arithmetic', 1),),
                                train_size=60 if smoke else 600,
                                held_out=8 if smoke else 40, hint_steps=1)

  config = common.policy()
  config.model = dict(variant='tiny' if smoke else 'mini')
  config.num_steps = 2 if smoke else 100
  config.data = common.data(source, _PROMPT,
                            prompts_per_step=4 if smoke else 16)
  config.rollout = common.rollout(_PROMPT, _RESPONSE, 8 if smoke else 64,
                                  samples_per_prompt=4 if smoke else 8)
  config.loss = dict(name='guide', clip_eps=0.2, kl_coef=0.0,
                     shaping='percentile', gamma=1.0, guided_clip=0.0)
  config.regularize.entropy_coef = 0.0
  config.advantage = 'group_normalized_sample'
  config.guide.mode = 'replace'
  if smoke:  # from random parameters no group has a right answer
    config.guide.update(lower=0.0, threshold=0.0, hint_lower=0.0)
  config.packing = common.packing(
      token_budget=256 if smoke else 6_144, row_length=288,
      num_rows=8 if smoke else 64, rows_per_device=1 if smoke else 4)
  config.max_draws = 1 if smoke else 4
  config.optimizer.learning_rate = 3e-4
  config.checkpoint.every = 1 if smoke else 25
  return config


def get_sweep():
  """Overrides of the run `--sweep_index=i`: one switch each, three seeds."""
  arms = (
      {},
      {'guide.mode': 'filter'},
      {'guide.mode': 'mixin'},
      {'guide.mode': 'balanced'},
      {'guide.denominator': 'plain'},
      {'guide.denominator': 'one'},
      {'guide.context': 'hinted'},
      {'loss.shaping': 'identity'},
      {'loss.shaping': 'constant', 'loss.gamma': 0.1},
      {'loss.shaping': 'power', 'loss.gamma': 0.5},
      {'loss.guided_clip': 0.8},
      {'guide.plain_weight': 0.5},
      {'guide.threshold': 0.3},
      {'guide.mode': 'off'})  # GRPO: no group is dropped
  return [arm | {'seed': seed} for arm in arms for seed in range(3)]
