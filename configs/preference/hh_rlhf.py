r"""DPO on a local file of HH-RLHF, from a published checkpoint.

  python -m experiments.train_preference \
      --config=configs/preference/hh_rlhf.py --workdir=runs/hh_rlhf \
      --config.data.source.path=data/hh_rlhf/train.jsonl.gz \
      --config.model.variant=checkpoints/qwen3 \
      --config.tokenizer=checkpoints/qwen3 \
      --config.init.checkpoint=checkpoints/qwen3

`--config.data.source.test_path=<file> --config.data.source.held_out=0` takes
the publishers' own test pairs instead of holding prompts out. Lines whose sides
answer different prompts, or one of which is empty, are left out and counted.
Lengths and rate are ours; not yet run to its end.
"""
from ml_collections import config_dict

from configs import common


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg:
    raise ValueError(f'Unknown variant {arg!r}; there is none.')
  config = common.preference()
  config.model = dict(variant='tiny')
  config.num_steps = 1_000
  config.data = common.pairs(
      common.preference_file('data/hh_rlhf/train.jsonl.gz', 'hh_rlhf',
                             held_out=500),
      max_prompt_length=1_024, max_response_length=512, examples_per_step=64)
  config.packing = common.pair_rows(2_048, num_rows=64, rows_per_device=4,
                                    pairs_per_row=32)
  config.loss = dict(name='dpo', beta=0.1)
  config.checkpoint.every = 200
  return config
