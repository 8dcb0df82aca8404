"""Sections that several configs share; each call returns a fresh copy."""
from ml_collections import config_dict


def base() -> config_dict.ConfigDict:
  """What every run needs: seed, start point, mesh, checkpoints, tokenizer."""
  config = config_dict.ConfigDict()
  config.seed = 0
  # Folder of checkpoints to start from, and which step; -1 is the newest.
  config.init = dict(checkpoint='', step=-1, keep_optimizer=False)
  config.tokenizer = 'byte'
  config.mesh = dict(data=-1, fsdp=1, expert=1, tensor=1)
  config.sharding = config_dict.ConfigDict()  # rows of the axis table
  config.checkpoint = dict(every=50, keep=2)
  config.num_microbatches = 1
  return config


def reasoning_gym(tasks, train_size: int, held_out: int) -> dict:
  """Problems of third-party generators; sizes are for each task."""
  return dict(
      name='reasoning_gym', data_dir='~/.cache/rljax/data', tasks=tasks,
      train_size=train_size, validation_size=held_out, test_size=held_out,
      seed=0)


def data(source: dict, max_prompt_length: int, **more) -> dict:
  """A data section: all domains, and no prompt over the limit."""
  return dict(source=source, domains=None, too_long='fail',
              max_prompt_length=max_prompt_length, **more)


def rollout(max_prompt_length: int, max_new_tokens: int, num_slots: int,
            samples_per_prompt: int) -> dict:
  """A rollout section that samples from the policy as it is."""
  return dict(
      samples_per_prompt=samples_per_prompt, num_slots=num_slots,
      max_prompt_length=max_prompt_length, max_new_tokens=max_new_tokens,
      temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)


def policy() -> config_dict.ConfigDict:
  """The parts of a policy config that sizes do not change."""
  config = base()
  config.reward = dict(name='by_record', timeout=5.0, num_workers=2)
  config.advantage = 'group_normalized'
  config.loss = dict(name='c3po', clip_eps=0.2, kl_coef=1e-3)
  # The paper's coefficients.
  config.regularize = dict(entropy_coef=5e-4, balance_coef=1e-5, z_coef=1e-7)
  config.dynamic_sampling = False  # drop groups without a signal, draw again
  config.max_draws = 1             # of prompts, for one step
  config.optimizer = dict(name='adamw', learning_rate=3e-6, clip_norm=1.0,
                          b1=0.9, b2=0.999, weight_decay=0.01,
                          schedule=dict(name='constant', warmup_steps=10))
  return config


def packing(token_budget: int, row_length: int, num_rows: int) -> dict:
  """A packing section with the paper's selection."""
  return dict(
      row_length=row_length, num_rows=num_rows, resample=False,
      select=dict(token_budget=token_budget, order='random', cut='token',
                  underflow='keep_phi', budget_scope='global', num_ranks=1,
                  selection='prefix', drop_zero_adv_groups=False))
