r"""Best against worst of eight responses to sums, by the verifier.

  python -m experiments.make_pairs \
      --config=configs/pairs/worked_sums.py --workdir=runs/pairs \
      --config.init.checkpoint=runs/sft_tiny/checkpoints
  python -m experiments.train_preference \
      --config=configs/preference/on_policy.py --workdir=runs/on_policy \
      --config.data.source.path=runs/pairs/pairs.jsonl \
      --config.init.checkpoint=runs/sft_tiny/checkpoints

--config.reward_model.run=<workdir of train_reward_model> has a reward model
choose, in the verifier's place; a judge compares with a greedy answer, or with
--config.reward_model.ranking=knockout, anchor or round_robin the samples with
each other. `:smoke` shrinks it to seconds; it needs a checkpoint of the tiny
variant, as random parameters solve nothing.
"""
from ml_collections import config_dict

from configs import common

_PROMPT, _RESPONSE = 32, 64  # tokens


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'smoke'):
    raise ValueError(f'Unknown variant {arg!r}; use "" or "smoke".')
  smoke = arg == 'smoke'
  config = common.run()
  config.model = dict(variant='tiny' if smoke else 'mini', vocab_size=272)
  config.data = common.data(
      common.reasoning_gym((('basic_arithmetic', 1),),
                           train_size=60 if smoke else 600,
                           held_out=8 if smoke else 40), _PROMPT)
  config.reward = common.reward()
  config.reward_model = common.model_rewards()
  config.rollout = common.slots(_PROMPT, _RESPONSE, 8 if smoke else 64)
  config.pairs = dict(split='train', prompts_per_step=20 if smoke else 40,
                      samples_per_prompt=4 if smoke else 8,
                      sampling=common.untouched())
  return config
