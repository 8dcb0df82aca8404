r"""The whole of Ring-lite at full size. Not yet run.

  python -m experiments.ring_lite \
      --config=configs/pipeline/ring_lite_paper.py --workdir=<folder> \
      --config.sft.init.checkpoint=<Ling-lite-1.5, converted>

Distillation, start of RL at an entropy of 0.3 to 0.5 nats per token, C3PO on
math, C3PO on code and science, evaluation with 32 samples a problem. The paper
used 256 H800. Tokenizer and data are local files; give their paths to every
stage (`--config.rl[0].data.source.path`, ...).

`:per_data_rank` (the default) and `:global` are two readings of the token
budget; `configs/policy/ring_lite_paper.py` explains them, and says which values
the paper does not give.

Reference: Ring-lite (arXiv 2506.14731), §3.4, §4.1.1, §4.3.
"""
from ml_collections import config_dict

from configs import common


def get_config(arg: str = '') -> config_dict.ConfigDict:
  scope = arg or 'per_data_rank'
  if scope not in ('per_data_rank', 'global'):
    raise ValueError(
        f'Unknown variant {arg!r}; use "per_data_rank" or "global".')
  config = config_dict.ConfigDict()
  config.seeds = (0,)
  config.entropy_band = (0.3, 0.5)  # nats per token
  config.sft = common.paper_supervised()
  config.rl = (common.paper_policy(1, scope), common.paper_policy(2, scope))
  config.choice = common.paper_evaluation('validation', num_samples=4)  # ours
  config.evaluation = common.paper_evaluation('test', num_samples=32)
  return config
