r"""GRAM, stage 2: the language model names the better of two toy responses.

  python -m experiments.train_reward_model \
      --config=configs/reward/gram_tiny.py --workdir=runs/gram \
      --config.init.checkpoint=runs/gram_stage1/checkpoints

All of 400 held-out pairs are judged right then, with a mean gap of 2.95 where
the loss wants log 19 = 2.94 (seed 0). Without the last line it does without
stage 1; --config.loss.wrong_label_mass=0 does without the smoothing. `:noisy`
has one label in ten wrong, and smooths by as much. `:adapt` is a small set of
another kind of text, for a judge that is trained already: name its checkpoints
as above. `:smoke` shrinks it to seconds, and `:file` reads pairs of your own,
as `bradley_terry_tiny.py:file` does.

Reference: GRAM (arXiv 2506.14175), and its published settings: two epochs,
wrong_label_mass 0.05; the rate there, 2e-5, is for larger models.
"""
from ml_collections import config_dict

from configs import common


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'smoke', 'noisy', 'adapt', 'file'):
    raise ValueError(f'Unknown variant {arg!r}; use "", "smoke", "noisy", '
                     '"adapt" or "file".')
  adapt = arg == 'adapt'

  config = common.gram_tiny(
      'judge', arg == 'smoke', num_steps=40 if adapt else 400,
      count=128 if adapt else 2_000, held_out=400, every=100)
  config.loss = dict(name='gram', wrong_label_mass=0.05, mass_coef=0.0)
  if arg == 'noisy':
    config.data.source.flip = config.loss.wrong_label_mass = 0.1
  if adapt:
    config.data.source.length, config.optimizer.learning_rate = 8, 3e-4
  if arg == 'file':
    config.data.source = common.preference_file(
        'data/pairs.jsonl', 'jsonl', held_out=400)
    config.packing.update(row_length=1_024, rows_per_device=1)
  return config
