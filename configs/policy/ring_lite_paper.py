r"""The reinforcement learning of Ring-lite, at full size. Not yet run.

  python -m experiments.train_policy \
      --config=configs/policy/ring_lite_paper.py --workdir=<folder> \
      --config.init.checkpoint=<distilled model> \
      --config.data.source.path=<problems>.jsonl --config.tokenizer=<folder>

The paper used 256 H800. It does not say what its token budget Φ = 409,600
counts, so there are two readings, the first being the default:

  :per_data_rank  each of 256 ranks selects Φ tokens of its 32 responses; a
                  step trains on 104,857,600 of the 100 million sampled
  :global         a step trains on Φ tokens; the other 99.6 % are dropped

`:per_data_rank_stage_2` and `:global_stage_2` are the second stage (code and
science) with sequences of 32,768 tokens instead of 24,576.

Given by the paper: 512 prompts of 16 responses, Φ, clip ε 0.2, KL 1e-3,
entropy 5e-4, balance 1e-5, z-loss 1e-7, AdamW at 3e-6 constant after a warm-up,
temperature 1.0, the two lengths.
Not given, so ours: number of steps and of warm-up steps, betas, weight decay,
clipping of gradients, the share of prompts in the length, mesh, slots, rows,
micro-batches. Its "minibatch size 2" has no unit and no counterpart here.

Problems are lines of {prompt, answer, domain}. Code is judged by its answer
only: this version runs no programs, which the paper's rewards for code do.

Reference: Ring-lite (arXiv 2506.14731), §4.1.1, §4.3.2.
"""
from ml_collections import config_dict

from configs import common


def get_config(arg: str = '') -> config_dict.ConfigDict:
  scope = (arg or 'per_data_rank').removesuffix('_stage_2')
  if scope not in ('per_data_rank', 'global'):
    raise ValueError(f'Unknown variant {arg!r}; use "per_data_rank" or '
                     '"global", with "_stage_2" behind it for stage 2.')
  return common.paper_policy(2 if arg.endswith('_stage_2') else 1, scope)


def get_sweep():
  """Overrides of the run `--sweep_index=i`: the paper's range of rates."""
  return [{'optimizer.learning_rate': rate} for rate in (1e-6, 2e-6, 3e-6)]
