"""Adapters into the folder that PEFT reads: its names, its shapes, its scale.

  lora_A.weight [r, in]   lora_B.weight [out, r]   W' = W + α / r · B A

Names are those of the published model's tensors, so that an adapter of expert 3
stands beside expert 3, and PEFT fuses them where the model does. A
rank-stabilised scale is written as the α that gives it.

Reference: the format's own description, in the PEFT repository.
"""
from __future__ import annotations

import json
import pathlib

import jax
import numpy as np

from rljax.interop import convert
from rljax.interop import layout
from rljax.interop import names
from rljax.interop import tensor_files
from rljax.models import lora
from rljax.models import variants

_PREFIX = 'base_model.model.'
_SETTINGS, _WEIGHTS = 'adapter_config.json', 'adapter_model.safetensors'


def check(folder, kind: str, config: variants.ModelConfig):
  """Refuses, before any parameter is read, what `save` could not write.

  Raises:
    ValueError: the folder exists, or the family fuses projections for which
      the adapters are separate.
  """
  convert.check_new(pathlib.Path(folder).expanduser())
  if kind not in names.FAMILIES:
    raise ValueError(f'Unknown family {kind!r}. Expected one of '
                     f'{sorted(names.FAMILIES)}.')
  fused = [name for name, leaves in names.FAMILIES[kind].tensors.items()
           if not isinstance(leaves, str) and len(leaves) > 1]
  if fused:
    raise ValueError(
        f'Expected a family with separate projections, got {kind!r}, which '
        f'stores {fused[0]} as one: no single adapter of the same rank is '
        'there. Export the merged model, without --adapter.')


def save(folder, kind: str, config: variants.ModelConfig,
         params: lora.Adapted, *, base: str = ''):
  """Writes adapter_config.json and adapter_model.safetensors; appears whole.

  Args:
    folder: must not exist yet.
    kind: family, as in `names.FAMILIES`.
    config: of the model.
    params: whose adapters are written, in float32.
    base: what PEFT shall load beneath them, for people to read.

  Raises:
    ValueError: as `check`, or parts that were trained in full.
  """
  check(folder, kind, config)
  whole = sorted(set(params.trained) - {lora.COLLECTION})
  if whole:
    raise ValueError(f'Expected adapters alone, got {whole} trained in full '
                     'beside them. Export the merged model.')
  written, modules, rank = {}, set(), 0
  for name, place, fixed, (rows, columns), target in _places(kind, config):
    pair = _find(params.trained[lora.COLLECTION], place)
    if pair is None:
      continue
    rank = pair['a'].shape[-1]
    module = name.removesuffix('.weight')
    modules.add(module.rpartition('.')[2])
    batch = [x for x in target if x in fixed]
    at_a = [x for x in target if x not in rows] + ['r']
    at_b = batch + ['r'] + [x for x in target if x not in (*batch, *columns)]
    written[f'{_PREFIX}{module}.lora_A.weight'] = _matrix(
        pair['a'], at_a, fixed, 'r', columns)
    written[f'{_PREFIX}{module}.lora_B.weight'] = _matrix(
        pair['b'], at_b, fixed, rows, 'r')
  made = dict(
      peft_type='LORA', task_type='CAUSAL_LM', base_model_name_or_path=base,
      r=rank, lora_alpha=params.scale * rank, use_rslora=False,
      target_modules=sorted(modules), lora_dropout=0.0, bias='none',
      fan_in_fan_out=False, inference_mode=True)
  with convert.new_folder(folder) as partial:
    (partial / _SETTINGS).write_text(json.dumps(made, indent=1))
    shapes = {name: x.shape for name, x in written.items()}
    with tensor_files.Writer(
        partial, shapes, 'float32', sum(x.nbytes for x in written.values())
    ) as writer:
      for x in written.values():
        writer.write(x)
    (partial / tensor_files.SINGLE).rename(partial / _WEIGHTS)


def _places(kind, config):
  """Name of a tensor, its leaf, layer and expert, letters of its axes, and of
  the leaf's, for every kernel that an adapter may have."""
  for template, leaves in names.FAMILIES[kind].tensors.items():
    leaf, = (leaves,) if isinstance(leaves, str) else leaves
    path, axes = leaf.split(' ')
    place = tuple(path.split('/'))
    if place[-1] not in lora.TARGETS:
      continue
    source, target = map(layout.groups, axes.split('->'))
    experts = range(config.num_experts if '{e}' in template else 1)
    for layer in range(config.num_layers):
      for expert in experts:
        fixed = dict(l=layer, e=expert)
        yield template.format(**fixed), place, fixed, source, target


def _find(tree, place):
  for part in place:
    if part not in tree:
      return None
    tree = tree[part]
  return tree


def _matrix(x: jax.Array, letters, fixed, rows: str, columns: str):
  """The part of a leaf that digits, layer and expert choose, as a matrix."""
  index = tuple(fixed[x] if x in fixed else int(x) if x.isdecimal()
                else slice(None) for x in letters)
  left = [x for x in letters if x not in fixed and not x.isdecimal()]
  part = np.asarray(x[index], np.float32).transpose(
      [left.index(letter) for letter in rows + columns])
  size = int(np.prod(part.shape[:len(rows)]))
  return np.ascontiguousarray(part.reshape(size, -1))
