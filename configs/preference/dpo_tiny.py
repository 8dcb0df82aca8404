r"""DPO on worked sums: right solutions against ones with a wrong number.

  python -m experiments.sft \
      --config=configs/supervised/sft_tiny.py --workdir=runs/sft_tiny
  python -m experiments.train_preference \
      --config=configs/preference/dpo_tiny.py --workdir=runs/dpo_tiny \
      --config.init.checkpoint=runs/sft_tiny/checkpoints

`:smoke` shrinks it to seconds, from random parameters. `experiments.sweep`
compares losses on the same pairs.
"""
from ml_collections import config_dict

from configs import common


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'smoke'):
    raise ValueError(f'Unknown variant {arg!r}; use "" or "smoke".')
  smoke = arg == 'smoke'
  config = common.preference_tiny(smoke)
  config.loss = dict(name='dpo', beta=0.1)
  return config


def get_sweep():
  """Overrides of the run `--sweep_index=i`: losses, three seeds each."""
  losses = (
      dict(name='dpo', beta=0.1), dict(name='ipo', beta=0.1),
      dict(name='hinge', beta=0.1), dict(name='dpop', beta=0.1),
      dict(name='apo', beta=0.1), dict(name='bco', beta=0.1),
      dict(name='nca', beta=0.1), dict(name='exo', beta=0.1),
      dict(name='sppo', beta=0.1), dict(name='discopop', beta=0.1),
      dict(name='simpo'), dict(name='orpo'), dict(name='cpo'))
  return [{'loss': loss, 'seed': seed} for loss in losses for seed in range(3)]
