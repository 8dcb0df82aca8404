"""Fields of a line of preferences: read, or refused by file, line and field."""
from __future__ import annotations

from typing import Any

import numpy as np

Row = dict[str, Any]


def prompt(value, field, where) -> list[Row]:
  """A text is one message of the user."""
  if isinstance(value, str):
    if not value.strip():
      raise ValueError(f'Expected non-empty text in the field {field!r} of '
                       f'{where}, got {value!r}; write the prompt.')
    return [{'role': 'user', 'content': value}]
  found = messages(value, field, where)
  if found[-1]['role'] == 'assistant':
    raise ValueError(
        f'Expected the field {field!r} of {where} to end before a turn of the '
        'assistant, got one at its end; move it into the responses, or, where '
        "it is the steps of an answer, read the file as 'steps'.")
  return found


def begun(value, field, where) -> tuple[str | list[Row], str]:
  """A prompt without the turn of the assistant that it ends with, and that."""
  if isinstance(value, str):
    return value, ''
  found = messages(value, field, where)
  if found[-1]['role'] != 'assistant':
    return found, ''
  return found[:-1], found[-1]['content']


def response(row, field, where) -> str:
  """A text, or a list of one message of the assistant."""
  if isinstance(row[field], str):
    return row[field]
  found = messages(row[field], field, where)
  check_role(found, 'assistant', field, where)
  if len(found) > 1:
    raise ValueError(
        f'Expected one message in the field {field!r} of {where}, got '
        f"{len(found)}; move the others into 'prompt', or read the file as "
        "'ultrafeedback'.")
  return found[0]['content']


def messages(value, field, where) -> list[Row]:
  good = (isinstance(value, list) and value and all(
      isinstance(one, dict) and set(one) == {'role', 'content'}
      and all(isinstance(text, str) for text in one.values())
      for one in value))
  if not good:
    raise ValueError(
        f"Expected a list of messages, each with texts 'role' and 'content', "
        f'in the field {field!r} of {where}, got {str(value)[:80]!r}; correct '
        'the line.')
  return value


def check_role(found, role, field, where):
  if found[-1]['role'] != role:
    raise ValueError(
        f'Expected the field {field!r} of {where} to end with a message of '
        f"the {role}, got one of {found[-1]['role']!r}; correct the line.")


def check_fields(row, where, required, optional=()):
  for field in required:
    check_has(row, field, where)
  unknown = sorted(set(row) - {*required, *optional})
  if unknown:
    raise ValueError(
        f'Expected only the fields {[*required, *optional]} in {where}, got '
        f'{unknown[0]!r}; correct its name, remove it, or read the file in '
        'another form.')


def check_has(row, field, where):
  if field not in row:
    raise ValueError(f'Expected the field {field!r} in {where}, got '
                     f'{sorted(row)}; add it, or read the file in another '
                     'form.')


def list_of(row, field, where) -> list:
  if not isinstance(row[field], list):
    raise ValueError(f'Expected a list in the field {field!r} of {where}, got '
                     f'{str(row[field])[:80]!r}; correct the line.')
  return row[field]


def text(row, field, where) -> str:
  return as_text(row[field], field, where)


def as_text(value, field, where) -> str:
  if not isinstance(value, str):
    raise ValueError(f'Expected text in the field {field!r} of {where}, got '
                     f'{str(value)[:80]!r}; write it as a string.')
  return value


def number(row, field, where) -> float:
  value = row[field]
  if isinstance(value, bool) or not isinstance(value, (int, float)) or (
      not np.isfinite(value)):
    raise ValueError(f'Expected a number in the field {field!r} of {where}, '
                     f'got {value!r}; correct the line.')
  return float(value)


def flag(row, field, where) -> bool:
  if not isinstance(row[field], bool):
    raise ValueError(f'Expected true or false in the field {field!r} of '
                     f'{where}, got {row[field]!r}; correct the line.')
  return row[field]


def domain(row, where) -> str:
  return text(row, 'domain', where) if 'domain' in row else 'preference'


def own_id(row, where) -> Row:
  return {'id': text(row, 'id', where)} if 'id' in row else {}
