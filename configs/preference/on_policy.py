r"""DPO on pairs that `experiments.make_pairs` has sampled from the policy.

  python -m experiments.train_preference \
      --config=configs/preference/on_policy.py --workdir=runs/on_policy \
      --config.data.source.path=runs/pairs/pairs.jsonl \
      --config.init.checkpoint=runs/sft_tiny/checkpoints

`:smoke` shrinks model and steps. See `configs/pairs/worked_sums.py`.
"""
from ml_collections import config_dict

from configs import common


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'smoke'):
    raise ValueError(f'Unknown variant {arg!r}; use "" or "smoke".')
  smoke = arg == 'smoke'
  config = common.preference_tiny(smoke)
  config.data.source = common.preference_file(
      'runs/pairs/pairs.jsonl', 'jsonl', held_out=4 if smoke else 40)
  config.data.examples_per_step = 4 if smoke else 16
  config.loss = dict(name='dpo', beta=0.1)
  return config
