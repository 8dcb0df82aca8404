r"""TGDPO on worked sums, guided by a model that DPO has trained before.

  python -m experiments.train_preference \
      --config=configs/preference/tgdpo_tiny.py --workdir=runs/tgdpo_tiny \
      --config.init.checkpoint=runs/sft_tiny/checkpoints \
      --config.guide.checkpoint=runs/dpo_tiny/checkpoints

Policy and reference begin where DPO began (`configs/preference/dpo_tiny.py`).
`:smoke` shrinks it to seconds; it needs a guide too.
"""
from ml_collections import config_dict

from configs import common


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'smoke'):
    raise ValueError(f'Unknown variant {arg!r}; use "" or "smoke".')
  config = common.preference_tiny(arg == 'smoke')
  config.loss = dict(name='tgdpo', beta=0.1, alpha=0.5)
  return config


def get_sweep():
  """Overrides of the run `--sweep_index=i`: α, and the prefix in common."""
  return [{'loss.alpha': alpha} for alpha in (0.5, 1.0, 2.0)] + [
      {'loss': dict(name='tgdpo', beta=0.1, alpha=0.5,
                    mask_shared_prefix=True)}]
