"""Sections that several configs share; each call returns a fresh copy."""
from ml_collections import config_dict

_DATA = '~/.cache/rljax/data'  # where the builders write

_AXES = (
    'act_batch', 'act_length', 'act_cache', 'act_embed', 'act_heads',
    'act_kv_heads', 'act_mlp', 'act_vocab', 'act_experts', 'embed', 'vocab',
    'mlp', 'heads', 'kv_heads', 'experts', 'router', 'layers', 'head_dim',
    'norm')


def run() -> config_dict.ConfigDict:
  """What every script needs: seed, start point, tokenizer, mesh."""
  config = config_dict.ConfigDict()
  config.seed = 0
  # Folder of checkpoints to start from, and which step; -1 is the newest when
  # the run begins, here and below: whoever continues it reads that one again.
  config.init = dict(checkpoint='', step=-1, keep_optimizer=False)
  # Adapters of this rank are trained, and the parameters of `init` stay as they
  # are; 0 trains those. `base` is for reading such a run back where those have
  # moved: published, or checkpoints.
  config.lora = dict(
      rank=0, alpha=16.0, rank_stabilized=False, base='', base_step=-1,
      targets=('query', 'key', 'value', 'out', 'gate_up', 'down'))
  config.tokenizer = 'byte'
  config.mesh = dict(data=-1, fsdp=1, expert=1, context=1, tensor=1)
  # Rows of the axis table (rljax/sharding.py) to replace: mesh axes, or () for
  # none. Placeholders are None, which keeps the row, yet can be set.
  config.sharding = {name: config_dict.placeholder(tuple) for name in _AXES}
  return config


def base() -> config_dict.ConfigDict:
  """What every training script needs besides."""
  config = run()
  config.checkpoint = dict(every=50, keep=2)
  config.router_bias_rate = 0.0  # with model.router_bias; 0.001 is usual
  return config


def reasoning_gym(tasks, train_size: int, held_out: int,
                  hint_steps: int = 0) -> dict:
  """Problems of third-party generators; sizes are for each task."""
  return dict(
      name='reasoning_gym', data_dir=_DATA, tasks=tasks,
      train_size=train_size, validation_size=held_out, test_size=held_out,
      seed=0, hint_steps=hint_steps)


def gsm8k(path: str, held_out: int) -> dict:
  """GSM8K from a local file; without a test file, a part of it is held out."""
  return dict(
      name='gsm8k', data_dir=_DATA, path=path,
      test_path=config_dict.placeholder(str), validation_size=held_out,
      test_size=held_out, seed=0)


def jsonl(path: str, held_out: int) -> dict:
  """A user's own problems; a line may name its domain."""
  return dict(
      name='jsonl', data_dir=_DATA, path=path, verifier='math', domain='math',
      validation_size=held_out, test_size=held_out, seed=0)


def programs(path: str, form: str) -> dict:
  """Programming problems; `form` says whose."""
  return dict(name='programs', data_dir=_DATA, path=path, form=form,
              validation_size=0, test_size=0, seed=0)


def data(source: dict, max_prompt_length: int, **more) -> dict:
  """A data section: all domains, and no prompt over the limit."""
  # A placeholder is None, yet can be set on the command line.
  return dict(source=source, domains=config_dict.placeholder(tuple),
              too_long='fail', max_prompt_length=max_prompt_length, **more)


def slots(max_prompt_length: int, max_new_tokens: int, num_slots: int) -> dict:
  """The sizes of a sampler."""
  return dict(num_slots=num_slots, max_prompt_length=max_prompt_length,
              max_new_tokens=max_new_tokens)


def untouched() -> dict:
  """Sampling from the policy as it is."""
  return dict(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)


def rollout(max_prompt_length: int, max_new_tokens: int, num_slots: int,
            samples_per_prompt: int) -> dict:
  """A rollout section that samples from the policy as it is."""
  # With fsdp, gathered_params spends memory on a copy of the parameters: then
  # no sampled token waits for them to be gathered.
  return dict(slots(max_prompt_length, max_new_tokens, num_slots),
              samples_per_prompt=samples_per_prompt, gathered_params=False,
              **untouched())


def reward() -> dict:
  """Each record by its own verifier."""
  return dict(name='by_record', timeout=5.0, num_workers=2,
              truncated_earns_nothing=False,
              isolation='namespaces')  # of programs; 'limits' trusts them


def policy() -> config_dict.ConfigDict:
  """The parts of a policy config that sizes do not change."""
  config = base()
  config.name = 'rl'
  config.reward = reward()
  config.reward_model = reward_from_model()
  config.judge = dict(judge(), every=1)  # of reasoning; a step in so many
  config.advantage = 'group_normalized'  # 'gae': by the critic below
  config.loss = dict(name='c3po', clip_eps=0.2, kl_coef=1e-3)
  # Read with advantage='gae' only (experiments/policy/critics.py); kl_coef is
  # of a penalty in the reward, beside that of the loss.
  config.critic = dict(
      gamma=1.0, gae_lambda=1.0, whiten=True, kl_coef=0.0,
      loss=dict(name='clipped', clip_value=0.2),
      optimizer=dict(name='adamw', learning_rate=1e-5, clip_norm=1.0, b1=0.9,
                     b2=0.999, weight_decay=0.01,
                     schedule=dict(name='constant', warmup_steps=10)))
  # The paper's coefficients.
  config.regularize = dict(entropy_coef=5e-4, balance_coef=1e-5, z_coef=1e-7)
  # A target in nats steers entropy_coef by `step` in every update; 0 does not.
  config.entropy_control = dict(target=0.0, step=5e-4, max_coef=0.05)
  # For samplers that differ from the trainer: tis, mis or icepop, by token,
  # sequence or geometric mean, with bounds (rljax/ops/corrections.py).
  config.correction = dict(name='none', level='token')
  # Hints where every answer was wrong (experiments/policy/guided.py).
  config.guide = dict(
      mode='off', threshold=1e-3, lower=1e-3, upper=0.999, hint_lower=1e-3,
      hint_upper=0.999, context='plain', denominator='hinted', quantile=0.9,
      plain_weight=1.0, buffer=False)
  config.dynamic_sampling = False  # drop groups without a signal, draw again
  config.max_draws = 1             # of prompts, for one step
  config.routing_replay = 'off'    # or recompute (R2), rollout (R3)
  config.optimizer = dict(name='adamw', learning_rate=3e-6, clip_norm=1.0,
                          b1=0.9, b2=0.999, weight_decay=0.01,
                          schedule=dict(name='constant', warmup_steps=10))
  return config


def reward_from_model() -> dict:
  """Whose scores replace verifiers: experiments/policy/reward_from_model.py.

  `run` is the folder of a reward model's run; '': the verifiers reward. A judge
  compares a response with a greedy one ('reference'), or the responses to a
  prompt with each other: round_robin, anchor or knockout.
  """
  return dict(run='', step=-1, heads='mean', normalize=False,
              average='probability', ranking='reference')


def preference() -> config_dict.ConfigDict:
  """The parts of a preference config that sizes do not change."""
  config = base()
  # What the policy is compared with: checkpoints as in `init`; '': the policy
  # as it begins. A guide is for TGDPO: a model trained on preferences before.
  # Either may be a run that trained adapters: what they lie on is read from
  # where that run has found it, or from `base`, if it has moved since.
  config.reference = dict(checkpoint='', step=-1, base='')
  config.guide = dict(checkpoint='', step=-1, base='')
  # Their log-probabilities: of all pairs before training, or in each step. The
  # folder may be shared by runs; '' is that of the run.
  config.scores = dict(precompute=True, folder='')
  config.regularize = dict(entropy_coef=0.0, balance_coef=0.0, z_coef=0.0)
  config.optimizer = dict(name='adamw', learning_rate=1e-6, clip_norm=1.0,
                          b1=0.9, b2=0.999, weight_decay=0.0,
                          schedule=dict(name='constant', warmup_steps=10))
  return config


def corrupted(tasks, train_size: int, held_out: int) -> dict:
  """Right solutions against ones with a wrong number; sizes for each task."""
  return dict(name='corrupted', data_dir=_DATA, tasks=tasks,
              train_size=train_size, held_out=held_out, seed=0)


def preference_file(path: str, form: str, held_out: int) -> dict:
  """Your own pairs or lists; rljax/data/preference.py says in which forms."""
  return dict(name='file', path=path, form=form, held_out=held_out,
              test_path=config_dict.placeholder(str), unfit='drop', seed=0,
              other='worst', score='overall_score')


def pairs(source: dict, max_prompt_length: int, max_response_length: int,
          examples_per_step: int) -> dict:
  """A data section of pairs: both responses are cut to one length.

  `ends=False` is for parts of answers, which no stop token ends: Step-DPO reads
  a file of the form 'steps' so.
  """
  return dict(source=source, domains=config_dict.placeholder(tuple),
              max_prompt_length=max_prompt_length,
              max_response_length=max_response_length, ends=True,
              examples_per_step=examples_per_step)


def pair_rows(row_length: int, num_rows: int, rows_per_device: int,
              pairs_per_row: int) -> dict:
  """The shape of a step of pairs, their prompts stored once."""
  return dict(rows(row_length, num_rows, rows_per_device),
              pairs_per_row=pairs_per_row, share_prompt=True)


def preference_tiny(smoke: bool) -> config_dict.ConfigDict:
  """Pairs of worked sums for a policy of `configs/supervised/sft_tiny.py`."""
  config = preference()
  config.model = dict(variant='tiny' if smoke else 'mini', vocab_size=272)
  config.num_steps = 2 if smoke else 100
  config.data = pairs(
      corrupted((('basic_arithmetic', 1),), train_size=60 if smoke else 1_000,
                held_out=8 if smoke else 200),
      max_prompt_length=32, max_response_length=64,
      examples_per_step=8 if smoke else 32)
  config.packing = pair_rows(192 if smoke else 256, num_rows=8 if smoke else 32,
                             rows_per_device=1 if smoke else 4, pairs_per_row=8)
  config.optimizer.learning_rate = 1e-4
  config.checkpoint.every = 1 if smoke else 25
  return config


def reward_model(form: str) -> config_dict.ConfigDict:
  """The parts of a reward model's config that sizes do not change."""
  config = base()
  config.form = form  # experiments/reward/reward_model_forms.py
  config.num_heads = 1  # of an ensemble of scores
  # Whether init.checkpoint is a reward model and not a language model.
  config.init.head_from_checkpoint = False
  config.regularize = dict(balance_coef=0.0, z_coef=0.0)  # of experts
  config.optimizer = dict(name='adamw', learning_rate=1e-3, clip_norm=1.0,
                          b1=0.9, b2=0.999, weight_decay=0.0,
                          schedule=dict(name='constant', warmup_steps=10))
  return config


def toy_comparisons(count: int, held_out: int, size: int = 2) -> dict:
  """Texts of which the one that holds a letter more often is better."""
  return dict(name='toy', count=count, held_out=held_out, length=5,
              requests='a', size=size, flip=0.0, seed=0)


def toy_judge() -> dict:
  """A model that learns to judge toy texts in some hundred steps.

  A wide start and fast rotations do it; from the start of a large model it
  learns nothing.
  """
  return dict(variant='tiny_dense', init_std=0.15, rope_theta=100.0,
              tied_head=False)


def comparisons(source: dict, lists_per_step: int) -> dict:
  """A data section of a reward model."""
  return dict(source=source, lists_per_step=lists_per_step, too_long='drop',
              max_records=0)  # of training; 0: all


def gram_tiny(form: str, smoke: bool, num_steps: int, count: int,
              held_out: int, every: int) -> config_dict.ConfigDict:
  """GRAM on toy texts; a cosine after a tenth of warm-up."""
  config = reward_model(form)
  config.model = toy_judge()
  config.num_steps = 2 if smoke else num_steps
  config.data = comparisons(
      toy_comparisons(count=32 if smoke else count,
                      held_out=16 if smoke else held_out),
      lists_per_step=8 if smoke else 32)
  config.packing = dict(rows(256, num_rows=8 if smoke else 32,
                             rows_per_device=1 if smoke else 4),
                        lists_per_row=2, num_candidates=2)
  config.optimizer.schedule = dict(
      name='cosine', warmup_steps=max(config.num_steps // 10, 1),
      decay_steps=config.num_steps)
  config.checkpoint.every = 1 if smoke else every
  return config


def muon(num_steps: int) -> dict:
  """For distilling a small policy: five times as fast as AdamW here.

  The schedule is left half-way: from a rate that has decayed to the end, the RL
  that follows hardly moves.
  """
  return dict(
      name='muon', learning_rate=4e-3, clip_norm=1.0, beta=0.95, adam_b2=0.95,
      consistent_rms=0.2, weight_decay=0.1,
      schedule=dict(name='cosine', warmup_steps=10, end_factor=0.1,
                    decay_steps=2 * num_steps))


def rows(row_length: int, num_rows: int, rows_per_device: int) -> dict:
  """The shape of a step, and of the part of it that a device has at a time."""
  return dict(row_length=row_length, num_rows=num_rows,
              rows_per_device=rows_per_device)


def packing(token_budget: int, row_length: int, num_rows: int,
            rows_per_device: int) -> dict:
  """A packing section with the paper's selection."""
  return dict(
      rows(row_length, num_rows, rows_per_device), resample=False,
      select=dict(token_budget=token_budget, order='random', cut='token',
                  underflow='keep_phi', budget_scope='global', num_ranks=1,
                  selection='prefix', drop_zero_adv_groups=False))


def evaluation(split: str, problems_per_domain: int, num_samples: int) -> dict:
  """An evaluation section: pass@k for the powers of two up to the samples."""
  return dict(
      split=split, problems_per_domain=problems_per_domain,
      num_samples=num_samples,
      ks=tuple(2 ** i for i in range(num_samples.bit_length())), num_examples=8,
      sampling=untouched())


def judge() -> dict:
  """Who judges the reasoning: nobody; see experiments/policy/judging.py."""
  # fpr and tpr are of one call on labelled data; 0 and 1 correct nothing.
  return dict(name='none', base_url='', model='', api_key_env='', num_calls=3,
              num_retries=2, temperature=0.6, max_tokens=4_096,
              everything=False, missing='abstains', fpr=0.0, tpr=1.0)


# Ring-lite at full size, for the configs named ring_lite_paper: values of the
# paper (arXiv 2506.14731, §4.1.1), unless "ours" stands beside them.
_PAPER_PROMPT = 2_048   # ours
_PAPER_ROW = 32_768     # the longest sequence of any stage


def _paper(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
  """Adds the model, its tokenizer and the mesh for 256 devices."""
  config.model = dict(variant='ring_lite_16b_a2_75b')
  config.tokenizer = 'checkpoints/ring_lite'  # a folder of yours
  # Ours: rows are split 32 ways, over data and fsdp.
  config.mesh = dict(data=-1, fsdp=8, expert=2, context=1, tensor=4)
  return config


def paper_supervised() -> config_dict.ConfigDict:
  """Distillation on long chains of thought, three epochs."""
  config = _paper(base())
  config.num_steps = 9_000  # ours: the number of examples is not given
  config.data = data(jsonl('data/ring_lite_sft.jsonl', held_out=0),
                     _PAPER_PROMPT, examples_per_step=256,
                     fresh_solutions=False, hinted_share=0.0)
  config.data.too_long = 'drop'
  config.loss = dict(name='cross_entropy')
  # Ling's pre-training (arXiv 2503.05139), for want of the paper's own.
  config.regularize = dict(entropy_coef=0.0, balance_coef=0.015, z_coef=1e-4)
  config.packing = rows(_PAPER_ROW, num_rows=256, rows_per_device=1)
  config.checkpoint = dict(every=config.num_steps // 3, keep=3)  # each epoch
  warmup_steps = config.num_steps // 100
  config.optimizer = dict(
      name='adamw', learning_rate=3e-4, weight_decay=0.1,
      clip_norm=1.0, b1=0.9, b2=0.95,  # Ling's pre-training
      schedule=dict(name='cosine', warmup_steps=warmup_steps, end_factor=0.0,
                    decay_steps=config.num_steps - warmup_steps))
  return config


def paper_policy(stage: int, budget_scope: str) -> config_dict.ConfigDict:
  """C3PO: stage 1 is math, stage 2 code and science with longer responses."""
  config = _paper(policy())
  config.name, domains, total_length = {
      1: ('rl_math', ('math',), 24_576),
      2: ('rl_code_science', ('code', 'science'), 32_768)}[stage]
  config.num_steps = 500  # ours: about where the paper's curves end
  config.data = data(jsonl('data/ring_lite_rl.jsonl', held_out=512),
                     _PAPER_PROMPT, prompts_per_step=512)
  config.data.domains = domains
  config.data.too_long = 'drop'
  config.reward.update(num_workers=16, truncated_earns_nothing=True)
  config.rollout = rollout(_PAPER_PROMPT, total_length - _PAPER_PROMPT,
                           num_slots=2_048, samples_per_prompt=16)
  # Rows for any lengths: those beyond what a step fills cost nothing.
  num_rows = dict(per_data_rank=7_680, **{'global': 1_056})[budget_scope]
  config.packing = packing(409_600, _PAPER_ROW, num_rows, rows_per_device=1)
  config.packing.select.budget_scope = budget_scope
  config.packing.select.num_ranks = 256
  # Rate, coefficients and ε stand in `policy`; its decay, betas, clipping and
  # warm-up are ours.
  return config


def paper_evaluation(split: str, num_samples: int) -> config_dict.ConfigDict:
  """Held-out problems, at the temperature and the length of stage 2."""
  config = _paper(run())
  config.data = data(jsonl('data/ring_lite_rl.jsonl', held_out=512),
                     _PAPER_PROMPT)
  config.data.too_long = 'drop'
  config.reward = reward()
  config.reward.update(num_workers=16)
  config.rollout = slots(_PAPER_PROMPT, _PAPER_ROW - _PAPER_PROMPT,
                         num_slots=2_048)
  config.evaluation = evaluation(split, 512, num_samples)
  config.judge = judge()
  return config
