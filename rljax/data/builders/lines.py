"""JSONL files checked line by line, and their split into held-out parts.

A file may be gzipped (`.gz`), or an array_record file (`.array_record`) whose
records are the lines.

Every error names the file, the line and the field. Lines with the same prompt
always go to the same split, so no prompt of the test split is in training.
"""
from __future__ import annotations

import gzip
import json
import os
import pathlib
from typing import Any
from typing import Iterable
from typing import Iterator
from typing import Sequence

from array_record.python import array_record_module
import numpy as np

_AT_ONCE = 1024  # records read together


def read(
    path: str | pathlib.Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    lists: Sequence[str] = (),
) -> list[tuple[int, dict[str, Any]]]:
  """Objects of text fields with their line numbers; empty lines are skipped.

  Args:
    path: of the file.
    required: fields that each object must have.
    optional: fields that it may have.
    lists: those of the optional ones that are lists of texts.
  """
  return [(number, _checked(row, f'{path}, line {number}', required, optional,
                            lists)) for number, row in objects(path)]


def objects(path: str | pathlib.Path) -> list[tuple[int, dict[str, Any]]]:
  """Objects with their line numbers; empty lines are skipped."""
  rows = list(stream(path))
  if not rows:
    raise ValueError(f'Expected at least one record in {path}, got an empty '
                     'file; give a file with records in it.')
  return rows


def stream(path: str | pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
  """As `objects`, one at a time, of a file that may be empty."""
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f'Expected a JSONL file, got {str(path)!r}, which is not '
                     'a file; correct the path.')
  for number, line in enumerate(_lines(path), start=1):
    if line.strip():
      yield number, _row(line, f'{path}, line {number}')


def write_array_record(path: str | pathlib.Path,
                       rows: Iterable[dict[str, Any]]) -> None:
  """One record for each object, as JSON; under another name, then renamed."""
  beside = f'{path}.tmp'
  writer = array_record_module.ArrayRecordWriter(beside, 'group_size:1')
  for row in rows:
    writer.write(json.dumps(row, ensure_ascii=False).encode())
  writer.close()
  os.replace(beside, path)


def _lines(path: pathlib.Path) -> Iterator[bytes]:
  if path.suffix == '.array_record':
    reader = array_record_module.ArrayRecordReader(str(path))
    count = reader.num_records()
    for begin in range(0, count, _AT_ONCE):
      yield from reader.read(begin, min(begin + _AT_ONCE, count))
    reader.close()
    return
  with (gzip.open if path.suffix == '.gz' else open)(path, 'rb') as file:
    yield from file


def split(
    rows: Sequence[dict[str, Any]],
    key: str,
    *,
    validation_size: int,
    test_size: int,
    seed: int,
) -> dict[str, list[dict[str, Any]]]:
  """Holds out whole prompts, drawn by the seed; the order is kept."""
  prompts = list(dict.fromkeys(row[key] for row in rows))
  held_out = validation_size + test_size
  if held_out and held_out >= len(prompts):
    raise ValueError(
        f'Expected fewer held-out prompts than the {len(prompts)} different '
        f'ones, got {validation_size} + {test_size}; hold out fewer, or give a '
        'file with more prompts.')
  drawn = np.random.default_rng([seed]).permutation(len(prompts))
  place = {}
  for rank, index in enumerate(drawn):
    place[prompts[index]] = ('test' if rank < test_size else
                             'validation' if rank < held_out else 'train')
  parts = {'train': [], 'validation': [], 'test': []}
  for row in rows:
    parts[place[row[key]]].append(row)
  return {name: part for name, part in parts.items() if part}


def check_disjoint(
    train: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]], key: str
) -> None:
  """Refuses a test file that shares prompts with the training file."""
  both = {row[key] for row in train} & {row[key] for row in test}
  if both:
    raise ValueError(
        f'Expected no test {key} in the training file, got {len(both)} in both '
        f'(one is {min(both)[:80]!r}); remove them from one file.')


def _row(line: bytes, where: str) -> dict[str, Any]:
  try:
    row = json.loads(line.decode('utf-8'))
  except ValueError as error:  # of the JSON, or of the UTF-8
    raise ValueError(
        f'Expected a JSON object in {where}, got text that cannot be read '
        f'({error}); repair or remove the line.') from error
  if not isinstance(row, dict):
    raise ValueError(f'Expected a JSON object in {where}, got '
                     f'{type(row).__name__}; write one object a line.')
  return row


def _checked(row: dict[str, Any], where: str, required, optional,
             lists) -> dict[str, Any]:
  for field in required:
    if field not in row:
      raise ValueError(f'Expected the field {field!r} in {where}, got '
                       f'{sorted(row)}; add it.')
  for field, value in row.items():
    if field not in (*required, *optional):
      raise ValueError(
          f'Expected only the fields {[*required, *optional]} in {where}, got '
          f'{field!r}; correct its name or remove it.')
    if field in lists:
      if not isinstance(value, list) or not value or not all(
          map(_is_text, value)):
        raise ValueError(f'Expected a list of non-empty texts in the field '
                         f'{field!r} of {where}, got {value!r}; write strings '
                         'in brackets.')
    elif not _is_text(value):
      raise ValueError(f'Expected non-empty text in the field {field!r} of '
                       f'{where}, got {value!r}; write it as a string.')
  return row


def _is_text(value) -> bool:
  return isinstance(value, str) and bool(value.strip())
