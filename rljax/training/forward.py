"""From parameters and rows to log-probabilities, and from those to a loss.

The model is called here and nowhere else in training. A loss is composed of an
objective (sum over tokens) and the auxiliary terms

  L = L_objective - α_ent H + α_bal B + α_z Z

all of them sums over rows, so that micro-batches add up exactly.

Reference: Ring-lite (arXiv 2506.14731), eq. 6.

Differs from the paper:
  expert load F in B   paper: "count" over the batch, estimator not given
                       ours:  the load of the whole optimiser step, measured
                              before the update, so that B stays additive over
                              micro-batches; gradients reach the router through
                              P alone, as they must
"""
from __future__ import annotations

from typing import Callable

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp

from rljax import sharding
from rljax.losses import auxiliary
from rljax.models import lora
from rljax.ops import logprobs
from rljax.ops import pairs
from rljax.ops import routes
from rljax.ops import sampling
from rljax.training import batch as batches
from rljax.training import microbatch
from rljax.types import PreferenceBatch
from rljax.types import RouterStats


@struct.dataclass
class Scores:
  """What a forward pass says of every token."""
  logp_BT: jax.Array
  entropy_BT: jax.Array
  router: RouterStats
  ref_kl_BT: jax.Array | None = None  # reference ‖ policy, if there is one


def make_forward(model: nn.Module,
                 sampled: sampling.SamplingParams | None = None) -> Callable:
  """Builds `forward(params, batch, reference=None) -> Scores`.

  `batch` is that of an objective, and the tokens in its loss are scored, or
  `batch.ModelInputs`, which say themselves which ones. With experts_BTLX its
  routes are replayed, with prefix_BT its prompts shared. `reference` are
  parameters of the same model, from which the divergence is taken, token by
  token over the whole vocabulary; they get no gradient.

  Args:
    model: whose head gives log-probabilities without the logits.
    sampled: how the responses were drawn, from `sampling.make_params`; they are
      scored on that distribution. None stands for the model's own.
  """
  truncated = sampled is not None and bool(sampling.is_truncated(sampled))

  def run(params, batch, experts_BTLX):
    more = {'replay_BTLX': experts_BTLX,
            'prefix_BT': getattr(batch, 'prefix_BT', None)}
    given = {name: x for name, x in more.items() if x is not None}
    return model.apply(lora.variables(params), batch.tokens_BT,
                       batch.position_BT, batch.segment_BT, batch.share_BT,
                       **given)

  def forward(params, batch, reference=None) -> Scores:
    out = run(params, batch, getattr(batch, 'experts_BTLX', None))
    # Another model has routes of its own.
    other = None if reference is None else run(
        jax.lax.stop_gradient(reference), batch, None).head
    found = logprobs.score(out.head, batch.tokens_BT, batch.segment_BT,
                           sampled, asked_BT=batches.asked(batch),
                           truncated=truncated, reference=other)
    return Scores(found.logp_BT, found.entropy_BT, out.router, found.ref_kl_BT)
  return forward


def make_score_fn(forward: Callable, *, num_microbatches: int = 1,
                  batch_sharding=None, record_experts: bool = False
                  ) -> Callable:
  """Builds a compiled `score(params, batch) -> (logp_BT, entropy_BT, load_LE)`.

  Micro-batches without a real token cost nothing. The load is that of the
  whole batch, by `share_BT`. With `record_experts`, the routes of the pass are
  a fourth result, experts_BTLX, to be replayed in the update.
  """
  def score(params, batch):
    micro = microbatch.split(batch, num_microbatches)

    def run(rows):
      out = forward(params, rows)
      found = out.logp_BT, out.entropy_BT, out.router.load_LE
      return (*found, _routes(out.router)) if record_experts else found

    logp, entropy, load, *experts = jax.lax.map(
        microbatch.skip_empty(run), micro)
    return (microbatch.merge(logp), microbatch.merge(entropy),
            jnp.sum(load, axis=0), *map(microbatch.merge, experts))

  if batch_sharding is None:
    return jax.jit(score)
  everywhere = sharding.replicated(batch_sharding.mesh)
  return sharding.placing(
      jax.jit(score, in_shardings=(None, batch_sharding),
              out_shardings=(batch_sharding, batch_sharding, everywhere,
                             *[batch_sharding] * record_experts)),
      batch_sharding)


def _routes(router: RouterStats) -> jax.Array:
  """The chosen experts, as `ops.routes` stores them."""
  dtype = routes.dtype(router.load_LE.shape[-1])
  return jnp.moveaxis(router.experts_LBTX, 0, 2).astype(dtype)


def compose(forward: Callable, objective_loss: Callable, *,
            entropy_coef: float = 0.0, balance_coef: float = 0.0,
            z_coef: float = 0.0) -> Callable:
  """Builds `loss_fn(params, batch, key, reference=None) -> (loss, metrics)`.

  It is a sum over rows. With the parameters of a reference, the objective finds
  its divergence, which has a gradient, in the batch's `ref_kl_BT` (TDPO).

  Args:
    forward: from `make_forward`.
    objective_loss: `(logp_BT, batch) -> (loss, metrics)`.
    entropy_coef: bonus on the policy's entropy, on the objective's tokens,
      where the batch brings none of its own.
    balance_coef: router balance, on every real token.
    z_coef: router z-loss, on every real token.
  """
  def loss_fn(params, batch, key, reference=None):
    del key  # no dropout; the signature leaves room for it
    scores = forward(params, batch, reference)
    if reference is not None:
      batch = batch.replace(ref_kl_BT=scores.ref_kl_BT)
    # Rows carry the same load; None means these rows are the whole step.
    load_LE = None if batch.load_BLE is None else batch.load_BLE[0]
    steered_B = getattr(batch, 'entropy_coef_B', None)
    bonus = entropy_coef if steered_B is None else steered_B[0]
    terms = [
        objective_loss(scores.logp_BT, batch),
        auxiliary.entropy_bonus(scores.entropy_BT, _token_weights(batch),
                                entropy_coef=bonus),
        auxiliary.router_balance(scores.router, load_LE,
                                 balance_coef=balance_coef),
        auxiliary.router_z(scores.router, z_coef=z_coef),
    ]
    metrics = {
        'router_entropy': jnp.mean(scores.router.entropy_L),
        'expert_load': scores.router.load_LE}
    if scores.router.disagreement_L is not None:
      metrics['route_disagreement'] = jnp.mean(scores.router.disagreement_L)
    for _, extra in terms:
      metrics |= extra
    return sum(term for term, _ in terms), metrics
  return loss_fn


def _token_weights(batch) -> jax.Array:
  """The objective's own weights; of pairs, every response weighs the same."""
  return pairs.token_weights(batch) if isinstance(batch, PreferenceBatch) else (
      batch.weight_BT)
