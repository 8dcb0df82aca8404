"""Published checkpoints into our parameters, in their shards, and back.

A tensor goes from its file to the shards it belongs to, some rows at a time:
the host holds one piece, whatever the size of the model. Export goes the other
way into a folder that gets its name when it is complete.
"""
from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import tempfile

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from rljax import sharding
from rljax.interop import gguf_files
from rljax.interop import layout
from rljax.interop import names
from rljax.interop import settings
from rljax.interop import tensor_files
from rljax.models import transformer
from rljax.models import variants

_PIECE = 32 << 20          # elements on the host at a time
_FILE_BYTES = 5 << 30      # what hubs like a file to be at most
_WEIGHTS = ('.safetensors', '.bin', '.pt', '.pth', '.gguf', '.h5', '.msgpack',
            '.onnx', '.index.json')


def is_published(path) -> bool:
  """Whether this is a published checkpoint: a GGUF file, or its folder.

  The folder of a run has a file of the same name, which is its own.
  """
  path = pathlib.Path(path).expanduser()
  file = path / settings.FILE_NAME
  if path.suffix == '.gguf' or not file.is_file():
    return path.suffix == '.gguf'
  return 'model_type' in file.read_text(errors='replace') or any(
      path.glob('*.safetensors*'))


def model_config(path, **overrides) -> variants.ModelConfig:
  """Hyper-parameters of a published checkpoint.

  Raises:
    ValueError: settings that are unknown, missing or contradict each other.
  """
  path = pathlib.Path(path).expanduser()
  if path.suffix == '.gguf':
    return gguf_files.File(path).config(**overrides)
  return settings.to_config(settings.read(path), **overrides)[1]


def load(path, model, mesh, rules=None):
  """Parameters of `model`, each piece read into the shards that hold it.

  Args:
    path: folder with config.json and safetensors files, or a GGUF file.
    model: a `transformer.Transformer` of the same sizes.
    mesh: devices.
    rules: logical axis table.

  Returns:
    The parameter tree, in the model's `param_dtype`.

  Raises:
    ValueError: the checkpoint is of another model, or its files are damaged or
      incomplete; the message names fields, tensors and files.
  """
  path = pathlib.Path(path).expanduser()
  source, config, table = _open(path)
  settings.compare(config, model.config, f'Expected {path} to be the model of '
                   'this run')
  tensors = layout.tensors(table, config)
  _check_tensors(path, source, tensors, config)
  return fill(source, tensors, transformer.abstract_params(model), mesh, rules)


def fill(source, tensors: dict[str, layout.Tensor], abstract, mesh,
         rules=None):
  """The parameter tree of an abstract one, from tensors that were checked."""
  placed = traverse_util.flatten_dict(
      sharding.tree_sharding(mesh, abstract, rules))
  leaves = traverse_util.flatten_dict(sharding.unbox(abstract))
  shards = {key: _Shards(leaf, placed[key]) for key, leaf in leaves.items()}
  for name, tensor in tensors.items():
    for part, begin, rows in tensor.chunks(_PIECE):
      target = shards[part.path]
      if target.needs(part.starts(begin), part.shape(rows)):
        data = source.read(name, part.first + begin, rows)
        target.fill(*part.block(data, begin))
  return traverse_util.unflatten_dict(
      {key: leaf.array() for key, leaf in shards.items()})


def check_export(folder, kind: str, config: variants.ModelConfig,
                 like=None) -> dict:
  """Refuses, before any parameter is read, what `save` could not write.

  Returns:
    The settings to be written; arguments and errors are those of `save`.
  """
  check_new(pathlib.Path(folder).expanduser())
  made = settings.from_config(kind, config)
  if like is None:
    return made
  settings.compare(model_config(like), config, f'Expected the model of {like}')
  is_gguf = pathlib.Path(like).suffix == '.gguf'
  return made if is_gguf else settings.read(pathlib.Path(like).expanduser())


def save(folder, kind: str, config: variants.ModelConfig, params, *,
         dtype: str = 'float32', like=None, max_file_bytes: int = _FILE_BYTES):
  """Writes a folder that `transformers` reads; it appears when complete.

  Args:
    folder: must not exist yet.
    kind: family, as in `names.FAMILIES`.
    config: of the model.
    params: parameter tree of arrays that this process can address.
    dtype: of the files.
    like: published checkpoint whose tokenizer and chat template are copied,
      and config.json if it is a folder; without one, config.json is made.
    max_file_bytes: of a file, if its first tensor is not larger.

  Raises:
    ValueError: the folder exists, or the family cannot hold this model.
  """
  made = check_export(folder, kind, config, like)
  if dtype not in [known.name for known in tensor_files.DTYPES.values()]:
    raise ValueError(f'Expected dtype float32, bfloat16 or float16, got '
                     f'{dtype!r}.')
  leaves = traverse_util.flatten_dict(params)
  tensors = layout.tensors(names.FAMILIES[kind].tensors, config)
  _check_leaves(leaves, config)
  with new_folder(folder) as partial:
    if pathlib.Path(like or '').suffix == '.gguf':
      gguf_files.save_tokenizer(like, partial)
    elif like is not None:
      _copy_others(like, partial)
    made = {key: made[key] for key in made if key != 'dtype'}
    (partial / settings.FILE_NAME).write_text(json.dumps(
        made | {'torch_dtype': dtype}, indent=1))
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    with tensor_files.Writer(partial, shapes, dtype, max_file_bytes) as writer:
      for tensor in tensors.values():
        for part, begin, rows in tensor.chunks(_PIECE):
          block = _take(leaves[part.path], part.starts(begin),
                        part.shape(rows))
          writer.write(part.unblock(block, rows))


@contextlib.contextmanager
def new_folder(folder):
  """A folder under a temporary name, renamed at the end, removed on failure.

  Raises:
    ValueError: it exists already.
  """
  folder = pathlib.Path(folder).expanduser().absolute()
  check_new(folder)
  folder.parent.mkdir(parents=True, exist_ok=True)
  partial = pathlib.Path(tempfile.mkdtemp(prefix=f'.{folder.name}.',
                                          dir=folder.parent))
  try:
    yield partial
    partial.chmod(0o755)  # mkdtemp's is for its owner alone
    os.rename(partial, folder)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def check_new(folder: pathlib.Path):
  """Refuses a folder that exists; nothing is overwritten."""
  if folder.exists():
    raise ValueError(f'Expected a folder that does not exist yet, got {folder}.'
                     ' Name another, or remove it.')


def _open(path):
  """(source of tensors, config, table of names) of a checkpoint."""
  if path.suffix == '.gguf':
    source = gguf_files.File(path)
    return source, source.config(), names.GGUF_LLAMA
  kind, config = settings.to_config(settings.read(path))
  return tensor_files.Folder(path), config, names.FAMILIES[kind].tensors


class _Shards:
  """One leaf in the making: an array for each device that this process has."""

  def __init__(self, leaf, at):
    self._leaf, self._at = leaf, at
    self._begin, self._data = {}, {}
    for device, index in at.addressable_devices_indices_map(
        leaf.shape).items():
      ranges = [part.indices(size)[:2]
                for part, size in zip(index, leaf.shape, strict=True)]
      self._begin[device] = np.array([low for low, _ in ranges])
      self._data[device] = jnp.zeros(
          [high - low for low, high in ranges], leaf.dtype, device=device)

  def _overlap(self, device, starts, shape):
    """Low and high corner, in the leaf, of what a device has of a block."""
    low = np.maximum(self._begin[device], starts)
    high = np.minimum(self._begin[device] + self._data[device].shape,
                      np.add(starts, shape))
    return low, high, bool(np.all(low < high))

  def needs(self, starts, shape) -> bool:
    return any(self._overlap(device, starts, shape)[2]
               for device in self._data)

  def fill(self, starts, block: np.ndarray):
    for device, data in self._data.items():
      low, high, any_of_it = self._overlap(device, starts, block.shape)
      if any_of_it:
        inside = tuple(slice(a, b) for a, b in zip(
            low - starts, high - starts, strict=True))
        piece = jax.device_put(np.ascontiguousarray(block[inside]), device)
        self._data[device] = _put(data, piece, tuple(
            np.int32(x) for x in low - self._begin[device]))
        # Else the host reads on while the pieces pile up.
        self._data[device].block_until_ready()

  def array(self) -> jax.Array:
    return jax.make_array_from_single_device_arrays(
        self._leaf.shape, self._at, list(self._data.values()))


def _write_piece(data, piece, starts):
  return jax.lax.dynamic_update_slice(data, piece.astype(data.dtype), starts)


_put = jax.jit(_write_piece, donate_argnums=0)


def _take(leaf: jax.Array, starts, shape) -> np.ndarray:
  """A block of a leaf, on the host."""
  block = np.empty(shape, leaf.dtype)
  for shard in leaf.addressable_shards:
    if shard.replica_id:
      continue
    begin = np.array([part.indices(size)[0] for part, size in zip(
        shard.index, leaf.shape, strict=True)])
    low = np.maximum(begin, starts)
    high = np.minimum(begin + shard.data.shape, np.add(starts, shape))
    if np.all(low < high):
      here = tuple(slice(a, b) for a, b in zip(
          low - starts, high - starts, strict=True))
      block[here] = jax.lax.dynamic_slice(
          shard.data, (low - begin).astype(np.int32), high - low)
  return block


def _check_tensors(path, source, tensors, config):
  """Names and shapes, before anything is read."""
  found = source.shapes()
  lists = lambda problems: ', '.join(problems[:4]) + (
      f' and {len(problems) - 4} more' if len(problems) > 4 else '')
  heads = {'lm_head.weight', 'output.weight'}
  missing = sorted(set(tensors) - set(found))
  if missing and set(missing) <= heads:
    raise ValueError(
        f'Expected {missing[0]} in {path}, found none, but its settings say '
        'that the head is not the embedding table. Set tie_word_embeddings if '
        'it is, or fetch the missing tensor.')
  if missing:
    raise ValueError(f'Expected {lists(missing)} in {path}, found nothing of '
                     'that name. Fetch the files again, or correct the '
                     'settings.')
  more = set(found) - set(tensors)
  if config.tied_head and more & heads:
    _check_tied(path, source, (more & heads).pop(), config)
  more = sorted(x for x in more - (heads if config.tied_head else set())
                if not x.endswith('rotary_emb.inv_freq'))
  if more:
    raise ValueError(f'Expected no tensor beyond those of the settings in '
                     f'{path}, got {lists(more)}. Correct the settings, or '
                     'convert another model.')
  wrong = [f'{name} {list(found[name])} instead of {list(tensor.shape)}'
           for name, tensor in tensors.items() if found[name] != tensor.shape]
  if wrong:
    raise ValueError(f'Expected the shapes that the settings of {path} say, '
                     f'got {lists(wrong)}. Correct the settings (vocab_size, '
                     'say), or fetch the files that belong to them.')


def _check_tied(path, source, head: str, config):
  """A head that is stored beside its table must be that table."""
  table, = set(source.shapes()) & {'model.embed_tokens.weight',
                                   'model.word_embeddings.weight',
                                   'token_embd.weight'}
  step = max(_PIECE // config.model_dim, 1)
  same = source.shapes()[head] == source.shapes()[table] and all(
      np.array_equal(source.read(head, at, rows), source.read(table, at, rows))
      for at in range(0, config.vocab_size, step)
      for rows in [min(step, config.vocab_size - at)])
  if not same:
    raise ValueError(
        f'Expected {head} in {path} to equal {table}, as tie_word_embeddings '
        'says, got other values. Set tie_word_embeddings to false.')


def _check_leaves(leaves, config):
  """The tree must be that of the model, all of it within reach."""
  expected = traverse_util.flatten_dict(sharding.unbox(
      transformer.abstract_params(transformer.Transformer(config))))
  wrong = [f'{"/".join(key)}' for key in sorted(set(leaves) | set(expected))
           if key not in leaves or key not in expected
           or leaves[key].shape != expected[key].shape]
  if wrong:
    raise ValueError(f'Expected the parameters of the model, got others at '
                     f'{", ".join(wrong[:4])}. Export with the configuration '
                     'that they were trained with.')
  if not all(leaf.is_fully_addressable for leaf in leaves.values()):
    raise ValueError('Expected parameters on devices of this process, got some '
                     'of others. Restore the checkpoint in one process to '
                     'export it.')


def _copy_others(like, folder):
  """Tokenizer, chat template and the like: all but weights and settings."""
  for path in pathlib.Path(like).expanduser().iterdir():
    if path.is_file() and path.name != settings.FILE_NAME and (
        not path.name.endswith(_WEIGHTS)):
      shutil.copy(path, folder / path.name)
