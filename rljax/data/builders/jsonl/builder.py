"""A user's own problems: JSONL of {prompt, answer, domain?, id?}.

Answers are judged by the verifier named for the whole file. SFT learns from the
field `solution`, the whole response as it should be written.

With the verifier `choice` a line has `options`, a list of texts, and its answer
is the letter of the right one; the options are written under the prompt, in an
order drawn for each line. A line that also has a solution keeps its order,
because the solution may name the letter.

`hint_prompt` is a whole prompt that may be asked where all answers to the
prompt itself are wrong (`experiments.policy.guided`).
"""
from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import string

import tensorflow_datasets as tfds

from rljax.data import multiple_choice
from rljax.data.builders import lines
from rljax.data.builders import storage

REQUIRED = ('prompt', 'answer')
OPTIONAL = ('domain', 'hint_prompt', 'id', 'options', 'solution')
_REVISION = 3  # raise it when the records made of a file change


@dataclasses.dataclass
class JsonlConfig(tfds.core.BuilderConfig):
  parts: dict = dataclasses.field(default_factory=dict)


class Builder(tfds.core.GeneratorBasedBuilder):
  """Writes the records that `make_builder` has read and checked."""
  name = 'jsonl'
  VERSION = tfds.core.Version('1.0.0')
  url_infos = None  # no checksums: looking for them needs an undeclared package

  def _info(self):
    return storage.info(self, 'Problems of a JSONL file.')

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing is downloaded
    parts = self.builder_config.parts
    return {name: self._generate_examples(part) for name, part in parts.items()}

  def _generate_examples(self, records):
    return storage.with_keys(records)


def make_builder(
    data_dir: str,
    *,
    path: str,
    verifier: str = 'math',
    domain: str = 'math',
    validation_size: int = 0,
    test_size: int = 0,
    seed: int = 0,
) -> tfds.core.DatasetBuilder:
  """A builder of one file; `domain` is for lines that name none."""
  allowed = [v for v in storage.VERIFIERS if v not in ('generator', 'code')]
  if verifier not in allowed:
    raise ValueError(f'Expected a verifier among {allowed}, got {verifier!r}; '
                     'choose the one that reads the answers of the file.')
  numbered = lines.read(path, REQUIRED, OPTIONAL, lists=('options',))
  for number, row in numbered:
    row.setdefault('id', f'jsonl-{number:06d}')
    row['file_line'] = f'{path}, line {number}'
    _check_options(row, verifier)
  rows = [row for _, row in numbered]
  storage.check_ids(rows, path)
  sizes = dict(validation_size=validation_size, test_size=test_size, seed=seed)
  split = lines.split(rows, 'prompt', **sizes)
  parts = {name: [_record(row, verifier, domain, seed) for row in part]
           for name, part in split.items()}
  content = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
  name = storage.digest(dict(sizes, path=str(path), content=content,
                             verifier=verifier, domain=domain,
                             revision=_REVISION))
  return storage.create(Builder, data_dir, JsonlConfig(name=name, parts=parts))


def _check_options(row, verifier):
  """Options where, and only where, the verifier reads them."""
  options, where = row.get('options'), row['file_line']
  if (options is not None) != (verifier == 'choice'):
    raise ValueError(
        f"Expected the field 'options' with verifier='choice' and with no "
        f'other, got {options!r} and {verifier!r} in {where}; correct the '
        'line, or name the verifier of the file.')
  if options is None:
    return
  letters = string.ascii_uppercase[:len(options)]
  if not 2 <= len(options) <= 26 or len(set(options)) < len(options):
    raise ValueError(f"Expected 2 to 26 different texts in the field 'options' "
                     f'of {where}, got {options}; correct them.')
  if len(row['answer']) != 1 or row['answer'] not in letters:
    raise ValueError(
        f"Expected one of the letters {letters} in the field 'answer' of "
        f'{where}, got {row["answer"]!r}; write the letter of the right '
        'option.')


def _record(row, verifier, domain, seed):
  metadata = {key: row[key] for key in ('file_line', 'hint_prompt', 'options')
              if key in row}
  record = {'id': row['id'], 'prompt': row['prompt'], 'answer': row['answer'],
            'domain': row.get('domain', domain), 'family': 'jsonl',
            'difficulty': 0, 'verifier': verifier,
            'solution': row.get('solution', ''),
            'metadata': json.dumps(metadata)}
  if 'options' not in row:
    return record
  return multiple_choice.letter_options(
      record, None if 'solution' in row else seed)
