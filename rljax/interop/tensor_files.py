"""Safetensors files, read and written some rows at a time.

  8 bytes n | n bytes of JSON: name -> dtype, shape, [begin, end) | the data

Plain reads, no memory map: what has been read and used is not kept by anyone,
so the memory in use is that of the rows at hand.

Reference: the format's own description, in the safetensors repository.
"""
from __future__ import annotations

import json
import math
import operator
import pathlib
from typing import NamedTuple

import ml_dtypes
import numpy as np

INDEX = 'model.safetensors.index.json'
SINGLE = 'model.safetensors'
DTYPES = {'F32': np.dtype(np.float32), 'F16': np.dtype(np.float16),
          'BF16': np.dtype(ml_dtypes.bfloat16)}
_INTEGERS = {'I64': np.dtype(np.int64)}  # tables that old files have as well
_MAX_HEADER = 100 << 20


class Entry(NamedTuple):
  """Where a tensor is."""
  path: pathlib.Path
  offset: int
  dtype: np.dtype
  shape: tuple[int, ...]


class Folder:
  """The tensors of a checkpoint, in one file or in several with an index."""

  def __init__(self, folder):
    folder = pathlib.Path(folder)
    files = _files(folder)
    self.entries: dict[str, Entry] = {}
    for path, expected in files.items():
      found = _header(path)
      absent = sorted((expected or set()) - set(found))
      if absent:
        raise ValueError(f'Expected {absent[:3]} in {path}, as {INDEX} says, '
                         'found nothing. Fetch the file again.')
      twice = sorted(set(found) & set(self.entries))
      if twice:
        raise ValueError(f'Expected each tensor once in {folder}, got '
                         f'{twice[:3]} twice. Fetch the folder again.')
      self.entries |= found

  def shapes(self) -> dict[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in self.entries.items()}

  def read(self, name: str, first: int, rows: int) -> np.ndarray:
    """Rows of a tensor, in its own dtype."""
    entry = self.entries[name]
    width = math.prod(entry.shape[1:])
    size = entry.dtype.itemsize
    data = np.fromfile(entry.path, entry.dtype, count=rows * width,
                       offset=entry.offset + first * width * size)
    if data.size != rows * width:  # cut while we read
      raise ValueError(f'Expected {rows} rows of {name} in {entry.path}, found '
                       'fewer. Fetch the file again.')
    return data.reshape(rows, *entry.shape[1:])

  def dtype(self) -> str:
    """The type of most tensors: 'float32', 'float16' or 'bfloat16'."""
    kinds = [entry.dtype.name for entry in self.entries.values()]
    return max(sorted(set(kinds)), key=kinds.count)


def _files(folder) -> dict[pathlib.Path, set[str] | None]:
  """Files and, where an index tells, the tensors that each must hold."""
  index, single = folder / INDEX, folder / SINGLE
  if not index.is_file():
    if single.is_file():
      return {single: None}
    raise ValueError(f'Expected {SINGLE} or {INDEX} in {folder}, found '
                     f'{sorted(x.name for x in folder.glob("*"))[:8]}. Fetch '
                     'the weights, or convert them to safetensors.')
  try:
    places = json.loads(index.read_text(encoding='utf-8'))['weight_map']
    files: dict[pathlib.Path, set[str]] = {}
    for name, file in places.items():
      files.setdefault(folder / pathlib.Path(file).name, set()).add(name)
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f'Expected a weight_map in {index}, got {error!r}. Fetch '
                     'the file again.') from error
  absent = sorted(path.name for path in files if not path.is_file())
  if absent:
    raise ValueError(
        f'Expected {len(files)} files in {folder}, as {INDEX} says, but '
        f'{", ".join(absent)} is missing. Fetch it.')
  return files


def _header(path: pathlib.Path) -> dict[str, Entry]:
  """The entries of a file whose size is what they say."""
  size = path.stat().st_size
  with path.open('rb') as file:
    length = int.from_bytes(file.read(8), 'little')
    if size < 8 or not 2 <= length <= min(size - 8, _MAX_HEADER):
      raise ValueError(f'Expected a safetensors file, got {path} of {size} '
                       'bytes, whose header is cut or not one. Fetch it again.')
    raw = file.read(length)
  try:
    header = json.loads(raw)
    header.pop('__metadata__', None)
    parsed = {name: (item['dtype'], [operator.index(n) for n in item['shape']],
                     *_two(item['data_offsets']))
              for name, item in header.items()}
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise ValueError(f'Expected a safetensors header in {path}, got '
                     f'{error!r}. Fetch the file again.') from error
  entries = {name: _entry(path, 8 + length, name, *item)
             for name, item in parsed.items()}
  end = 0
  for name, (_, _, begin, next_end) in sorted(
      parsed.items(), key=lambda item: item[1][2:]):
    if begin != end:
      raise ValueError(f'Expected {name} in {path} to begin where the tensor '
                       f'before it ends, at byte {end}, got {begin}. Fetch '
                       'the file again.')
    end = next_end
  if size != 8 + length + end:
    raise ValueError(f'Expected {8 + length + end} bytes in {path}, got '
                     f'{size}: the file is cut or damaged. Fetch it again.')
  return entries


def _two(offsets) -> tuple[int, int]:
  begin, end = map(operator.index, offsets)
  return begin, end


def _entry(path, data: int, name: str, kind: str, shape: list[int], begin: int,
           end: int) -> Entry:
  kinds = DTYPES | _INTEGERS
  if kind not in kinds:
    raise ValueError(f'Expected {name} in {path} to be one of {sorted(DTYPES)},'
                     f' got {kind}. Use a checkpoint that is not quantised.')
  dtype = kinds[kind]
  if (end - begin != math.prod(shape) * dtype.itemsize or begin < 0
      or min(shape, default=0) < 0):
    raise ValueError(f'Expected {name} in {path}, {shape} of {kind}, to fill '
                     f'its bytes {begin} to {end}. Fetch the file again.')
  return Entry(path, data + begin, dtype, tuple(shape))


class Writer:
  """Writes tensors in the order given, in files of some size, and an index.

  Use it as a context manager; `write` appends rows to the tensor that is next.
  """

  def __init__(self, folder, shapes: dict[str, tuple[int, ...]], dtype: str,
               max_file_bytes: int):
    self._folder = pathlib.Path(folder)
    code, = [code for code, kind in DTYPES.items() if kind.name == dtype]
    self.dtype = DTYPES[code]
    self._code = code
    self._plan = _plan(shapes, self.dtype.itemsize, max_file_bytes)
    self._shapes, self._file, self._left = shapes, None, 0

  def __enter__(self) -> Writer:
    count = len(self._plan)
    self._queue = [(SINGLE if count == 1 else
                    f'model-{i + 1:05d}-of-{count:05d}.safetensors', group)
                   for i, group in enumerate(self._plan)]
    if count > 1:
      places = {name: file for file, group in self._queue for name in group}
      total = sum(math.prod(shape) for shape in self._shapes.values())
      (self._folder / INDEX).write_text(json.dumps(
          {'metadata': {'total_size': total * self.dtype.itemsize},
           'weight_map': places}, indent=1))
    return self

  def write(self, rows: np.ndarray):
    """The next rows of the next tensor."""
    if not self._left:
      self._open()
    data = np.ascontiguousarray(rows, self.dtype)
    data.tofile(self._file)
    self._left -= data.nbytes

  def _open(self):
    if self._file is not None:
      self._file.close()
    file, group = self._queue.pop(0)
    header, begin = {'__metadata__': {'format': 'pt'}}, 0
    for name in group:
      shape = self._shapes[name]
      end = begin + math.prod(shape) * self.dtype.itemsize
      header[name] = {'dtype': self._code, 'shape': list(shape),
                      'data_offsets': [begin, end]}
      begin = end
    raw = json.dumps(header, separators=(',', ':')).encode()
    raw += b' ' * (-len(raw) % 8)  # the data begins at a multiple of 8
    self._file = (self._folder / file).open('wb')
    self._file.write(len(raw).to_bytes(8, 'little') + raw)
    self._left = begin

  def __exit__(self, kind, *unused):
    if self._file is not None:
      self._file.close()
    if kind is None and (self._left or self._queue):
      raise ValueError('Expected all tensors to be written, got fewer.')


def _plan(shapes, itemsize: int, max_file_bytes: int) -> list[list[str]]:
  """Names by file, filled in order."""
  plan, filled = [[]], 0
  for name, shape in shapes.items():
    size = math.prod(shape) * itemsize
    if plan[-1] and filled + size > max_file_bytes:
      plan.append([])
      filled = 0
    plan[-1].append(name)
    filled += size
  return plan
