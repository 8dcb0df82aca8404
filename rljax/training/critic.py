"""A critic beside the policy: values, advantages by token, and its own loss.

  values  ->  GAE over whole responses  ->  advantages of the policy's batch
                                        ->  targets R = A + V of the critic's

The reward of a response comes with its last token; a KL penalty in the reward,
r_t -= β (log π_old - log π_ref), comes with every token. All of it happens on
the whole step, before any micro-batch is cut.

Reference: GAE (arXiv 1506.02438); InstructGPT (arXiv 2203.02155), appendix C,
for the rewards; whitening over the step as Guide-PPO's code has it (arXiv
2506.13923).
"""
from __future__ import annotations

from typing import Callable

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp

from rljax import packing
from rljax import sharding
from rljax.losses import auxiliary
from rljax.models import lora
from rljax.ops import divergences
from rljax.ops import gae
from rljax.training import microbatch
from rljax.types import Array
from rljax.types import PackedRows
from rljax.types import PolicyBatch
from rljax.types import Rollout
from rljax.types import ValueBatch


@struct.dataclass
class Episodes:
  """What a step's advantages are made of, but for the values."""
  segment_BT: Array   # int32
  response_BT: Array  # bool; tokens that the policy drew
  done_BT: Array      # bool; the last token of a whole response
  mask_BT: Array      # bool; tokens in the loss
  reward_BT: Array    # float32; at `done_BT`
  old_logp_BT: Array         # float32
  ref_logp_BT: Array | None  # float32; None without a KL term


def episodes(rows: PackedRows, rollout: Rollout,
             batch: PolicyBatch) -> Episodes:
  """From rows whose advantages are, as yet, the rewards of whole responses."""
  t_BT = packing.response_index(rows, rollout)
  length_R = rollout.length_PG.ravel()
  done_BT = (t_BT >= 0) & (
      t_BT == length_R[(rows.segment_BT - 1).clip(0)] - 1)
  return Episodes(
      segment_BT=rows.segment_BT, response_BT=t_BT >= 0, done_BT=done_BT,
      mask_BT=rows.mask_BT, reward_BT=rows.advantage_BT * done_BT,
      old_logp_BT=batch.old_logp_BT, ref_logp_BT=batch.ref_logp_BT)


def make_forward(model: nn.Module) -> Callable:
  """Builds `forward(params, batch) -> (after_BT, router)`."""
  def forward(params, batch):
    return model.apply(lora.variables(params), batch.tokens_BT,
                       batch.position_BT, batch.segment_BT, batch.share_BT)
  return forward


def make_score_fn(forward: Callable, *, num_microbatches: int = 1,
                  batch_sharding=None) -> Callable:
  """Builds a compiled `score_values(params, batch) -> (after_BT, load_LE)`."""
  def score_values(params, batch):
    after_BT, router = forward(params, batch)
    return after_BT, router.load_LE

  return microbatch.make_score_fn(
      score_values, num_microbatches=num_microbatches,
      batch_sharding=batch_sharding)


def make_estimate_fn(*, gamma: float, gae_lambda: float, whiten: bool,
                     kl_coef: float, batch_sharding=None) -> Callable:
  """Builds a compiled `estimate(after_BT, episodes)`.

  It returns the advantages, the values and the targets, each [B, T], and the
  metrics explained_variance, value and return (means over the loss tokens).

  Args:
    gamma: γ.
    gae_lambda: λ.
    whiten: advantages of mean 0 and variance 1 over the tokens in the loss.
    kl_coef: β, of the penalty in the reward.
    batch_sharding: of the rows.

  Raises:
    ValueError: a coefficient out of range.
  """
  gae.check(gamma, gae_lambda)
  if kl_coef < 0:
    raise ValueError(f'Expected critic.kl_coef >= 0, got {kl_coef}: below 0 it '
                     'would pay for leaving the reference. Correct it.')

  def estimate(after_BT, steps: Episodes):
    reward_BT = steps.reward_BT
    if kl_coef:
      reward_BT = reward_BT - kl_coef * divergences.k1(
          steps.old_logp_BT, steps.ref_logp_BT, steps.response_BT)
    advantage_BT, value_BT = gae.advantages(
        reward_BT, after_BT, steps.segment_BT, steps.response_BT,
        steps.done_BT, gamma=gamma, gae_lambda=gae_lambda)
    return_BT = advantage_BT + value_BT
    count = jnp.maximum(jnp.sum(steps.mask_BT.astype(jnp.float32)), 1.0)
    mean = lambda x_BT: jnp.sum(jnp.where(steps.mask_BT, x_BT, 0.0)) / count
    metrics = {
        'value': mean(value_BT), 'return': mean(return_BT),
        'explained_variance': gae.explained_variance(
            value_BT, return_BT, steps.mask_BT)}
    if whiten:
      advantage_BT = gae.whiten(advantage_BT, steps.mask_BT)
    return advantage_BT, value_BT, return_BT, metrics

  if batch_sharding is None:
    return jax.jit(estimate)
  return sharding.placing(
      jax.jit(estimate, out_shardings=(*[batch_sharding] * 3,
                                       sharding.replicated(
                                           batch_sharding.mesh))),
      batch_sharding)


def compose(forward: Callable, value_loss: Callable, *,
            balance_coef: float = 0.0, z_coef: float = 0.0) -> Callable:
  """Builds `loss_fn(params, batch, key) -> (loss, metrics)`, a sum over rows.

  Args:
    forward: from `make_forward`.
    value_loss: `(value_BT, batch) -> (loss, metrics)`.
    balance_coef: router balance, on every real token.
    z_coef: router z-loss, on every real token.
  """
  def loss_fn(params, batch: ValueBatch, key):
    del key  # no dropout
    after_BT, router = forward(params, batch)
    load_LE = None if batch.load_BLE is None else batch.load_BLE[0]
    loss, metrics = value_loss(
        gae.before(after_BT, batch.segment_BT), batch)
    balance, _ = auxiliary.router_balance(
        router, load_LE, balance_coef=balance_coef)
    z, _ = auxiliary.router_z(router, z_coef=z_coef)
    return loss + balance + z, metrics | {'expert_load': router.load_LE}
  return loss_fn
