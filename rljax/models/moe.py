"""Dropless mixture of experts with a float32 router and fused shared experts.

  p = softmax(x Wᵣ) over all experts;  I = top-k(p);  g_i = p_i / Σ_I p_j
  y = Σ_{i∈I} g_i E_i(x) + Shared(x)

No token is ever dropped and padding is never routed. Three dispatches compute
the same sum; which is fast depends on the platform:

  dense   every expert on every token: the oracle, and cheap for a few tokens
  block   groups padded to blocks, one batched product: CPU
  ragged  `jax.lax.ragged_dot` on sorted tokens: TPU and GPU. On a CPU it costs
          as if every expert saw every token.

Reference: Ling technical report (arXiv 2503.05139) §3.2; Ring-lite (arXiv
2506.14731) eqs. 5-6 for the statistics.
"""
from __future__ import annotations

from flax import linen as nn
import jax
import jax.numpy as jnp

from rljax.models import layers
from rljax.models import variants
from rljax.types import RouterStats


class MoE(nn.Module):
  """Router, experts and shared experts of one layer."""
  config: variants.ModelConfig

  @nn.compact
  def __call__(self, x_BTD, segment_BT, share_BT):
    config, std = self.config, self.config.init_std
    width, experts = config.model_dim, config.num_experts
    x_MD = x_BTD.reshape(-1, width)
    valid_M = segment_BT.reshape(-1) > 0

    init = nn.with_logical_partitioning(
        nn.initializers.normal(std), ('embed', 'router'))
    router_DE = self.param('router', init, (width, experts),
                           jnp.dtype(config.param_dtype))
    logits_ME = x_MD.astype(jnp.float32) @ router_DE.astype(jnp.float32)
    gates_MX, experts_MX, stats = route(
        logits_ME, share_BT.reshape(-1), config.top_k)

    gate_up_ED2F = layers.param(
        self, 'gate_up', (experts, width, 2, config.expert_dim),
        ('experts', 'embed', None, 'mlp'), std)
    down_EFD = layers.param(
        self, 'down', (experts, config.expert_dim, width),
        ('experts', 'mlp', 'embed'), std)
    dispatch = choose_dispatch(config, x_MD.shape[0])
    y_MD = dispatch(x_MD, experts_MX, gates_MX.astype(config.dtype), valid_M,
                    gate_up_ED2F, down_EFD)
    if config.num_shared_experts:
      shared = layers.GatedMLP(
          config, config.num_shared_experts * config.expert_dim, name='shared')
      y_MD = y_MD + shared(x_MD)
    stats = stats.replace(
        experts_LBTX=experts_MX.reshape(*x_BTD.shape[:2], config.top_k))
    return y_MD.reshape(x_BTD.shape), stats


def route(logits_ME, share_M, top_k: int):
  """Top-k routing and its statistics.

  Args:
    logits_ME: float32 router logits.
    share_M: each token's share in the statistics; 0 for padding.
    top_k: experts per token.

  Returns:
    gates [tokens, top_k] float32 that sum to 1, expert ids, statistics of this
    layer (fields without their L axis, no expert ids yet).
  """
  num_experts = logits_ME.shape[-1]
  log_z_M = jax.nn.logsumexp(logits_ME, axis=-1)
  log_p_ME = logits_ME - log_z_M[:, None]
  p_ME = jnp.exp(log_p_ME)
  top_MX, experts_MX = jax.lax.top_k(p_ME, top_k)
  gates_MX = top_MX / jnp.sum(top_MX, axis=-1, keepdims=True)

  chosen_ME = jnp.sum(jax.nn.one_hot(experts_MX, num_experts), axis=1)
  total = lambda x_M: jnp.sum(share_M * x_M)
  stats = RouterStats(
      mean_prob_LE=share_M @ p_ME,
      load_LE=share_M @ chosen_ME * (num_experts / top_k),
      z_L=total(jnp.square(log_z_M)),
      entropy_L=total(-jnp.sum(p_ME * log_p_ME, axis=-1)),
      experts_LBTX=None)
  return gates_MX, experts_MX, stats


def choose_dispatch(config: variants.ModelConfig, num_tokens: int):
  """The configured dispatch, or the fastest for the default platform."""
  known = dict(dense=dense, block=block, ragged=ragged)
  if config.moe_dispatch != 'auto':
    return known[config.moe_dispatch]
  if jax.default_backend() != 'cpu':
    return ragged
  # With fewer choices than experts, most blocks would be padding.
  few = num_tokens * config.top_k <= config.num_experts
  return dense if few else block


def _swiglu(both):
  """silu(gate) · up, where axis -2 holds gate and up."""
  return nn.silu(both[..., 0, :]) * both[..., 1, :]


def dense(x_MD, experts_MX, gates_MX, valid_M, gate_up_ED2F, down_EFD):
  """Every expert on every token; unchosen ones get gate 0."""
  num_experts = down_EFD.shape[0]
  onehot_MXE = jax.nn.one_hot(experts_MX, num_experts, dtype=x_MD.dtype)
  gates_MX = jnp.where(valid_M[:, None], gates_MX, 0)
  gates_ME = jnp.einsum('mx,mxe->me', gates_MX, onehot_MXE)
  both_EM2F = jnp.einsum('md,edcf->emcf', x_MD, gate_up_ED2F)
  hidden_EMF = _swiglu(both_EM2F) * gates_ME.T[..., None]
  return jnp.einsum('emf,efd->md', hidden_EMF, down_EFD)


def block(x_MD, experts_MX, gates_MX, valid_M, gate_up_ED2F, down_EFD):
  """Pads each expert's group to whole blocks; one batched product over blocks.

  The number of blocks is static: each expert wastes at most one block.
  """
  num_tokens, top_k = experts_MX.shape
  num_experts = down_EFD.shape[0]
  size = _block_size(num_tokens * top_k, num_experts)
  num_blocks = -(-num_tokens * top_k // size) + num_experts

  # Sentinel `num_experts` for padding: counted by nobody, placed nowhere.
  expert_A = jnp.where(valid_M[:, None], experts_MX, num_experts).reshape(-1)
  onehot_AE = jax.nn.one_hot(expert_A, num_experts, dtype=jnp.int32)
  rank_A = jnp.sum((jnp.cumsum(onehot_AE, axis=0) - 1) * onehot_AE, axis=1)
  blocks_E = -(-jnp.sum(onehot_AE, axis=0) // size)
  first_E = jnp.cumsum(blocks_E) - blocks_E
  start_A = jnp.take(first_E, expert_A, mode='clip') * size
  nowhere = num_blocks * size
  slot_A = jnp.where(expert_A < num_experts, start_A + rank_A, nowhere)
  owner = jnp.searchsorted(jnp.cumsum(blocks_E), jnp.arange(num_blocks),
                           side='right')
  owner = jnp.minimum(owner, num_experts - 1)

  token_A = jnp.arange(num_tokens * top_k) // top_k
  source = jnp.full(nowhere, num_tokens, token_A.dtype).at[slot_A].set(
      token_A, mode='drop')
  blocks = jnp.take(x_MD, source, axis=0, mode='fill', fill_value=0).reshape(
      num_blocks, size, -1)
  both = jnp.einsum('nsd,ndcf->nscf', blocks, gate_up_ED2F[owner])
  out = jnp.einsum('nsf,nfd->nsd', _swiglu(both), down_EFD[owner])
  out_AD = jnp.take(out.reshape(nowhere, -1), slot_A, axis=0, mode='fill',
                    fill_value=0)
  return jnp.einsum('mx,mxd->md', gates_MX,
                    out_AD.reshape(num_tokens, top_k, -1))


def _block_size(assignments: int, num_experts: int) -> int:
  """A power of two near half the mean group, in 8..256."""
  mean = max(assignments // (2 * num_experts), 1)
  return min(max(1 << (mean - 1).bit_length(), 8), 256)


def ragged(x_MD, experts_MX, gates_MX, valid_M, gate_up_ED2F, down_EFD):
  """Sorts tokens by expert and multiplies ragged groups."""
  num_tokens, top_k = experts_MX.shape
  num_experts, width, _, hidden = gate_up_ED2F.shape
  expert_A = jnp.where(valid_M[:, None], experts_MX, num_experts).reshape(-1)
  order_A = jnp.argsort(expert_A, stable=True)  # padding goes last
  counts_E = jnp.bincount(expert_A, length=num_experts).astype(jnp.int32)
  # Not every backend writes the rows beyond the last group, neither of products
  # nor of their gradients: what is there must reach nothing.
  inside_A1 = (jnp.arange(order_A.shape[0]) < jnp.sum(counts_E))[:, None]
  sorted_AD = jnp.where(inside_A1, x_MD[order_A // top_k], 0)
  both = jax.lax.ragged_dot(
      sorted_AD, gate_up_ED2F.reshape(num_experts, width, 2 * hidden),
      counts_E)
  both = jnp.where(inside_A1, both, 0).reshape(-1, 2, hidden)
  out_AD = jax.lax.ragged_dot(_swiglu(both), down_EFD, counts_E)
  gate_A = gates_MX.reshape(-1)[order_A]
  out_AD = jnp.where(inside_A1, out_AD, 0) * gate_A[:, None]
  return jnp.zeros_like(x_MD).at[order_A // top_k].add(out_AD)
