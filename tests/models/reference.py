"""The published decoder in NumPy float64, one token and one head at a time.

Written from the description of the released model (its tensor names, its fused
query-key-value order), not from rljax, and slow on purpose. Two switches break
it in the ways that are easiest to get wrong.
"""
import math

import numpy as np


def published(params):
  """Our parameters under the released tensor names and layouts, [out, in]."""
  get = lambda tree: np.asarray(tree, np.float64)
  width = params['embedding']['table'].shape[1]
  out = {'model.word_embeddings': get(params['embedding']['table']),
         'model.norm': get(params['final_norm']['scale']),
         'lm_head': get(params['head']['kernel']).T}
  stack = params['layers']
  flat = lambda w_DNH: get(w_DNH).reshape(width, -1).T
  for layer in range(stack['moe']['router'].shape[0]):
    name = f'model.layers.{layer}.'
    attention = {k: v[layer] for k, v in stack['attention'].items()}
    moe = stack['moe']
    out |= {
        name + 'input_layernorm': get(stack['attention_norm']['scale'][layer]),
        name + 'post_attention_layernorm': get(
            stack['moe_norm']['scale'][layer]),
        name + 'attention.query_key_value': np.concatenate(
            [flat(attention[k]) for k in ('query', 'key', 'value')]),
        name + 'attention.dense': get(attention['out']).reshape(-1, width).T,
        name + 'mlp.gate': get(moe['router'][layer]).T}
    mlps = {f'mlp.experts.{e}': (moe['gate_up'][layer, e],
                                 moe['down'][layer, e])
            for e in range(moe['router'].shape[2])}
    if 'shared' in moe:
      mlps['mlp.shared_experts'] = (moe['shared']['gate_up'][layer],
                                    moe['shared']['down'][layer])
    for part, (gate_up_D2F, down_FD) in mlps.items():
      out |= {f'{name}{part}.gate_proj': get(gate_up_D2F)[:, 0].T,
              f'{name}{part}.up_proj': get(gate_up_D2F)[:, 1].T,
              f'{name}{part}.down_proj': get(down_FD).T}
  return out


def logits(tensors, config, tokens_BT, position_BT, segment_BT, *,
           head_axis=0, renormalise=True):
  """float64 logits_BTV; padding positions are left at 0."""
  out = np.zeros((*tokens_BT.shape, config.vocab_size))
  head_VD = tensors['lm_head']
  if config.norm_head:
    norm = np.sqrt((head_VD**2).sum(axis=head_axis, keepdims=True))
    head_VD = head_VD / (norm + 1e-7)
  for b, segments_T in enumerate(segment_BT):
    for segment in set(segments_T.tolist()) - {0}:
      here = np.flatnonzero(segments_T == segment)
      x_TD = tensors['model.word_embeddings'][tokens_BT[b, here]]
      for layer in range(config.num_layers):
        x_TD = _block(tensors, f'model.layers.{layer}.', config, x_TD,
                      position_BT[b, here], renormalise)
      x_TD = _rms(x_TD, tensors['model.norm'], config.norm_eps)
      out[b, here] = x_TD @ head_VD.T
  return out


def _block(tensors, name, config, x_TD, position_T, renormalise):
  eps = config.norm_eps
  h_TD = _rms(x_TD, tensors[name + 'input_layernorm'], eps)
  x_TD = x_TD + _attention(tensors, name, config, h_TD, position_T)
  h_TD = _rms(x_TD, tensors[name + 'post_attention_layernorm'], eps)
  return x_TD + np.stack([
      _mixture(tensors, name + 'mlp.', config, h_D, renormalise)
      for h_D in h_TD])


def _attention(tensors, name, config, h_TD, position_T):
  """Softmax attention; query head n reads key/value head n // group."""
  queries, groups = config.num_heads, config.num_kv_heads
  size = config.head_dim
  fused_TA = h_TD @ tensors[name + 'attention.query_key_value'].T
  heads_TAH = fused_TA.reshape(len(h_TD), queries + 2 * groups, size)
  q, k, v = np.split(heads_TAH, [queries, queries + groups], axis=1)
  q, k = _rotate(q, position_T, config), _rotate(k, position_T, config)
  out_TNH = np.zeros_like(q)
  for n in range(queries):
    group = n // (queries // groups)
    for t in range(len(h_TD)):
      scores_S = k[:t + 1, group] @ q[t, n] / math.sqrt(size)
      out_TNH[t, n] = _softmax(scores_S) @ v[:t + 1, group]
  return out_TNH.reshape(len(h_TD), -1) @ tensors[name + 'attention.dense'].T


def _mixture(tensors, name, config, h_D, renormalise):
  """Softmax over all experts, the largest `top_k`, and the shared experts."""
  p_E = _softmax(tensors[name + 'gate'] @ h_D)
  chosen = np.argsort(-p_E)[:config.top_k]
  scale = p_E[chosen].sum() if renormalise else 1.0
  y_D = np.zeros_like(h_D)
  if config.num_shared_experts:
    y_D = _swiglu(tensors, name + 'shared_experts.', h_D)
  for e in chosen:
    y_D = y_D + p_E[e] / scale * _swiglu(tensors, f'{name}experts.{e}.', h_D)
  return y_D


def _swiglu(tensors, name, h_D):
  gate_F = tensors[name + 'gate_proj'] @ h_D
  return tensors[name + 'down_proj'] @ (
      gate_F / (1 + np.exp(-gate_F)) * (tensors[name + 'up_proj'] @ h_D))


def _rotate(x_TNH, position_T, config):
  """Complex rotation of channel i together with channel i + H / 2."""
  half = config.head_dim // 2
  frequency, magnitude = _frequencies(config)
  turn_TH = magnitude * np.exp(1j * np.outer(position_T, frequency))
  z = (x_TNH[..., :half] + 1j * x_TNH[..., half:]) * turn_TH[:, None]
  return np.concatenate([z.real, z.imag], axis=-1)


def _frequencies(config):
  """θ^(-2i/H); with YaRN a blend of it and of it over the factor."""
  size, base = config.head_dim, config.rope_theta
  frequency = base ** (-np.arange(0, size, 2) / size)
  if config.yarn is None:
    return frequency, 1.0
  yarn = config.yarn
  channel = lambda turns: size * math.log(
      yarn.original_max_positions / (turns * 2 * math.pi)) / (
          2 * math.log(base))
  low = max(math.floor(channel(yarn.beta_fast)), 0)
  high = min(math.ceil(channel(yarn.beta_slow)), size - 1)
  keep = 1 - np.clip((np.arange(size // 2) - low) / (high - low), 0, 1)
  return (frequency / yarn.factor * (1 - keep) + frequency * keep,
          0.1 * math.log(yarn.factor) + 1)


def _rms(x, weight, eps):
  return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * weight


def _softmax(x):
  e = np.exp(x - x.max())
  return e / e.sum()
