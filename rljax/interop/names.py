"""Families of published models as data: their settings and their tensors.

A family names three things. `fields` are the settings that say something of the
model, `fixed` those that must have a value we compute with, and `tensors` where
each tensor goes:

  'self_attn.q_proj.weight': 'attention/query (nh)d->ldnh'

reads: rows run over heads n and channels h, columns over the model width d; the
leaf `attention/query` has the axes layer, d, n, h. A tensor that holds several
leaves names them in the order of its rows. Letters:

  v vocabulary   n query heads      m width of a dense layer   l layer, and
  d model width  k key/value heads  f width of an expert       e expert of the
  x experts      h width of a head  s width of shared experts    tensor's name
                 c, j halves of a head and channels of a half
  0 and 1 are places on an axis: gate and up are fused in one leaf.

Reference: the files that `transformers` writes; for Bailing the released model
code of Ling-lite and Ring-lite; for GGUF the converter of llama.cpp, which
orders the rows of queries and keys by pairs of channels, not by halves.
"""
from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Family:
  """What distinguishes one kind of published model."""
  fields: dict[str, str]                # setting -> field of ModelConfig
  fixed: dict[str, Any]                 # setting -> the value it must have
  implied: dict[str, Any]               # field -> value in every such model
  tensors: dict[str, str | tuple[str, ...]]  # name -> leaf and layout
  absent: dict[str, Any]                # setting -> its value where not stated
  architecture: str
  stated: tuple[str, ...] = ()          # fixed settings with another default


_FIELDS = {
    'vocab_size': 'vocab_size', 'hidden_size': 'model_dim',
    'num_hidden_layers': 'num_layers', 'num_attention_heads': 'num_heads',
    'num_key_value_heads': 'num_kv_heads', 'head_dim': 'head_dim',
    'max_position_embeddings': 'max_positions', 'rms_norm_eps': 'norm_eps',
    'initializer_range': 'init_std', 'tie_word_embeddings': 'tied_head',
}
_DENSE = _FIELDS | {'intermediate_size': 'mlp_dim'}
_MOE = _FIELDS | {'num_experts_per_tok': 'top_k'}
_FIXED = {'hidden_act': 'silu'}
_NO_WINDOW = {'use_sliding_window': False}
_ABSENT = {'head_dim': None, 'num_key_value_heads': None,
           'initializer_range': 0.02, 'tie_word_embeddings': False}
_IS_DENSE = dict(num_experts=0, top_k=0, expert_dim=0, num_shared_experts=0,
                 norm_head=False)
_IS_MOE = dict(mlp_dim=0, num_shared_experts=0, norm_head=False)

_LAYER = 'model.layers.{l}.'


def _in_layer(rows: dict) -> dict:
  """Rows of one layer: the prefix of the name, and of each leaf."""
  leaves = lambda v: tuple(f'layers/{x}' for x in (
      v if isinstance(v, tuple) else (v,)))
  return {_LAYER + name: leaves(value) for name, value in rows.items()}


_STEM = {
    'model.embed_tokens.weight': 'embedding/table vd->vd',
    'model.norm.weight': 'final_norm/scale d->d',
    'lm_head.weight': 'head/kernel vd->dv',
}
_ATTENTION = {
    'input_layernorm.weight': 'attention_norm/scale d->ld',
    'self_attn.q_proj.weight': 'attention/query (nh)d->ldnh',
    'self_attn.k_proj.weight': 'attention/key (kh)d->ldkh',
    'self_attn.v_proj.weight': 'attention/value (kh)d->ldkh',
    'self_attn.o_proj.weight': 'attention/out d(nh)->lnhd',
}
_BIASES = {
    'self_attn.q_proj.bias': 'attention/query_bias (nh)->lnh',
    'self_attn.k_proj.bias': 'attention/key_bias (kh)->lkh',
    'self_attn.v_proj.bias': 'attention/value_bias (kh)->lkh',
}
_HEAD_NORMS = {
    'self_attn.q_norm.weight': 'attention/query_norm/scale h->lh',
    'self_attn.k_norm.weight': 'attention/key_norm/scale h->lh',
}
_WHOLE_NORMS = {
    'self_attn.q_norm.weight': 'attention/query_norm/scale (nh)->l(nh)',
    'self_attn.k_norm.weight': 'attention/key_norm/scale (kh)->l(kh)',
}
_MLP = {
    'post_attention_layernorm.weight': 'mlp_norm/scale d->ld',
    'mlp.gate_proj.weight': 'mlp/gate_up md->ld0m',
    'mlp.up_proj.weight': 'mlp/gate_up md->ld1m',
    'mlp.down_proj.weight': 'mlp/down dm->lmd',
}
_EXPERTS = {
    'post_attention_layernorm.weight': 'moe_norm/scale d->ld',
    'mlp.gate.weight': 'moe/router xd->ldx',
    'mlp.experts.{e}.gate_proj.weight': 'moe/gate_up fd->led0f',
    'mlp.experts.{e}.up_proj.weight': 'moe/gate_up fd->led1f',
    'mlp.experts.{e}.down_proj.weight': 'moe/down df->lefd',
}
_MIXTRAL_EXPERTS = {
    'post_attention_layernorm.weight': 'moe_norm/scale d->ld',
    'block_sparse_moe.gate.weight': 'moe/router xd->ldx',
    'block_sparse_moe.experts.{e}.w1.weight': 'moe/gate_up fd->led0f',
    'block_sparse_moe.experts.{e}.w3.weight': 'moe/gate_up fd->led1f',
    'block_sparse_moe.experts.{e}.w2.weight': 'moe/down df->lefd',
}
_BAILING = _EXPERTS | {
    'input_layernorm.weight': 'attention_norm/scale d->ld',
    # Q | K | V, not interleaved by group of heads.
    'attention.query_key_value.weight': (
        'attention/query (nh)d->ldnh', 'attention/key (kh)d->ldkh',
        'attention/value (kh)d->ldkh'),
    'attention.dense.weight': 'attention/out d(nh)->lnhd',
    'mlp.shared_experts.gate_proj.weight': 'moe/shared/gate_up sd->ld0s',
    'mlp.shared_experts.up_proj.weight': 'moe/shared/gate_up sd->ld1s',
    'mlp.shared_experts.down_proj.weight': 'moe/shared/down ds->lsd',
}
_BAILING_STEM = {
    'model.word_embeddings.weight': 'embedding/table vd->vd',
    'model.norm.weight': 'final_norm/scale d->d',
    'lm_head.weight': 'head/kernel vd->dv',
}

FAMILIES = {
    'llama': Family(
        fields=_DENSE, absent=_ABSENT, architecture='LlamaForCausalLM',
        fixed=_FIXED | {'attention_bias': False, 'mlp_bias': False,
                        'rope_interleaved': False},
        implied=_IS_DENSE | dict(qkv_bias=False, qk_norm='none'),
        tensors=_STEM | _in_layer(_ATTENTION | _MLP)),
    'qwen2': Family(
        fields=_DENSE, absent=_ABSENT, architecture='Qwen2ForCausalLM',
        fixed=_FIXED | _NO_WINDOW | {'use_mrope': False},
        implied=_IS_DENSE | dict(qkv_bias=True, qk_norm='none'),
        tensors=_STEM | _in_layer(_ATTENTION | _BIASES | _MLP)),
    'qwen3': Family(
        fields=_DENSE, absent=_ABSENT | {'head_dim': 128},
        architecture='Qwen3ForCausalLM',
        fixed=_FIXED | _NO_WINDOW | {'attention_bias': False},
        implied=_IS_DENSE | dict(qkv_bias=False, qk_norm='head'),
        tensors=_STEM | _in_layer(_ATTENTION | _HEAD_NORMS | _MLP)),
    'qwen3_moe': Family(
        fields=_MOE | {'num_experts': 'num_experts',
                       'moe_intermediate_size': 'expert_dim',
                       'norm_topk_prob': 'norm_topk_prob'},
        absent=_ABSENT | {'norm_topk_prob': False},
        architecture='Qwen3MoeForCausalLM',
        fixed=_FIXED | _NO_WINDOW | {
            'attention_bias': False, 'decoder_sparse_step': 1,
            'mlp_only_layers': []},
        implied=_IS_MOE | dict(qkv_bias=False, qk_norm='head'),
        tensors=_STEM | _in_layer(_ATTENTION | _HEAD_NORMS | _EXPERTS)),
    'olmoe': Family(
        fields=_MOE | {'num_experts': 'num_experts',
                       'intermediate_size': 'expert_dim',
                       'norm_topk_prob': 'norm_topk_prob'},
        absent=_ABSENT | {'norm_topk_prob': False},
        architecture='OlmoeForCausalLM',
        fixed=_FIXED | {'attention_bias': False, 'clip_qkv': None},
        implied=_IS_MOE | dict(qkv_bias=False, qk_norm='all'),
        tensors=_STEM | _in_layer(_ATTENTION | _WHOLE_NORMS | _EXPERTS)),
    'mixtral': Family(
        fields=_MOE | {'num_local_experts': 'num_experts',
                       'intermediate_size': 'expert_dim'},
        absent=_ABSENT, architecture='MixtralForCausalLM',
        fixed=_FIXED | {'sliding_window': None},
        implied=_IS_MOE | dict(qkv_bias=False, qk_norm='none',
                               norm_topk_prob=True),
        tensors=_STEM | _in_layer(_ATTENTION | _MIXTRAL_EXPERTS)),
    'bailing_moe': Family(
        fields=_MOE | {'num_experts': 'num_experts',
                       'moe_intermediate_size': 'expert_dim',
                       'num_shared_experts': 'num_shared_experts',
                       'norm_topk_prob': 'norm_topk_prob',
                       'norm_head': 'norm_head'},
        absent=_ABSENT, architecture='BailingMoeForCausalLM',
        fixed=_FIXED | _NO_WINDOW | {
            'use_bias': False, 'use_qkv_bias': False, 'norm_softmax': False,
            'first_k_dense_replace': 0},
        stated=('use_bias',),
        implied=dict(mlp_dim=0, qkv_bias=False, qk_norm='none'),
        tensors=_BAILING_STEM | _in_layer(_BAILING)),
}

# Settings under another name.
ALIASES = {'qwen3_moe': {'num_local_experts': 'num_experts'}}

# Settings that change nothing in a forward pass with these weights.
WITHOUT_EFFECT = frozenset({
    '_name_or_path', 'architectures', 'attention_dropout', 'auto_map',
    'bos_token_id', 'dtype', 'embedding_dropout', 'eos_token_id',
    'is_llama_config', 'max_window_layers', 'model_type', 'output_dropout',
    'output_router_logits', 'pad_token_id', 'pretraining_tp',
    'router_aux_loss_coef', 'router_jitter_noise', 'sliding_window',
    'torch_dtype', 'transformers.js_config', 'transformers_version',
    'use_cache'})

GGUF_LLAMA = {
    'token_embd.weight': 'embedding/table vd->vd',
    'output_norm.weight': 'final_norm/scale d->d',
    'output.weight': 'head/kernel vd->dv',
} | {f'blk.{{l}}.{name}': f'layers/{leaf}' for name, leaf in {
    'attn_norm.weight': 'attention_norm/scale d->ld',
    'attn_q.weight': 'attention/query (njc)d->ldn(cj)',
    'attn_k.weight': 'attention/key (kjc)d->ldk(cj)',
    'attn_v.weight': 'attention/value (kh)d->ldkh',
    'attn_output.weight': 'attention/out d(nh)->lnhd',
    'ffn_norm.weight': 'mlp_norm/scale d->ld',
    'ffn_gate.weight': 'mlp/gate_up md->ld0m',
    'ffn_up.weight': 'mlp/gate_up md->ld1m',
    'ffn_down.weight': 'mlp/down dm->lmd',
}.items()}
