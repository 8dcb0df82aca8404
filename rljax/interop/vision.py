"""Vision towers of published CLIP and SigLIP checkpoints.

Either the tower alone or the whole model: what belongs to the text side is left
in the file. Settings are read as strictly as those of language models.

Reference: the files that `transformers` writes.
"""
from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from rljax.interop import convert
from rljax.interop import layout
from rljax.interop import settings
from rljax.interop import tensor_files
from rljax.models import vision
from rljax.models import vision_variants

PREPROCESSOR = 'preprocessor_config.json'
_PREFIX = 'vision_model.'
_TEXT = ('text_model.', 'text_projection.', 'logit_scale', 'logit_bias')

_FIELDS = {
    'hidden_size': 'model_dim', 'num_hidden_layers': 'num_layers',
    'num_attention_heads': 'num_heads', 'intermediate_size': 'mlp_dim',
    'image_size': 'image_size', 'patch_size': 'patch_size',
    'num_channels': 'num_channels', 'layer_norm_eps': 'norm_eps',
    'hidden_act': 'activation',
}
_ACTIVATIONS = {'quick_gelu': 'quick_gelu', 'gelu': 'gelu',
                'gelu_pytorch_tanh': 'gelu_tanh'}
# Old files also list, for a tower that generates nothing, how to generate.
_WITHOUT_EFFECT = frozenset('''
    _name_or_path add_cross_attention architectures attention_dropout
    bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward
    cross_attention_hidden_size decoder_start_token_id diversity_penalty
    do_sample dropout dtype early_stopping encoder_no_repeat_ngram_size
    eos_token_id exponential_decay_length_penalty finetuning_task
    forced_bos_token_id forced_eos_token_id id2label initializer_factor
    initializer_range is_decoder is_encoder_decoder label2id length_penalty
    max_length min_length model_type no_repeat_ngram_size num_beam_groups
    num_beams num_return_sequences output_attentions output_hidden_states
    output_scores pad_token_id prefix problem_type projection_dim pruned_heads
    remove_invalid_values repetition_penalty return_dict
    return_dict_in_generate sep_token_id suppress_tokens task_specific_params
    temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings
    tokenizer_class top_k top_p torch_dtype torchscript transformers_version
    typical_p use_bfloat16'''.split())


@dataclasses.dataclass(frozen=True)
class Family:
  """What distinguishes one kind of tower."""
  absent: dict[str, Any]    # setting -> its value where not stated
  fixed: dict[str, Any]     # setting -> the value it must have
  implied: dict[str, Any]   # field -> value in every such tower
  tensors: dict[str, str | tuple[str, ...]]  # as in `names`


_PATCHES = {
    'embeddings.patch_embedding.weight': 'embedding/patch duij->ijud',
    'embeddings.position_embedding.weight': 'embedding/position md->md',
}
_NORM = lambda name, leaf, to: {
    f'{name}.weight': f'{leaf}/scale d->{to}',
    f'{name}.bias': f'{leaf}/bias d->{to}'}
_LAYERS = {
    f'encoder.layers.{{l}}.{name}': f'layers/{leaf}' for name, leaf in (
        _NORM('layer_norm1', 'attention_norm', 'ld')
        | _NORM('layer_norm2', 'mlp_norm', 'ld') | {
            'self_attn.q_proj.weight': 'attention/query (nh)d->ldnh',
            'self_attn.q_proj.bias': 'attention/query_bias (nh)->lnh',
            'self_attn.k_proj.weight': 'attention/key (nh)d->ldnh',
            'self_attn.k_proj.bias': 'attention/key_bias (nh)->lnh',
            'self_attn.v_proj.weight': 'attention/value (nh)d->ldnh',
            'self_attn.v_proj.bias': 'attention/value_bias (nh)->lnh',
            'self_attn.out_proj.weight': 'attention/out d(nh)->lnhd',
            'self_attn.out_proj.bias': 'attention/out_bias d->ld',
            'mlp.fc1.weight': 'mlp/up fd->ldf',
            'mlp.fc1.bias': 'mlp/up_bias f->lf',
            'mlp.fc2.weight': 'mlp/down df->lfd',
            'mlp.fc2.bias': 'mlp/down_bias d->ld'}).items()}
_IN_PROJECTION = lambda layout_, suffix: tuple(
    f'probe/attention/{x}{suffix} {layout_}' for x in ('query', 'key', 'value'))
_PROBE = {
    'head.attention.in_proj_weight': _IN_PROJECTION('(nh)d->dnh', ''),
    'head.attention.in_proj_bias': _IN_PROJECTION('(nh)->nh', '_bias'),
    'head.attention.out_proj.weight': 'probe/attention/out d(nh)->nhd',
    'head.attention.out_proj.bias': 'probe/attention/out_bias d->d',
    'head.mlp.fc1.weight': 'probe/mlp/up fd->df',
    'head.mlp.fc1.bias': 'probe/mlp/up_bias f->f',
    'head.mlp.fc2.weight': 'probe/mlp/down df->fd',
    'head.mlp.fc2.bias': 'probe/mlp/down_bias d->d',
    'head.probe': 'probe/query abd->(abd)',
} | _NORM('head.layernorm', 'probe/norm', 'd')

_ABSENT = {'hidden_size': 768, 'intermediate_size': 3_072, 'num_channels': 3,
           'num_hidden_layers': 12, 'num_attention_heads': 12,
           'image_size': 224}
FAMILIES = {
    'clip_vision_model': Family(
        absent=_ABSENT | {'patch_size': 32, 'hidden_act': 'quick_gelu',
                          'layer_norm_eps': 1e-5},
        fixed={},
        implied=dict(
            pool='class', class_token=True, patch_bias=False, pre_norm=True,
            image_mean=(0.48145466, 0.4578275, 0.40821073),
            image_std=(0.26862954, 0.26130258, 0.27577711)),
        tensors=_PATCHES | _LAYERS
        | {'embeddings.class_embedding': 'embedding/class d->d'}
        | _NORM('pre_layrnorm', 'pre_norm', 'd')
        | _NORM('post_layernorm', 'final_norm', 'd')),
    'siglip_vision_model': Family(
        absent=_ABSENT | {'patch_size': 16, 'hidden_act': 'gelu_pytorch_tanh',
                          'layer_norm_eps': 1e-6},
        fixed={'vision_use_head': True},
        implied=dict(pool='attention', class_token=False, patch_bias=True,
                     pre_norm=False, image_mean=(0.5,), image_std=(0.5,)),
        tensors=_PATCHES | _LAYERS | _PROBE
        | {'embeddings.patch_embedding.bias': 'embedding/patch_bias d->d'}
        | _NORM('post_layernorm', 'final_norm', 'd')),
}
_PROJECTION = 'visual_projection.weight'
_WHOLE = {'clip': 'clip_vision_model', 'siglip': 'siglip_vision_model'}


def load(folder, mesh, rules=None, **overrides):
  """A tower in its shards.

  Args:
    folder: has config.json and safetensors files.
    mesh: devices.
    rules: logical axis table.
    **overrides: fields that say how to run it, such as `dtype`.

  Returns:
    (VisionEncoder, parameters).

  Raises:
    ValueError: settings or tensors that are not those of such a tower.
  """
  folder = pathlib.Path(folder).expanduser()
  kind, found = _settings(folder)
  source = tensor_files.Folder(folder)
  config = _config(folder, kind, found, source, overrides)
  tensors = _tensors(kind, config, source)
  _check(folder, source, tensors)
  model = vision.VisionEncoder(config)
  return model, convert.fill(source, tensors, vision.abstract_params(model),
                             mesh, rules)


def _settings(folder) -> tuple[str, dict[str, Any]]:
  """Kind and settings of the tower, alone or in a whole model."""
  found = settings.read(folder)
  kind = found.get('model_type')
  if kind in _WHOLE:
    kind, found = _WHOLE[kind], found.get('vision_config') or {}
  if kind not in FAMILIES:
    raise ValueError(
        f'Expected model_type to be one of {sorted({*FAMILIES, *_WHOLE})} in '
        f'{folder}, got {kind!r}. Name a CLIP or SigLIP checkpoint.')
  return kind, found


def _config(folder, kind, found, source, overrides):
  """Hyper-parameters, in part from the shapes and the image processor."""
  family = FAMILIES[kind]
  problems = [
      f'unknown setting {name!r}: {found[name]!r}' for name in
      sorted(set(found) - {*_FIELDS, *family.fixed, *_WITHOUT_EFFECT})]
  problems += [f'{name!r} is {found[name]!r}, expected {value!r}'
               for name, value in family.fixed.items()
               if found.get(name, value) != value]
  values = family.absent | found
  if values['hidden_act'] not in _ACTIVATIONS:
    problems.append(f"'hidden_act' is {values['hidden_act']!r}, expected one "
                    f'of {sorted(_ACTIVATIONS)}')
  if problems:
    raise ValueError(
        f'Expected settings of a {kind} that are computed here in {folder}, '
        f'got: {"; ".join(problems)}. Correct {settings.FILE_NAME}, or use '
        'another tower.')
  values['hidden_act'] = _ACTIVATIONS[values['hidden_act']]
  fields = {field: values[name] for name, field in _FIELDS.items()}
  fields |= family.implied | _statistics(folder)
  fields['projection_dim'] = source.shapes().get(_PROJECTION, (0,))[0]
  config = vision_variants.VisionConfig(**(fields | overrides))
  vision_variants.check(config)
  return config


def _statistics(folder) -> dict[str, tuple[float, ...]]:
  """Mean and deviation in the image processor's file; empty without one."""
  path = folder / PREPROCESSOR
  if not path.is_file():
    return {}
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
    return {name: tuple(map(float, found[name]))
            for name in ('image_mean', 'image_std')}
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(f'Expected image_mean and image_std in {path}, got '
                     f'{error!r}. Fetch the file again.') from error


def _tensors(kind, config, source) -> dict[str, layout.Tensor]:
  """Every tensor of the tower by its name in the file."""
  heads = config.num_heads
  sizes = dict(
      a=1, b=1, c=config.projection_dim, d=config.model_dim,
      f=config.mlp_dim, n=heads, h=config.model_dim // heads,
      i=config.patch_size, j=config.patch_size, u=config.num_channels,
      m=config.grid**2 + int(config.class_token))
  inside = any(name.startswith(_PREFIX) for name in source.shapes())
  prefix = _PREFIX if inside else ''
  found = {}
  for template, leaves in FAMILIES[kind].tensors.items():
    leaves = (leaves,) if isinstance(leaves, str) else leaves
    for layer in range(config.num_layers if '{l}' in template else 1):
      found[prefix + template.format(l=layer)] = layout.tensor(
          leaves, sizes, dict(l=layer))
  if config.projection_dim:
    found[_PROJECTION] = layout.tensor(('projection cd->dc',), sizes, {})
  return found


def _check(folder, source, tensors):
  """Names and shapes, before anything is read."""
  found = source.shapes()
  known = lambda name: name.startswith(_TEXT) or name.endswith('position_ids')
  problems = [f'no {name}' for name in sorted(set(tensors) - set(found))]
  problems += [f'{name}, which the settings do not have'
               for name in sorted(set(found) - set(tensors))
               if not known(name)]
  problems += [
      f'{name} {list(found[name])} instead of {list(tensor.shape)}'
      for name, tensor in tensors.items()
      if name in found and found[name] != tensor.shape]
  if problems:
    more = f' and {len(problems) - 4} more' if len(problems) > 4 else ''
    raise ValueError(
        f'Expected the tensors that the settings of {folder} say, got '
        f'{", ".join(problems[:4])}{more}. Fetch the files again, or correct '
        f'{settings.FILE_NAME}.')
