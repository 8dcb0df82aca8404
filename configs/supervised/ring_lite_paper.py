r"""The distillation of Ring-lite, at full size. Not yet run.

  python -m experiments.sft \
      --config=configs/supervised/ring_lite_paper.py --workdir=<folder> \
      --config.init.checkpoint=<Ling-lite-1.5, converted> \
      --config.data.source.path=<solutions>.jsonl --config.tokenizer=<folder>

Given by the paper: AdamW at 3e-4 with weight decay 0.1, cosine after 1 % of
linear warm-up, batch 256, 3 epochs (the study of epochs goes to 9), a window of
32,768, RoPE base 600,000.
From Ling's pre-training, for want of the paper's own: betas, clipping, router
losses.
Not given, so ours: the number of steps (that of examples is unknown), the final
rate, mesh, micro-batches. The hardware of this stage is not said; that of the
reinforcement learning is 256 H800.

Lines are {prompt, answer, solution}; the mix of the paper is 64.5 % math,
25.5 % code, 9.2 % science.

Reference: Ring-lite (arXiv 2506.14731), §2.1 and §4.1.1; Ling (arXiv
2503.05139), §3.4.
"""
from ml_collections import config_dict

from configs import common


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg:
    raise ValueError(f'Unknown variant {arg!r}; there is none but "".')
  return common.paper_supervised()
