r"""Chooses problems to train on, by Ring-lite's rules; counts every drop.

  python -m experiments.curate --input='data/raw/*.jsonl' \
      --benchmark=aime24=data/aime24.jsonl --student=policy --teacher=r1 \
      --workdir=runs/curation

Lines, or the records of array_record files, are {prompt, answer, domain?,
attempts?, ...}: `rljax/data/curation.py`. `attempts` are responses by model;
with --student and --teacher named among them, problems always or never solved
are dropped. Writes `curated.jsonl`, or `curated.array_record` (--form), which
`common.jsonl(...)` reads, `annotations.jsonl` and `report.json`. The same
command goes on where it was stopped. What follows `--` goes to Beam:
`-- --runner=DataflowRunner --project=...`.

Runs in an environment of its own, which `make curation` makes.
"""
from __future__ import annotations

from absl import app
from absl import flags

from rljax.data import curation
from rljax.data import curation_pipeline

_INPUT = flags.DEFINE_multi_string('input', None, 'Files or patterns.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the stages.')
_BENCHMARK = flags.DEFINE_multi_string(
    'benchmark', [], '<name>=<file>, whose problems must not be trained on.')
_EMBED = flags.DEFINE_string(
    'embed', '', '<module>:<function> from texts to unit vectors.')
_STUDENT = flags.DEFINE_string('student', '', 'Model to be trained.')
_TEACHER = flags.DEFINE_string('teacher', '', 'Model that can do more.')
_SIMILARITY = flags.DEFINE_float(
    'similarity', 0.8, 'Jaccard similarity of near duplicates.')
_NGRAM = flags.DEFINE_integer('ngram', 10, 'Words in common with a benchmark.')
_COSINE = flags.DEFINE_float(
    'cosine', 0.9, 'Of embeddings, from which a text is that of a benchmark.')
_FORM = flags.DEFINE_enum(
    'form', 'jsonl', curation_pipeline.FORMS, 'Of the file of what is kept.')
_TIMEOUT = flags.DEFINE_float('timeout', 5.0, 'Seconds for one comparison.')


def main(arguments):
  unnamed = [text for text in _BENCHMARK.value if '=' not in text]
  if unnamed:
    raise app.UsageError(f'expected --benchmark=<name>=<file>, got {unnamed}')
  report = curation_pipeline.run(
      _INPUT.value, _WORKDIR.value, curation.Rules(
          similarity=_SIMILARITY.value, ngram=_NGRAM.value,
          cosine=_COSINE.value,
          student=_STUDENT.value, teacher=_TEACHER.value),
      benchmarks=dict(text.split('=', 1) for text in _BENCHMARK.value),
      embed=_EMBED.value, form=_FORM.value, grading_timeout=_TIMEOUT.value,
      runner=arguments[1:])
  print(f'   kept {report["kept"]} of {report["read"]}: '
        f'{_WORKDIR.value}/curated.{_FORM.value}')


if __name__ == '__main__':
  flags.mark_flags_as_required(['input', 'workdir'])
  app.run(main)
