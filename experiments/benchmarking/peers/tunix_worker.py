"""Tunix on JAX: training, greedy decoding, steps of GRPO and DPO."""
import functools
import importlib.metadata
import json
import pathlib

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import serving
import transformers
from tunix.generate import sampler as samplers
from tunix.models.qwen3 import model as models
from tunix.models.qwen3 import params as loading
from tunix.rl import rl_cluster
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout
from tunix.sft.dpo import dpo_trainer

VERSIONS = {name: importlib.metadata.version(name)
            for name in ('google-tunix', 'jax', 'flax')}


def config_of(folder) -> models.ModelConfig:
  """The settings of a Qwen3 checkpoint, dense or not."""
  found = json.loads((pathlib.Path(folder) / 'config.json').read_text())
  experts = found.get('num_experts')
  return models.ModelConfig(
      num_layers=found['num_hidden_layers'], vocab_size=found['vocab_size'],
      embed_dim=found['hidden_size'],
      hidden_dim=found['moe_intermediate_size' if experts else
                       'intermediate_size'],
      num_heads=found['num_attention_heads'], head_dim=found['head_dim'],
      num_kv_heads=found['num_key_value_heads'],
      rope_theta=int(found['rope_theta']), norm_eps=found['rms_norm_eps'],
      use_tied_embedding=found['tie_word_embeddings'], num_experts=experts,
      num_experts_per_tok=found.get('num_experts_per_tok'))


def load(job):
  """The model of the checkpoint, and the tokens of the job."""
  model = loading.create_model_from_safe_tensors(
      job['checkpoint'], config_of(job['checkpoint']), dtype=jnp.float32)
  return model, jnp.asarray(np.load(job['tokens']))


def causal(tokens_BT):
  """Positions and the attention mask of whole rows."""
  rows, length = tokens_BT.shape
  return (jnp.broadcast_to(jnp.arange(length), (rows, length)),
          jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool)),
                           (rows, length, length)))


def write_logits(model, tokens_BT, job):
  """Of the first row, for the comparison with everybody else's."""
  first_BT = tokens_BT[:1]
  run = nnx.jit(lambda model, t, p, mask: model(t, p, None, mask)[0])
  np.save(job['logits'], run(model, first_BT, *causal(first_BT)))


def train(driver):
  job = driver.job
  model, tokens_BT = load(job)
  write_logits(model, tokens_BT, job)
  optimizer = nnx.Optimizer(
      model, optax.adamw(job['learning_rate'], weight_decay=0.0),
      wrt=nnx.Param)
  position_BT, mask_BTT = causal(tokens_BT)

  def loss_fn(model):
    logits_BTV, _ = model(tokens_BT, position_BT, None, mask_BTT)
    return optax.softmax_cross_entropy_with_integer_labels(
        logits_BTV[:, :-1], tokens_BT[:, 1:]).mean()

  @functools.partial(nnx.jit, donate_argnums=(0, 1))
  def step(model, optimizer):
    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss

  driver.answer(versions=VERSIONS)
  while driver.wait():
    loss = float(step(model, optimizer))
    jax.block_until_ready(nnx.state(model))
    driver.answer(loss=loss)


def decode(driver):
  job = driver.job
  model, tokens_BT = load(job)
  write_logits(model, tokens_BT, job)
  config, length = model.config, tokens_BT.shape[1]
  sample = samplers.Sampler(
      model, transformers.AutoTokenizer.from_pretrained(job['checkpoint']),
      samplers.CacheConfig(
          cache_size=length + job['new_tokens'], num_layers=config.num_layers,
          num_kv_heads=config.num_kv_heads, head_dim=config.head_dim))
  driver.answer(versions=VERSIONS)
  while driver.wait():
    out = sample(job['prompts'], max_generation_steps=job['new_tokens'],
                 max_prompt_length=length, temperature=0.0,
                 eos_tokens=[config.vocab_size])  # which nobody draws
    driver.answer(tokens=[np.asarray(row).tolist() for row in out.tokens])


def grpo(driver):
  job = driver.job
  model, tokens_BT = load(job)
  write_logits(model, tokens_BT, job)
  reference, _ = load(job)
  tokenizer = transformers.AutoTokenizer.from_pretrained(job['checkpoint'])
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1),
                           ('fsdp', 'tp'))
  length = tokens_BT.shape[1]
  roles = rl_cluster.Role
  settings = rl_cluster.ClusterConfig(
      role_to_mesh={role: mesh for role in (
          roles.ACTOR, roles.REFERENCE, roles.ROLLOUT)},
      rollout_engine='vanilla', offload_to_cpu=False,
      training_config=rl_cluster.RLTrainingConfig(
          actor_optimizer=optax.adamw(job['learning_rate'], weight_decay=0.0),
          eval_every_n_steps=10**9, max_steps=10**9),
      rollout_config=base_rollout.RolloutConfig(
          max_tokens_to_generate=job['new_tokens'], max_prompt_length=length,
          kv_cache_size=length + job['new_tokens'], temperature=1.0, top_p=1.0,
          top_k=None, eos_tokens=[model.config.vocab_size]))
  drawn = []

  def reward(prompts, completions, **_):
    rows = [text.split() for text in completions]
    drawn.append(sum(map(len, rows)))
    return [sum(word[-1] in '02468' for word in row) / max(len(row), 1)
            for row in rows]

  def prompts():
    while driver.wait():
      yield dict(prompts=np.array(job['prompts']))
      jax.block_until_ready(nnx.state(cluster.actor_trainer.model))
      driver.answer(new_tokens=drawn.pop())

  driver.answer(versions=VERSIONS)
  with mesh:
    cluster = rl_cluster.RLCluster(
        actor=model, reference=reference, tokenizer=tokenizer,
        cluster_config=settings)
    learner = grpo_learner.GRPOLearner(
        rl_cluster=cluster, reward_fns=reward,
        algo_config=grpo_learner.GRPOConfig(
            num_generations=job['samples'], num_iterations=1,
            beta=job['kl_coef'], epsilon=0.2))
    learner.train(prompts())


class DpoSteps(dpo_trainer.DPOTrainer):
  """Keeps the loss of the last step."""

  def _buffer_metrics(self, buffer, *, loss, **more):
    self.last_loss = loss
    return super()._buffer_metrics(buffer, loss=loss, **more)


def padded(rows, left: bool):
  """(ids, mask) of all rows at the length of the longest."""
  length = max(map(len, rows))
  ids = np.zeros((len(rows), length), np.int32)
  mask = np.zeros((len(rows), length), np.int32)
  for row, found in enumerate(rows):
    place = slice(length - len(found), None) if left else slice(len(found))
    ids[row, place], mask[row, place] = found, 1
  return ids, mask


def dpo(driver):
  """The reference is scored in each step; there is no other way."""
  job = driver.job
  model, tokens_BT = load(job)
  write_logits(model, tokens_BT, job)
  reference, _ = load(job)
  prompts, chosen, rejected = zip(*job['pairs'], strict=True)
  sides = padded(chosen + rejected, left=False)
  half = len(prompts)
  parts = [padded(prompts, left=True),
           *([x[some] for x in sides]
             for some in (slice(half), slice(half, 2 * half)))]
  example = dpo_trainer.TrainingInput(**{
      f'{name}_{what}': array
      for name, part in zip(('prompt', 'chosen', 'rejected'), parts,
                            strict=True)
      for what, array in zip(('ids', 'mask'), part, strict=True)})
  trainer = DpoSteps(
      model, reference, optax.adamw(job['learning_rate'], weight_decay=0.0),
      dpo_trainer.DPOTrainingConfig(
          beta=job['beta'], eval_every_n_steps=10**9, max_steps=10**9))

  def steps():
    while driver.wait():
      yield example
      jax.block_until_ready(nnx.state(model))
      driver.answer(loss=float(trainer.last_loss))

  driver.answer(versions=VERSIONS)
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1),
                           ('fsdp', 'tp'))
  with mesh:
    trainer.train(steps())


if __name__ == '__main__':
  serving.serve(dict(train=train, decode=decode, grpo=grpo, dpo=dpo))
