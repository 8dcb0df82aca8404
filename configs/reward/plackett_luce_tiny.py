r"""A Plackett-Luce reward model on rankings of four toy responses, on a laptop.

  python -m experiments.train_reward_model \
      --config=configs/reward/plackett_luce_tiny.py --workdir=runs/plackett_luce

`:smoke` shrinks it to seconds, and `:file` reads rankings of your own, lines of
prompt and responses, best first: --config.data.source.path=<file>. No list may
be longer than --config.packing.num_candidates.
"""
from ml_collections import config_dict

from configs import common


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'smoke', 'file'):
    raise ValueError(f'Unknown variant {arg!r}; use "", "smoke" or "file".')
  smoke = arg == 'smoke'

  config = common.reward_model('scores')
  config.model = dict(variant='tiny_dense')
  config.num_steps = 2 if smoke else 300
  config.data = common.comparisons(
      common.toy_comparisons(count=32 if smoke else 2_000,
                             held_out=16 if smoke else 400, size=4),
      lists_per_step=8 if smoke else 16)
  config.loss = dict(name='plackett_luce', center_coef=0.01)
  config.packing = dict(
      common.rows(64, num_rows=8 if smoke else 16,
                  rows_per_device=1 if smoke else 2),
      lists_per_row=1, num_candidates=4)
  config.checkpoint.every = 1 if smoke else 100
  if arg == 'file':
    config.data.source = common.preference_file(
        'data/ranked.jsonl', 'ranked', held_out=400)
    config.packing.update(row_length=2_048, rows_per_device=1)
  return config
