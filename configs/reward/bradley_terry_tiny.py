r"""A Bradley-Terry reward model on toy comparisons, in a minute on a laptop.

  python -m experiments.train_reward_model \
      --config=configs/reward/bradley_terry_tiny.py --workdir=runs/bradley_terry

A response is better that has the letter asked for more often. It begins from
random parameters; --config.init.checkpoint=<run>/checkpoints begins from a
language model. `:smoke` shrinks it to seconds, `:ensemble` has five heads, and
`:file` reads pairs of your own, --config.data.source.path=<file>, in one of the
forms of `rljax/data/preference.py`: --config.data.source.form=hh_rlhf.
"""
from ml_collections import config_dict

from configs import common


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'smoke', 'ensemble', 'file'):
    raise ValueError(
        f'Unknown variant {arg!r}; use "", "smoke", "ensemble" or "file".')
  smoke = arg == 'smoke'

  config = common.reward_model('scores')
  config.model = dict(variant='tiny_dense')
  config.num_steps = 2 if smoke else 300
  config.num_heads = 5 if arg == 'ensemble' else 1
  config.data = common.comparisons(
      common.toy_comparisons(count=32 if smoke else 2_000,
                             held_out=16 if smoke else 400),
      lists_per_step=8 if smoke else 32)
  config.loss = dict(name='bradley_terry', wrong_label_mass=0.0,
                     margin_coef=0.0, center_coef=0.01)
  config.packing = dict(
      common.rows(64, num_rows=8 if smoke else 32,
                  rows_per_device=1 if smoke else 4),
      lists_per_row=2, num_candidates=2)
  config.checkpoint.every = 1 if smoke else 100
  if arg == 'file':
    config.data.source = common.preference_file(
        'data/pairs.jsonl', 'jsonl', held_out=400)
    config.packing.update(row_length=1_024, rows_per_device=1)
  return config
