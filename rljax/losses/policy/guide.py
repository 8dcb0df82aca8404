"""Guide: learn without the hint from answers that were found with it.

  L = -(1/R) Σ_i (1/ℓ_i) Σ_t g_it
  g_it = min(ρ_it A_i, clip(ρ_it, 1-ε, 1+ε) A_i)   of answers to the prompt
       = f(ρ_it) A_i                               of answers to prompt and hint
  ρ_it = π(y_it | x, y_<t) / π_behaviour(y_it | c_i, y_<t)

c_i is what the answer was sampled under, with the hint or without; the policy
in the numerator never sees a hint. Which answers those are is decided in
`experiments.policy.guided`, the denominators and γ in `training.guidance`, f in
`ops.shaping`. With GAE advantages (`ppo`) the same loss is Guide-PPO.

Reference: Guide (arXiv 2506.13923), abstract; the rest is known from the
authors' code alone.

Differs from that code, defect by defect:

      official code                            ours
   1  γ's quantile counts padding              masked
   2  γ by micro-batch (one sequence)          over the step
   3  shaping=False still shapes               'identity' is ρ
   4  off_policy_clip_ratio does nothing       `guided_clip` clips; 0 is none
   5  a buffered group's denominator is of a   that of its generation, kept in
      later policy                             the buffer and in checkpoints
   6  denominator from the trainer             the sampler's; `mismatch_*` says
                                               how far the two differ
   7  the baseline differs in filter and gate  `config.guide.mode` alone differs
   8  nothing kept: all prompts rolled again   only those that failed, ever
   9  triggered prompts cut to the devices     all are used
  10  a threshold above 0 may add two groups   one: the hinted, if it is kept
  11  one accuracy of hinted and unhinted      apart
  12  clip fraction of guided tokens as real   `guided_outside`, hypothetical
  13  one failing verifier zeroes the step     masked, counted by reason
  14  mixin marks unguided failures as guided  marked by origin
"""
import chex
import jax
import jax.numpy as jnp

from rljax.losses.policy import grpo
from rljax.ops import masking
from rljax.ops import shaping as shapes
from rljax.ops import surrogate
from rljax.types import PackedRows
from rljax.types import PolicyBatch


def token_weights(rows: PackedRows) -> jax.Array:
  """GRPO's: 1 / (responses · tokens of this response in the loss)."""
  return grpo.token_weights(rows)


def loss(
    logp_BT: jax.Array,
    batch: PolicyBatch,
    *,
    clip_eps: float = 0.2,
    kl_coef: float = 0.0,
    shaping: str = 'percentile',
    gamma: float = 1.0,
    guided_clip: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over micro-batches.

  Args:
    logp_BT: under the policy, without any hint.
    batch: with `guided_BT` where answers to a hint are among them.
    clip_eps: ε, of unguided tokens.
    kl_coef: β.
    shaping: f, one of `ops.shaping.NAMES`.
    gamma: γ of the shapings constant and power.
    guided_clip: bounds ρ of guided tokens to 1 ± this before f; 0 does not.

  Raises:
    ValueError: an option out of range, or percentile without `gamma_B`.
  """
  chex.assert_equal_shape(
      [logp_BT, batch.old_logp_BT, batch.advantage_BT, batch.weight_BT])
  chex.assert_type([logp_BT, batch.old_logp_BT, batch.advantage_BT,
                    batch.weight_BT], jnp.float32)
  surrogate.check_band(clip_eps, clip_eps)
  if shaping not in shapes.NAMES or gamma <= 0 or not 0 <= guided_clip <= 1:
    raise ValueError(
        f'Expected shaping among {shapes.NAMES}, gamma > 0 and guided_clip in '
        f'[0, 1], got {shaping!r}, {gamma} and {guided_clip}. Correct '
        'config.loss.')
  weight_BT, inside_BT = batch.weight_BT, batch.weight_BT != 0
  log_ratio_BT = masking.masked_difference(
      logp_BT, batch.old_logp_BT, inside_BT)
  guided_BT = jnp.zeros_like(inside_BT) if batch.guided_BT is None else (
      inside_BT & batch.guided_BT)

  # Each branch sees 0 in place of what belongs to the other: the gradient of
  # the branch not taken is finite, too.
  gain_BT, is_clipped_BT = surrogate.clipped_gain(
      jnp.where(guided_BT, 0.0, log_ratio_BT), batch.advantage_BT,
      clip_low=clip_eps, clip_high=clip_eps)
  is_clipped_BT &= ~guided_BT
  off_BT = jnp.where(guided_BT, log_ratio_BT, 0.0)
  if guided_clip:
    off_BT = jnp.clip(off_BT, jnp.log1p(-jnp.float32(guided_clip)),
                      jnp.log1p(jnp.float32(guided_clip)))
  scale = _scale(batch, shaping, gamma)
  shaped_BT = shapes.shape(shaping, off_BT, scale) * batch.advantage_BT
  gain = masking.weighted_sum(
      weight_BT, jnp.where(guided_BT, shaped_BT, gain_BT))

  penalty, metrics = surrogate.kl_penalty(
      logp_BT, batch.ref_logp_BT, weight_BT, kl_coef=kl_coef)
  outside_BT = guided_BT & (jnp.abs(jnp.expm1(off_BT)) > clip_eps)
  part = lambda flag_BT: masking.weighted_sum(
      weight_BT, flag_BT.astype(jnp.float32))
  return penalty - gain, metrics | {
      'surrogate': gain,
      'clip_fraction': part(is_clipped_BT),
      'guided_fraction': part(guided_BT),
      'guided_outside': part(outside_BT),
  }


def _scale(batch, shaping, gamma):
  if shaping != 'percentile':
    return jnp.float32(gamma)
  if batch.gamma_B is not None:
    return jax.lax.stop_gradient(batch.gamma_B[0])
  if batch.guided_BT is None:
    return jnp.float32(1.0)  # there is nothing to shape
  raise ValueError("Expected gamma_B for the shaping 'percentile', got none. "
                   'Take it from training.guidance, or another shaping.')
