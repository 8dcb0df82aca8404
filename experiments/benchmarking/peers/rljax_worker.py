"""rljax: training, decoding, steps of GRPO, DPO, a reward, as its scripts."""
import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
import serving

from rljax import losses
from rljax import packing
from rljax import rollout
from rljax import sharding
from rljax.interop import convert
from rljax.models import reward as reward_models
from rljax.models import transformer
from rljax.ops import advantages
from rljax.packing import layout
from rljax.packing import lists as packed_lists
from rljax.packing import pairs as packed_pairs
from rljax.training import batch as batches
from rljax.training import forward as forwards
from rljax.training import optimizer as optimizers
from rljax.training import reward as training_reward
from rljax.training import state as states
from rljax.training import update as updates
from rljax.types import ComparedTexts
from rljax.types import TokenPair
from rljax.types import TrainState

VERSIONS = {name: importlib.metadata.version(name)
            for name in ('rljax', 'jax', 'flax')}


def load(job):
  """The model of the checkpoint, its parameters, and the tokens of the job."""
  model = transformer.Transformer(convert.model_config(job['checkpoint']))
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  return (model, convert.load(job['checkpoint'], model, mesh),
          np.load(job['tokens']))


def write_logits(model, params, tokens_BT, job):
  """Of the first row, for the comparison with everybody else's."""
  first_BT = jnp.asarray(tokens_BT[:1])
  position_BT = jnp.arange(first_BT.shape[1])[None]
  run = jax.jit(lambda params: model.apply(
      {'params': params}, first_BT, position_BT,
      jnp.ones_like(first_BT)).logits_BTV)
  np.save(job['logits'], run(params))


def start_state(params, job):
  """(optimizer, state) with AdamW as everybody has it: no clipping or decay."""
  optimizer = optimizers.make_optimizer(
      'adamw', job['learning_rate'], clip_norm=None, weight_decay=0.0)
  return optimizer, TrainState(jnp.zeros((), jnp.int32), params,
                               jax.jit(optimizer.init)(params))


def train(driver):
  job = driver.job
  model, params, tokens_BT = load(job)
  write_logits(model, params, tokens_BT, job)
  optimizer, state = start_state(params, job)
  del params  # the update donates them
  objective = losses.get('supervised', 'cross_entropy')
  update = updates.make_update_fn(
      forwards.compose(forwards.make_forward(model), objective.loss), optimizer)
  rows, length = tokens_BT.shape
  batch = packing.pack_examples(
      list(tokens_BT), [np.arange(length) > 0] * rows, num_rows=rows,
      row_length=length)
  take_steps(driver, update, state, lambda: batch)


def take_steps(driver, update, state, make_batch):
  """Answers with the loss of each step; making its batch is timed with it."""
  key = jax.random.key(0)
  driver.answer(versions=VERSIONS)
  while driver.wait():
    state, metrics = update(state, make_batch(), key)
    jax.block_until_ready(state)
    driver.answer(loss=float(metrics['loss']))


def decode(driver):
  job = driver.job
  model, params, tokens_BT = load(job)
  write_logits(model, params, tokens_BT, job)
  rows, length = tokens_BT.shape
  sample = rollout.make_sampler(
      model, num_slots=rows, max_prompt_length=length, num_prefill=rows,
      max_new_tokens=job['new_tokens'])
  driver.answer(versions=VERSIONS)
  while driver.wait():
    out = sample(params, tokens_BT, jax.random.key(0), samples_per_prompt=1,
                 temperature=0.0)
    driver.answer(tokens=out.tokens_PGT[:, 0].tolist())


def grpo(driver):
  """What a step of `experiments.train_policy` does."""
  job = driver.job
  model, params, prompts_PT = load(job)
  write_logits(model, params, prompts_PT, job)
  optimizer, state = start_state(states.frozen_copy(params), job)
  reference = params
  objective = losses.get('policy', 'grpo', kl_coef=job['kl_coef'])
  forward = forwards.make_forward(model)
  score = forwards.make_score_fn(forward)
  update = updates.make_update_fn(
      forwards.compose(forward, objective.loss), optimizer)
  token_weights = jax.jit(objective.token_weights)
  num_prompts, length = prompts_PT.shape
  responses = num_prompts * job['samples']
  sample = rollout.make_sampler(
      model, num_slots=responses, max_prompt_length=length,
      num_prefill=num_prompts, max_new_tokens=job['new_tokens'])
  estimate = advantages.get('group_normalized')
  keys, step = states.named_keys(0, 'sample', 'update'), 0
  driver.answer(versions=VERSIONS)
  while driver.wait():
    group = sample(state.params, prompts_PT,
                   jax.random.fold_in(keys['sample'], step),
                   samples_per_prompt=job['samples'], temperature=1.0)
    reward_PG = (group.tokens_PGT % 2 == 0).mean(axis=-1, dtype=np.float32)
    advantage_R = np.asarray(
        estimate(reward_PG, np.ones_like(reward_PG, bool))).ravel()
    selection = packing.select(
        group.length_PG.ravel(), token_budget=responses * job['new_tokens'],
        seed=[0, step], advantage_R=advantage_R, group_size=job['samples'])
    rows = packing.pack(
        group, advantage_R, selection, num_rows=responses,
        row_length=length + job['new_tokens'],
        max_response_length=job['new_tokens'])
    batch = batches.policy_batch(
        rows, token_weights(rows), packing.policy_shares(rows.segment_BT),
        score, state.params, reference)
    state, _ = update(state, batch, keys['update'])
    jax.block_until_ready(state)
    step += 1
    driver.answer(new_tokens=int(group.length_PG.sum()))


def dpo(driver):
  """What a step of `experiments.train_preference` does."""
  job = driver.job
  model, params, tokens_BT = load(job)
  write_logits(model, params, tokens_BT, job)
  optimizer, state = start_state(states.frozen_copy(params), job)
  objective = losses.get('preference', 'dpo', beta=job['beta'])
  forward = forwards.make_forward(model)
  score = forwards.make_score_fn(forward)
  update = updates.make_update_fn(
      forwards.compose(forward, objective.loss), optimizer)
  pairs = [TokenPair(str(i), *(np.array(part, np.int32) for part in pair),
                     *(np.ones(len(side), bool) for side in pair[1:]))
           for i, pair in enumerate(job['pairs'])]
  lengths = [packed_pairs.stored_length(pair, True) for pair in pairs]
  rows, _ = layout.place(lengths, job['row_length'])
  batch, _ = packing.pack_pairs(
      pairs, num_rows=int(rows.max()) + 1, row_length=job['row_length'],
      pairs_per_row=len(pairs))
  refer = lambda: batch.replace(ref_logp_BT=score(params, batch)[0])
  ready = refer() if job['precomputed'] else None
  if job['precomputed']:
    params = None  # the reference is not needed any more
  take_steps(driver, update, state, lambda: ready or refer())


def reward(driver):
  """What a step of `experiments.train_reward_model` does."""
  job = driver.job
  language, params, _ = load(job)
  model = reward_models.RewardModel(language.config)
  params = {name: part for name, part in params.items() if name != 'head'} | {
      reward_models.HEAD: {'kernel': jnp.asarray(job['head'])[:, None]}}
  pairs = [ComparedTexts(tuple(np.array(prompt + side, np.int32)
                               for side in sides), (0, 1))
           for prompt, *sides in job['pairs']]
  rows, _ = layout.place([packed_lists.stored_length(pair) for pair in pairs],
                         job['row_length'])
  batch, place_N2 = packing.pack_lists(
      pairs, num_rows=int(rows.max()) + 1, row_length=job['row_length'],
      lists_per_row=len(pairs), num_candidates=2)
  forward = training_reward.make_head_forward(model)
  score_BPC = training_reward.make_score_fn(forward)(params, batch)[0][..., 0]
  # All chosen ones, then all rejected ones.
  np.save(job['logits'], np.asarray(score_BPC)[tuple(place_N2.T)].T.ravel())
  objective = losses.get('reward', 'bradley_terry')
  optimizer, state = start_state(params, job)
  del params  # the update donates them
  update = updates.make_update_fn(
      training_reward.compose(forward, objective.loss), optimizer)
  take_steps(driver, update, state, lambda: batch)


def products(driver):
  """A large matrix product, for the rate of the machine."""
  size = driver.job['size']
  a, b = jax.random.normal(jax.random.key(0), (2, size, size))
  run = jax.jit(jnp.matmul)
  driver.answer(versions=VERSIONS)
  while driver.wait():
    run(a, b).block_until_ready()
    driver.answer()


def reads(driver):
  """Sums an array that no cache holds, for the bandwidth of the memory."""
  array = jnp.ones(driver.job['size'], jnp.float32)
  run = jax.jit(jnp.sum)
  driver.answer(versions=VERSIONS)
  while driver.wait():
    run(array).block_until_ready()
    driver.answer()


if __name__ == '__main__':
  serving.serve(dict(train=train, decode=decode, grpo=grpo, dpo=dpo,
                     reward=reward, products=products, reads=reads))
