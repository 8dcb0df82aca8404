r"""Benchmarks of reward models: recorded answers, a trained model, or a judge.

  python -m experiments.evaluate_rewards \
      --config=configs/evaluation/rewards_mini.py --workdir=runs/rewards \
      --config.benchmarks.judge_bench=data/judge_bench/gpt.jsonl \
      --config.asked.path=runs/other/answers.jsonl

`:trained` asks a reward model or a judge of ours, whose --workdir is then
--config.asked.path. `:server` asks a language model on a server: add
--config.asked.base_url=http://localhost:8000/v1 --config.asked.model=<name>.
Name the files of those benchmarks that shall be run; '' leaves one out. With
--config.against=<answers.jsonl> a second model is compared on the same items.
Nobody can be shown images here yet: for `vl_reward_bench`, record elsewhere the
answers of a model that sees them.
"""
from ml_collections import config_dict


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'trained', 'server'):
    raise ValueError(f'Unknown variant {arg!r}; use "", "trained" or "server".')

  config = config_dict.ConfigDict()
  config.seed = 0
  config.benchmarks = dict(
      reward_bench='', reward_bench_2='', judge_bench='', rm_bench='',
      vl_reward_bench='', best_of_n='')
  # recorded: a file of answers; see
  # experiments/evaluation/evaluate_rewards_answers.py.
  config.asked = dict(
      name=arg or 'recorded', path='', base_url='', model='', api_key_env='',
      num_retries=2, temperature=0.0, max_tokens=2_048)
  config.against = ''  # answers of another model, to be compared
  # How a judge ranks n responses of reward_bench_2 and best_of_n: round_robin
  # asks n(n - 1) times, anchor 2(n - 1); so does knockout, which finds the best
  # and no more (rljax/agents/pair_judge.py).
  config.ranking = 'round_robin'
  config.num_votes = 9  # of VL-RewardBench; the most that a majority counts
  config.num_bins = 10  # of the reliability plot
  config.chunk = 32  # items between two additions to the journal
  return config
