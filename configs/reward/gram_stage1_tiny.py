r"""GRAM, stage 1: a language model learns to write two responses to a request.

  python -m experiments.train_reward_model \
      --config=configs/reward/gram_stage1_tiny.py --workdir=runs/gram_stage1

No label is looked at. `configs/reward/gram_tiny.py` goes on from it. `:smoke`
shrinks it to seconds, and `:file` reads pairs of your own without labels, lines
of prompt and two responses: --config.data.source.path=<file>.

Reference: GRAM (arXiv 2506.14175), and its published settings: one epoch, a
cosine after a tenth of warm-up; the rate there, 1e-5, is for larger models.
"""
from ml_collections import config_dict

from configs import common


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'smoke', 'file'):
    raise ValueError(f'Unknown variant {arg!r}; use "", "smoke" or "file".')

  config = common.gram_tiny('pretraining', arg == 'smoke', num_steps=250,
                            count=8_000, held_out=100, every=125)
  config.loss = dict(name='cross_entropy')
  if arg == 'file':
    config.data.source = common.preference_file(
        'data/unlabeled.jsonl', 'unlabeled', held_out=100)
    config.packing.update(row_length=1_024, rows_per_device=1)
  return config
