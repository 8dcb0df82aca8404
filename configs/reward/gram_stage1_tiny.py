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
  smoke = arg == 'smoke'

  config = common.reward_model('pretraining')
  config.model = common.toy_judge()
  config.num_steps = 2 if smoke else 250
  config.data = common.comparisons(
      common.toy_comparisons(count=32 if smoke else 8_000,
                             held_out=16 if smoke else 100),
      lists_per_step=8 if smoke else 32)
  config.loss = dict(name='cross_entropy')
  config.packing = dict(
      common.rows(256, num_rows=8 if smoke else 32,
                  rows_per_device=1 if smoke else 4),
      lists_per_row=2, num_candidates=2)
  config.optimizer.schedule = dict(
      name='cosine', warmup_steps=max(config.num_steps // 10, 1),
      decay_steps=config.num_steps)
  config.checkpoint.every = 1 if smoke else 125
  if arg == 'file':
    config.data.source = common.preference_file(
        'data/unlabeled.jsonl', 'unlabeled', held_out=100)
    config.packing.update(row_length=1_024, rows_per_device=1)
  return config
