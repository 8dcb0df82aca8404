"""The demo's smoke form, with rewards that differ before anything is learnt.

The argument names a stage, or the training on pairs that stands beside them;
without one it is the whole pipeline. An untrained
policy solves nothing, so without the overlong penalty all advantages would be 0
and a test of equal parameters would test little.
"""
from ml_collections import config_dict

from configs.pipeline import ring_lite_mini
from configs.preference import dpo_tiny


def get_config(arg: str = '') -> config_dict.ConfigDict:
  config = ring_lite_mini.get_config('smoke')
  for stage in config.rl:
    limit = stage.rollout.max_new_tokens
    stage.reward.update(overlong_max_length=limit, overlong_buffer=limit)
  for stage in (*config.rl, config.choice, config.evaluation):
    stage.reward.num_workers = 1  # each costs seconds to start
  stages = {'': config, 'sft': config.sft, 'evaluation': config.evaluation,
            **{stage.name: stage for stage in config.rl},
            'preference': dpo_tiny.get_config('smoke')}
  if arg not in stages:
    raise ValueError(f'Expected a stage among {list(stages)}, got {arg!r}.')
  return stages[arg]
