r"""Preferences from local files: which of two responses was chosen.

Records are dictionaries:

  pair    id, prompt, chosen, rejected, margin, domain, file_line; and, where
          the file says so, chosen_ends, rejected_ends
  label   a pair with one of its responses; '' stands for the other
  step    a pair with `steps`, the text with which its answer begins, or ''
  list    id, prompt, responses, domain, file_line

A prompt is a list of messages, a response the text of the assistant's next
message. A list has its responses best first (Plackett-Luce), or is two of which
nobody has said which is better. A margin is by how much the chosen one is
better, in whatever unit the file has; None where it does not say. A response
that was cut off does not end: no stop token is learnt behind it. Nor does a
step (`data.ends=False`), which goes on where the turn of the assistant breaks
off, with no sign in between. Steps of one question are held out together.

| form | a line |
|---|---|
| hh_rlhf | chosen, rejected: dialogues `\n\nHuman: ...\n\nAssistant: ...` |
| ultrafeedback | prompt; chosen, rejected: lists of messages; score_* |
| ultrafeedback_raw | instruction; completions, each with a score |
| reward_bench | prompt, chosen, rejected, subset, id |
| jsonl | prompt (text or messages), chosen, rejected, id, margin, domain |
| steps | as jsonl; the prompt may end with a turn of the assistant |
| labels | prompt, response, label: true for a good one, id, domain |
| ranked | prompt, responses best first, id, domain |
| unlabeled | prompt, two responses, id, domain |

A line that cannot be read stops with file, line and field. One that can, but
from which nothing true can be learnt (see REASONS), stops as well, or is left
out and counted.

Reference: HH-RLHF (arXiv 2204.05862); UltraFeedback (arXiv 2310.01377) and its
binarised form (arXiv 2310.16944); RewardBench (arXiv 2403.13787).
"""
from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib
import json
import pathlib
from typing import Any
from typing import NamedTuple
import zlib

import numpy as np

from rljax.data import preference_forms as forms
from rljax.data import sources
from rljax.data.builders import lines

Record = dict[str, Any]
REASONS = forms.REASONS
LISTS = ('ranked', 'unlabeled')  # forms whose records have `responses`


@dataclasses.dataclass(frozen=True)
class File:
  """The records of one file, and how many lines were left out, and why."""
  name: str                   # of what was read; kept in checkpoints
  records: tuple[Record, ...]
  dropped: Mapping[str, int]  # reason -> lines; all of REASONS


class Parts(NamedTuple):
  """What a source gives to train on and to hold out."""
  name: str                   # of all that was read; kept in checkpoints
  train: list[Record]
  held_out: list[Record]
  dropped: Mapping[str, int]  # reason -> lines left out


def read(
    path: str | pathlib.Path,
    form: str,
    *,
    unfit: str = 'fail',
    seed: int = 0,
    other: str = 'worst',
    score: str = 'overall_score',
) -> File:
  """Reads a file of one of the forms above; it may be gzipped.

  Args:
    path: of the file.
    form: how its lines are written.
    unfit: 'fail' at the first line that nothing can be learnt from, or 'drop'
      to leave such lines out and count them.
    seed: of the draws of `other`.
    other: for ultrafeedback_raw: what the best completion is set against, the
      'worst', or a 'random' one that scores less.
    score: for ultrafeedback_raw: the field to compare completions by.

  Raises:
    ValueError: an unreadable line, an unknown form or option, an id that
      occurs twice, or no line left.
  """
  for name, got, known in (('form', form, sorted(forms.PARSERS)),
                           ('unfit', unfit, ['drop', 'fail']),
                           ('other', other, ['random', 'worst'])):
    if got not in known:
      raise ValueError(
          f'Expected {name} among {known}, got {got!r}; correct it.')
  options = forms.Options(seed=seed, other=other, score=score)
  records, dropped = [], dict.fromkeys(REASONS, 0)
  for number, row in lines.objects(path):
    where = f'{path}, line {number}'
    try:
      record = forms.PARSERS[form](row, where, options)
    except forms.Unfit as found:
      if unfit == 'fail':
        raise ValueError(
            f'{where}: {found}; correct or remove the line, or leave such '
            "lines out with unfit='drop'.") from found
      dropped[found.reason] += 1
      continue
    record.setdefault('id', f'{form}-{number:06d}')
    records.append(record | {'file_line': where})
  _check(records, path, dropped)
  content = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()[:16]
  name = f'{form}/{content}/{other}-{score}-{seed}' if (
      form == 'ultrafeedback_raw') else f'{form}/{content}'
  return File(name, tuple(records), dropped)


def open_files(
    *,
    path: str,
    form: str,
    held_out: int,
    test_path: str | None = None,
    unfit: str = 'fail',
    seed: int = 0,
    other: str = 'worst',
    score: str = 'overall_score',
) -> Parts:
  """Training records of a file, and held-out ones of it or of another file.

  Args:
    path: of the file to train on.
    form: of both files.
    held_out: prompts of that file to hold out; 0 with a `test_path`.
    test_path: a file to hold out.
    unfit: as in `read`.
    seed: of the prompts held out, and as in `read`.
    other: as in `read`.
    score: as in `read`.

  Raises:
    ValueError: as `read`; or held out twice or not at all, or a prompt in both.
  """
  if bool(held_out) == (test_path is not None):
    raise ValueError(
        'Expected either held_out > 0 or a test_path, got '
        f'{held_out} and {test_path!r}. Training has to be judged on pairs '
        'that it has not seen; set one of the two in data.source.')
  options = dict(form=form, unfit=unfit, seed=seed, other=other, score=score)
  train = read(path, **options)
  if test_path is None:
    parts = split(train.records, test_size=held_out, seed=seed)
    return Parts(train.name, parts['train'], parts['test'], train.dropped)
  test = read(test_path, **options)
  lines.check_disjoint(*([{'prompt': prompt_key(record)} for record in file]
                         for file in (train.records, test.records)), 'prompt')
  apart = [record | {'id': f'held_out/{record["id"]}'}
           for record in test.records]
  return Parts(
      train.name, list(train.records), apart,
      {name: train.dropped[name] + test.dropped[name] for name in REASONS})


def split(
    records: Sequence[Record],
    *,
    validation_size: int = 0,
    test_size: int = 0,
    seed: int = 0,
) -> dict[str, list[Record]]:
  """Holds out whole prompts: no prompt of one part is in another."""
  rows = [{'key': prompt_key(record), 'record': record} for record in records]
  parts = lines.split(rows, 'key', validation_size=validation_size,
                      test_size=test_size, seed=seed)
  return {name: [row['record'] for row in part] for name, part in parts.items()}


def prompt_key(record: Record) -> str:
  """A text that is equal for equal prompts."""
  return json.dumps(record['prompt'], sort_keys=True, ensure_ascii=False)


def source(name: str, records: Sequence[Any]) -> sources.Records:
  """What `pipeline.prompts` makes resumable batches of, shared out by host."""
  if not records:
    raise ValueError(f'Expected at least one record in {name}, got none; give '
                     'a file with pairs in it.')
  return sources.Records(name, tuple(records), tuple(range(len(records))),
                         decode=lambda record: record)


def chosen_first(record_id: str, seed: int) -> bool:
  """In which order a judge sees a pair: a fair coin of (seed, id) alone."""
  rng = np.random.default_rng([seed, zlib.crc32(record_id.encode())])
  return bool(rng.integers(2))


def in_order(record: Record, seed: int) -> tuple[str, str, bool]:
  """Both responses as a judge sees them, and whether the first was chosen."""
  first = chosen_first(record['id'], seed)
  texts = record['chosen'], record['rejected']
  return (*(texts if first else texts[::-1]), first)


def _check(records, path, dropped):
  if not records:
    raise ValueError(f'Expected at least one record in {path}, got none: '
                     f'{sum(dropped.values())} lines were left out '
                     f'({dropped}); give a file with pairs in it.')
  seen: dict[str, str] = {}
  for record in records:
    if record['id'] in seen:
      raise ValueError(
          f"Expected a different id on each line, got {record['id']!r} in "
          f"{seen[record['id']]} and in {record['file_line']}; rename one or "
          'leave ids out.')
    seen[record['id']] = record['file_line']
