"""Records by random access: built once on disk, or given in memory.

  open_source('reasoning_gym', data_dir, 'train', tasks=[('gcd', 1)], ...)

A folder of `builders/` is a data set; its `make_builder(data_dir, **options)`
says which options there are. A second call finds the finished files.
"""
from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
from typing import Any
from typing import Callable
from typing import Iterator
from typing import Sequence

from rljax.data import builders
from rljax.data.builders import storage

Record = dict[str, Any]
_FIELDS = {**dict.fromkeys(storage.TEXT_FIELDS, str), 'difficulty': int}


def _decode(row: dict[str, Any]) -> Record:
  """Text comes back from the files as bytes, numbers as NumPy scalars."""
  return {field: row[field].decode('utf-8')
          if isinstance(row[field], bytes) else kind(row[field])
          for field, kind in _FIELDS.items()}


@dataclasses.dataclass(frozen=True)
class Records:
  """A random-access sequence of records, or a part of one."""
  name: str                     # says which data this is; kept in checkpoints
  rows: Sequence[Any]           # records as stored; text may be bytes
  indices: tuple[int, ...]      # the rows that belong to the part
  decode: Callable[[Any], Record] = _decode

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, index: int) -> Record:
    return self.decode(self.rows[self.indices[index]])

  def __iter__(self) -> Iterator[Record]:
    return (self[i] for i in range(len(self)))

  def part(self, name: str, indices: Sequence[int]) -> Records:
    """The records at `indices` of this part."""
    kept = tuple(self.indices[i] for i in indices)
    return dataclasses.replace(
        self, name=f'{self.name}[{name}]', indices=kept)


def names() -> list[str]:
  """The data sets that there are."""
  return sorted(m.name for m in pkgutil.iter_modules(builders.__path__)
                if m.ispkg)


def open_source(name: str, data_dir: str, split: str, **options) -> Records:
  """Opens one split of a data set, building it first if it is not there."""
  if name not in names():
    raise ValueError(f'Expected a data set among {names()}, got {name!r}; '
                     'correct the name, or add a folder to '
                     'rljax/data/builders.')
  module = importlib.import_module(f'rljax.data.builders.{name}.builder')
  builder = storage.prepare(module.make_builder(data_dir, **options))
  if split not in builder.info.splits:
    raise ValueError(
        f'Expected a split among {sorted(builder.info.splits)} of {name!r}, '
        f'got {split!r}; correct it, or give that split a size above 0.')
  rows = builder.as_data_source(split=split)
  storage.check_not_empty(rows, f'{name}/{split}')
  return Records(f'{name}/{builder.builder_config.name}/{split}', rows,
                 tuple(range(len(rows))))


def from_records(name: str, records: Sequence[Record]) -> Records:
  """Records held in memory."""
  storage.check_not_empty(records, name)
  for i, record in enumerate(records):
    if set(record) != set(_FIELDS):
      raise ValueError(
          f'Expected the fields {sorted(_FIELDS)}, got {sorted(record)} in '
          f'record {i} of {name!r}; add or remove fields.')
  return Records(name, tuple(records), tuple(range(len(records))))


def describe(record: Record) -> str:
  """The id, and the line of the file that the record was read from."""
  line = json.loads(record['metadata']).get('file_line')
  return repr(record['id']) + (f' ({line})' if line else '')


def hint_prompt(record: Record) -> str:
  """The prompt that may take the place of its own where all fail, or ''."""
  return json.loads(record['metadata'] or '{}').get('hint_prompt', '')
