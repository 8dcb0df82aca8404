"""A round of GAN-RM, as the driver and the study play it.

  R is fit on targets against outputs of G_t, and ranks a pool of G_t
  R is fit anew with the top and the bottom of that pool
  R scores the pool; best (and worst) samples of each prompt make G_t+1 of G_t

Reference: GAN-RM (arXiv 2506.13846), figure 1; see `rljax/data/bootstrap.py`
for what is ours.
"""
from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax import losses
from rljax import sharding
from rljax.data import best_of_n
from rljax.data import bootstrap
from rljax.data import images
from rljax.interop import vision as towers
from rljax.models import denoiser
from rljax.models import reward_projection
from rljax.models import vision
from rljax.models import vision_variants
from rljax.training import denoising
from rljax.training import fit
from rljax.training import optimizer as optimizers
from rljax.types import DiscriminatorBatch


@dataclasses.dataclass(frozen=True)
class Pieces:
  """Compiled functions; a generator is a `sample` and a `tune`."""
  num_classes: int
  start: Callable      # key -> state of a new generator
  pretrain: Callable   # (state, data, key) -> (state, metrics)
  sample: Callable     # (params, class_R, key) -> image_RYWU
  tune: Callable       # (params, data, key) -> (params, metrics)
  encode: Callable     # image_RYWU -> feature_RD, frozen
  fit_reward: Callable  # (DiscriminatorBatch, key) -> (params, metrics)
  score: Callable      # (params, feature_RD, prompt_RD) -> R


@dataclasses.dataclass(frozen=True)
class Round:
  """What a round leaves behind."""
  reward: Any                # parameters of R_t
  params: Any                # of G_t+1
  pool_PGYWU: np.ndarray     # of G_t
  class_P: np.ndarray
  score_PG: np.ndarray
  lineage: list[dict[str, Any]]
  metrics: dict[str, float]


def build(config, num_classes: int) -> Pieces:
  """Builds and jits what the rounds share."""
  size = config.data.size + 2 * config.data.margin
  model = denoiser.Denoiser(denoiser.DenoiserConfig(
      image_size=size, num_channels=config.data.channels,
      num_classes=num_classes, **config.generator.model))
  errors = denoising.make_error_fn(model)
  optimizer = optimizers.make_optimizer(**config.generator.optimizer)
  tune_optimizer = optimizers.make_optimizer(**config.tune.optimizer)
  pretrain = _generator_fit(
      errors, losses.get('denoising', 'mse'), optimizer,
      config.generator.batch_size, config.generator.num_steps, 'pretrain')
  tune_fit = _generator_fit(
      errors, losses.get('denoising', **config.tune.loss), tune_optimizer,
      config.tune.batch_size, config.tune.num_steps, 'tune')

  def start(key):
    return fit.create(model.init(
        key, jnp.zeros((1, size, size, config.data.channels)), jnp.zeros(1),
        jnp.zeros(1, jnp.int32))['params'], optimizer)

  def tune(params, data, key):
    state, metrics = tune_fit(fit.create(params, tune_optimizer), data, key)
    return state.params, metrics

  fit_reward, score = _reward(config)
  return Pieces(
      num_classes=num_classes, start=start, pretrain=pretrain, tune=tune,
      sample=denoising.make_sample_fn(
          model, config.generator.sample_steps, config.generator.eta),
      encode=make_encoder(config.encoder, size, config.data.channels),
      fit_reward=fit_reward, score=score)


def _generator_fit(errors, objective, optimizer, batch_size, num_steps, name):
  with_reference = errors if objective.name == 'dpo' else None
  return fit.make_fit_fn(
      lambda params, batch: objective.loss(errors(params, batch), batch),
      optimizer, denoising.make_draw(batch_size, with_reference), num_steps,
      name=name)


def make_head(config) -> reward_projection.RewardProjection:
  """The trained part of R."""
  return reward_projection.RewardProjection(
      tuple(config.reward.hidden), config.reward.conditioned)


def make_score_fn(head) -> Callable:
  """(params, feature_RD, prompt_RD) -> R, compiled."""
  return jax.jit(lambda params, feature_RD, prompt_RD: jax.nn.sigmoid(
      head.apply({'params': params}, feature_RD, prompt_RD)))


def _reward(config):
  head = make_head(config)
  optimizer = optimizers.make_optimizer(**config.reward.optimizer)
  objective = losses.get('discriminator', **config.reward.loss)
  run = fit.make_fit_fn(
      lambda params, batch: objective.loss(
          head.apply({'params': params}, batch.feature_BD, batch.prompt_BD),
          batch),
      optimizer, lambda batch, key: batch, config.reward.num_steps,
      name='fit_reward')
  init = jax.jit(head.init)

  def fit_reward(batch: DiscriminatorBatch, key):
    """From scratch, from the start that the key gives."""
    params = init(key, batch.feature_BD, batch.prompt_BD)['params']
    state, metrics = run(fit.create(params, optimizer), batch, key)
    return state.params, metrics

  return fit_reward, make_score_fn(head)


def make_encoder(settings, size: int, channels: int):
  """A frozen tower: published, or of random features in the image's own size.

  Args:
    settings: `config.encoder`.
    size: of the images, which a published tower resizes.
    channels: of the images.
  """
  fields = dict(settings)
  folder, seed, variant = (fields.pop(name) for name in (
      'checkpoint', 'seed', 'variant'))
  if folder:
    model, params = towers.load(
        folder, sharding.make_mesh(devices=jax.devices()[:1]))
  else:
    model = vision.VisionEncoder(vision_variants.get(
        variant, image_size=size, num_channels=channels, **fields))
    shape = 1, size, size, channels
    params = sharding.unbox(model.init(jax.random.key(seed),
                                       jnp.zeros(shape))['params'])
  return jax.jit(vision.make_encode(model, params))


def prompts_of(pieces: Pieces, class_R) -> jax.Array:
  """Features of prompts: the class, as there is no text."""
  return jax.nn.one_hot(np.asarray(class_R), pieces.num_classes)


def score_images(pieces: Pieces, reward, image_RYWU, class_R) -> np.ndarray:
  """R of each image."""
  return np.asarray(pieces.score(reward, pieces.encode(image_RYWU),
                                 prompts_of(pieces, class_R)))


def play(pieces: Pieces, config, number: int, proxies: images.ImageSet,
         params, key: jax.Array) -> Round:
  """Round `number`: from G_t to R_t and G_t+1.

  Args:
    pieces: compiled functions.
    config: of the run.
    number: t.
    proxies: D_p, the same in every round.
    params: of G_t.
    key: of the round.
  """
  pool_key, reward_key, tune_key = jax.random.split(key, 3)
  prompts, group = config.pool.num_prompts, config.pool.samples_per_prompt
  num_outputs = config.bootstrap.num_outputs
  class_P = np.arange(prompts, dtype=np.int32) % pieces.num_classes
  class_R = np.concatenate([
      np.arange(num_outputs, dtype=np.int32) % pieces.num_classes,
      class_P.repeat(group)])
  made_RYWU = np.asarray(pieces.sample(params, class_R, pool_key))
  outputs, pool = np.split(made_RYWU, [num_outputs])

  reward, chosen, rows = fit_round(
      pieces, config, number, proxies, (outputs, class_R[:num_outputs]),
      (pool, class_R[num_outputs:]), reward_key)
  score_PG = score_images(pieces, reward, pool, class_R[num_outputs:]
                          ).reshape(prompts, group)
  pool_PGYWU = pool.reshape(prompts, group, *pool.shape[1:])
  data = tuning_data(config, pool_PGYWU, class_P, score_PG)
  metrics = {
      'kept': float(data['weight_R'].mean()), 'score_pool': score_PG.mean(),
      'score_best': score_PG.max(1).mean(),
      'labels_below_half': float(np.mean(chosen.top_label_M < 0.5))
      if chosen.top_M.size else 0.0}
  if data['weight_R'].any():  # else nothing passed the filter
    new, tuned = pieces.tune(params, data | {'reference': params}, tune_key)
    metrics['tune_loss'] = tuned['loss']
  else:
    new = params
  return Round(reward, new, pool_PGYWU, class_P, score_PG, rows,
               {name: float(x) for name, x in metrics.items()})


def fit_round(pieces: Pieces, config, number: int, proxies: images.ImageSet,
              outputs, pool, key: jax.Array):
  """The two fits of a round.

  Args:
    pieces: compiled functions.
    config: of the run.
    number: of the round, for the lineage.
    proxies: D_p.
    outputs: (image_RYWU, class_R), the first outputs: negatives of D_r.
    pool: (image_RYWU, class_R), what is ranked.
    key: of the head's start; both fits have the same.

  Returns:
    (parameters of R, what was chosen, lineage of the rows).
  """
  options = config.bootstrap
  known = images.digests(proxies.pixels_RYWU), images.digests(outputs[0])
  pool_digests = images.digests(pool[0])
  features = [pieces.encode(x) for x in (
      proxies.pixels_RYWU, outputs[0], pool[0])]
  classes = [proxies.class_R, outputs[1], pool[1]]
  start = _batch(pieces, features, classes,
                 np.zeros(2 * options.num_chosen, int), None)
  reward, _ = pieces.fit_reward(start, key)
  score_R = np.asarray(pieces.score(
      reward, features[2], prompts_of(pieces, pool[1])))
  chosen = bootstrap.choose(
      score_R, pool_digests, {*known[0], *known[1]},
      num_chosen=options.num_chosen, alpha=options.alpha,
      first_rank=options.first_rank, rising=options.rising)
  batch = _batch(pieces, features, classes, chosen.index_R, chosen.label_R)
  reward, _ = pieces.fit_reward(batch, key)
  return reward, chosen, bootstrap.lineage(
      number, *known, pool_digests, chosen, options.first_rank)


def _batch(pieces, features, classes, index_R, label_R) -> DiscriminatorBatch:
  """D_r, and the pool's images at `index_R`; without labels they do not count.

  Either side of the labels has half of the weight: proxies and top, outputs
  and bottom.
  """
  num_proxies, num_outputs = len(classes[0]), len(classes[1])
  half = len(index_R) // 2
  counts = label_R is not None
  side_R = np.repeat([1, 0, 1, 0], [num_proxies, num_outputs, half, half])
  weight_R = np.ones(len(side_R), np.float32)
  weight_R[num_proxies + num_outputs:] = counts
  for side in (0, 1):
    weight_R[side_R == side] /= 2 * weight_R[side_R == side].sum()
  class_R = np.concatenate([classes[0], classes[1], classes[2][index_R]])
  return DiscriminatorBatch(
      feature_BD=jnp.concatenate([features[0], features[1],
                                  features[2][jnp.asarray(index_R, int)]]),
      label_B=jnp.asarray(np.concatenate([
          np.ones(num_proxies), np.zeros(num_outputs),
          label_R if counts else np.zeros(2 * half)]), jnp.float32),
      weight_B=jnp.asarray(weight_R), prompt_BD=prompts_of(pieces, class_R))


def tuning_data(config, pool_PGYWU, class_P, score_PG) -> dict[str, Any]:
  """Rows to tune on: the best sample (SFT), or best and worst (DPO)."""
  row_P = np.arange(len(class_P))
  if config.tune.loss.name == 'dpo':
    found = best_of_n.pairs(score_PG, config.tune.min_gap)
    places, keep_P = (found.chosen_P, found.rejected_P), found.keep_P
  else:
    best_P, keep_P = best_of_n.supervised(score_PG, config.tune.quantile)
    places = best_P,
  image_PGYWU = np.stack([pool_PGYWU[row_P, place_P] for place_P in places], 1)
  return dict(image_RGYWU=image_PGYWU, class_R=class_P,
              weight_R=keep_P.astype(np.float32))
