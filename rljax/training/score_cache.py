"""Log-probabilities of a frozen model, scored once and kept on disk.

  <folder>/fingerprint.json   what they are of
           00000.npz          the first so many pairs: their tokens end to end

One number per token, not per response: losses that weigh tokens need them. A
part is written under another name and renamed, so a kill leaves whole parts,
and the next start goes on behind them. What was scored with other parameters,
another tokenizer, other limits or other data is refused with what differs.
"""
from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import json
import os
import pathlib
from typing import Any
import uuid
import zipfile
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from rljax import processes
from rljax.packing.pairs import Sides
from rljax.training import checkpoint
from rljax.training import metrics
from rljax.types import TokenPair

_FINGERPRINT = 'fingerprint.json'


def scored(
    folder: str | os.PathLike,
    pairs: Sequence[TokenPair],
    score: Callable[[Sequence[TokenPair]], list[Sides]],
    fingerprint: dict[str, Any],
    *,
    per_call: int,
    calls_per_part: int = 16,
    label: str = 'scores',
) -> dict[str, Sides]:
  """Log-probabilities by pair's id, from the folder or from `score`.

  Args:
    folder: of this model and these pairs; made if it does not exist.
    pairs: to be scored, in an order that does not change between starts.
    score: of at most `per_call` pairs.
    fingerprint: JSON-like; all that the numbers depend on.
    per_call: pairs that `score` takes at a time.
    calls_per_part: after so many calls, a file is written.
    label: of the progress bar.

  Raises:
    ValueError: the folder holds scores of something else, or a damaged part;
      an id occurs twice.
  """
  if len({pair.id for pair in pairs}) < len(pairs):
    raise ValueError(f'Expected a different id for each of {len(pairs)} pairs, '
                     'got one twice. Log-probabilities are kept by id.')
  folder = pathlib.Path(folder)
  per_part = per_call * calls_per_part
  count = -(-len(pairs) // per_part)
  fingerprint = json.loads(json.dumps(
      fingerprint | {'pairs': len(pairs), 'pairs_per_part': per_part}))
  _claim(folder, fingerprint)
  done = processes.gather([_path(folder, i).exists()
                           for i in range(count)])[0]
  found: dict[str, Sides] = {}
  for i in metrics.progress(range(count), label):
    some = pairs[i * per_part:(i + 1) * per_part]
    if done[i]:
      values = _read(_path(folder, i), some)
    else:
      values = [sides for first in range(0, len(some), per_call)
                for sides in score(some[first:first + per_call])]
      if jax.process_index() == 0:
        _write(_path(folder, i), values)
    found |= {pair.id: sides
              for pair, sides in zip(some, values, strict=True)}
  processes.meet()  # nobody starts before all of it is on disk
  return found


def checksum(params) -> str:
  """Of every bit of the parameters, whatever devices hold them.

  Sums of bit patterns, modulo 2³², weighted by odd numbers that differ from
  place to place: exact integers, so their order does not matter.
  """
  leaves = jax.tree_util.tree_leaves_with_path(params)
  sums = jax.device_get(_sums([leaf for _, leaf in leaves]))
  text = '\n'.join(
      f'{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype} {int(value)}'
      for (path, leaf), value in zip(leaves, sums, strict=True))
  return f'{zlib.crc32(text.encode()):08x}'


@jax.jit
def _sums(leaves):
  return [_sum_of_bits(leaf) for leaf in leaves]


def _sum_of_bits(x):
  size = jnp.dtype(x.dtype).itemsize
  bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f'uint{8 * min(size, 4)}'))
  bits = bits.astype(jnp.uint32)
  place = jnp.zeros(bits.shape, jnp.uint32)
  for axis, length in enumerate(bits.shape):
    place = place * jnp.uint32(length % 2 ** 32) + (
        jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis))
  mixed = (place * jnp.uint32(2654435761)) | jnp.uint32(1)
  return jnp.sum(bits * mixed, dtype=jnp.uint32)


def _claim(folder, fingerprint):
  """Makes the folder that of these scores, or says what else it is of."""
  path = folder / _FINGERPRINT
  saved = json.loads(path.read_text()) if path.exists() else None
  processes.meet()  # before it is written, all have read
  if saved is None:
    if jax.process_index() == 0:
      folder.mkdir(parents=True, exist_ok=True)
      _replace(path, json.dumps(fingerprint, indent=1).encode())
    return
  differing = checkpoint.differences(saved, fingerprint, 'there', 'now')
  if differing:
    raise ValueError(
        f'Expected log-probabilities of this model and these pairs in {folder}'
        ', but they are of others:\n' + '\n'.join(differing) + '\nGive this '
        'run those settings, or another folder; or delete that folder to have '
        'them scored anew.')


def _path(folder, part: int) -> pathlib.Path:
  return folder / f'{part:05d}.npz'


def _write(path, values):
  flat = {name: np.concatenate([sides[i] for sides in values])
          for i, name in enumerate(('chosen', 'rejected'))}
  temporary = _temporary(path)
  with temporary.open('wb') as file:
    np.savez(file, **flat)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def _read(path, pairs) -> list[Sides]:
  ends = {side: np.cumsum([len(getattr(pair, side)) for pair in pairs])
          for side in ('chosen', 'rejected')}
  damage = None
  try:
    with np.load(path) as file:
      flat = {side: file[side] for side in ends}
    damage = next((f'{len(flat[side])} numbers instead of {end[-1]}'
                   for side, end in ends.items()
                   if len(flat[side]) != end[-1]), None)
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    damage = f'a file that cannot be read ({error})'
  if damage:
    raise ValueError(f'Expected the log-probabilities of {len(pairs)} pairs in '
                     f'{path}, got {damage}. Delete it to have them scored '
                     'again.')
  split = {side: np.split(flat[side], end[:-1]) for side, end in ends.items()}
  return list(zip(split['chosen'], split['rejected'], strict=True))


def _replace(path, data: bytes):
  temporary = _temporary(path)
  temporary.write_bytes(data)
  os.replace(temporary, path)


def _temporary(path):
  """A name of its own: another run may write the same into a shared folder."""
  return path.with_suffix(f'.{uuid.uuid4().hex}.tmp')
