"""Host memory that importing a checkpoint takes, beyond the parameters.

A script makes the checkpoint: a random mixture of experts in several files. A
process of its own imports it. On a CPU the parameters lie in the host's memory
too, so they are subtracted: all shards are allocated and filled with zeros
before the first tensor is read, and stay, so that

  beyond = peak resident memory - resident memory before - bytes of parameters

is what files, pieces, casts and copies take. The peer reads the whole
checkpoint before it places anything. The limit is the largest tensor + 1 GiB.

  python -m experiments.benchmark import_memory --workdir=runs/import_memory
"""
from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

import jax
import numpy as np

from rljax import sharding
from rljax.interop import convert
from rljax.interop import layout
from rljax.interop import names
from rljax.interop import settings
from rljax.interop import tensor_files
from rljax.models import transformer
from rljax.models import variants

GIB = 1 << 30
_FAMILY = 'bailing_moe'
_ROOT = pathlib.Path(__file__).parents[3]


def run(interleaved, smoke: bool, team) -> list[dict]:
  del interleaved, team  # memory, not time
  with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch) / 'model'
    make(folder, *((0.5, 256 << 20) if smoke else (4.0, GIB)))
    found = {way: in_a_process(folder, way) for way in ('streamed', 'whole')}
  ours = found['streamed']
  return [dict(
      row='import_memory', higher_is_better=False, rljax=ours['beyond'],
      metric='GiB of host memory beyond the parameters',
      peers={'whole checkpoint first': found['whole']['beyond']},
      limit=ours['largest'] + 1, processes=found)]


def make(folder: pathlib.Path, gib: float, max_file_bytes: int):
  """Writes about so many GiB, bfloat16, a few rows at a time."""
  width, inner, vocab_size = 1_024, 2_048, 32_768
  layer = 2 * 17 * 3 * width * inner  # bytes: 16 experts and the shared one
  config = variants.get(
      'ring_lite_16b_a2_75b', vocab_size=vocab_size, model_dim=width,
      num_layers=max(round((gib * GIB - 4 * vocab_size * width) / layer), 1),
      num_heads=8, num_kv_heads=2, num_experts=16, top_k=2, expert_dim=inner,
      num_shared_experts=1)
  folder.mkdir()
  (folder / settings.FILE_NAME).write_text(json.dumps(
      settings.from_config(_FAMILY, config)))
  tensors = layout.tensors(names.FAMILIES[_FAMILY].tensors, config)
  noise = np.random.default_rng(0).normal(size=1 << 20).astype(np.float32)
  shapes = {name: tensor.shape for name, tensor in tensors.items()}
  with tensor_files.Writer(folder, shapes, 'bfloat16',
                           max_file_bytes) as writer:
    for tensor in tensors.values():
      for _, _, rows in tensor.chunks(noise.size):
        writer.write(np.resize(noise, (rows, *tensor.shape[1:])))


def in_a_process(folder: pathlib.Path, way: str) -> dict[str, float]:
  """What `measure` finds where nothing else has taken memory."""
  # Compiled as a user's program is, not as the caller may want its own.
  plain = {name: x for name, x in os.environ.items() if name != 'XLA_FLAGS'}
  out = subprocess.run(
      [sys.executable, '-m', __name__, str(folder), way], check=True,
      stdout=subprocess.PIPE, text=True, cwd=_ROOT, env=plain)
  return json.loads(out.stdout.splitlines()[-1])


def measure(folder: pathlib.Path, way: str) -> dict[str, float]:
  """Imports, and says in GiB what there was and what it took.

  Raises:
    RuntimeError: the parameters are not in this process's memory, so that
      subtracting them would flatter.
  """
  model = transformer.Transformer(convert.model_config(
      folder, param_dtype='bfloat16'))
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  jax.block_until_ready(jax.numpy.zeros(8) + 1)  # the runtime itself
  before = peak_bytes()
  source = tensor_files.Folder(folder)
  held = {name: source.read(name, 0, shape[0]) for name, shape
          in source.shapes().items()} if way == 'whole' else {}
  params = convert.load(folder, model, mesh)
  taken = peak_bytes() - before
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  if jax.default_backend() != 'cpu':
    size = 0  # in the device's own memory
  elif taken < size:
    raise RuntimeError(f'Expected {size} bytes of parameters in memory, got '
                       f'{taken} in all. Measure on a machine without swap.')
  largest = max(2 * math.prod(shape) for shape in source.shapes().values())
  return dict(checkpoint=sum(path.stat().st_size for path in folder.glob(
      '*.safetensors')) / GIB, parameters=size / GIB, largest=largest / GIB,
              held=sum(x.nbytes for x in held.values()) / GIB,
              beyond=(taken - size) / GIB)


def peak_bytes() -> int:
  """The most that was ever resident in this process."""
  if sys.platform == 'linux':
    # Not getrusage: there it begins with the peak of the parent process.
    status = pathlib.Path('/proc/self/status').read_text()
    return int(status.partition('VmHWM:')[2].split()[0]) << 10
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == '__main__':
  parser = argparse.ArgumentParser()
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('way', choices=('streamed', 'whole'))
  flags = parser.parse_args()
  print(json.dumps(measure(flags.folder, flags.way)))
