r"""A Plackett-Luce reward model on rankings of four toy responses, on a laptop.

  python -m experiments.train_reward_model \
      --config=configs/reward/plackett_luce_tiny.py --workdir=runs/plackett_luce

`:smoke` shrinks it to seconds.
"""
from ml_collections import config_dict

from configs import common


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'smoke'):
    raise ValueError(f'Unknown variant {arg!r}; use "" or "smoke".')
  smoke = arg == 'smoke'

  config = common.reward_model('scores')
  config.model = dict(variant='tiny_dense')
  config.num_steps = 2 if smoke else 300
  config.data = common.comparisons(
      common.toy_comparisons(count=32 if smoke else 2_000, size=4),
      validation_size=16 if smoke else 400, lists_per_step=8 if smoke else 16)
  config.loss = dict(name='plackett_luce', center_coef=0.01)
  config.packing = dict(
      common.rows(64, num_rows=8 if smoke else 16,
                  rows_per_device=1 if smoke else 2),
      lists_per_row=1, num_candidates=4)
  config.checkpoint.every = 1 if smoke else 100
  return config
