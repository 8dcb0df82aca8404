"""The rules of `curation` over files, as Apache Beam pipelines.

  clean -> exact -> near -> benchmarks -> answers -> rates -> curated.jsonl

Each arrow is a pipeline from files to files in a folder of its own, with what
it keeps and what it drops, and why. A finished one (`done.json`) is not run
again: a run that was stopped goes on there. The same code runs on any runner
that Beam has; nothing is held in memory but a group of candidates, the
benchmarks and, at the end, what is kept.

Needs the extra [curation]; imports neither jax nor tensorflow before an answer
is to be graded.
"""
from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import glob
import hashlib
import importlib
import itertools
import json
import os
import pathlib
import shutil

import apache_beam as beam
from apache_beam.options import pipeline_options

from rljax.data import curation
from rljax.data.builders import lines

STAGES = ('clean', 'exact', 'near', 'benchmarks', 'answers', 'rates')
FORMS = ('jsonl', 'array_record')
_DONE = 'done.json'


def run(inputs: Sequence[str], folder: str | pathlib.Path,
        rules: curation.Rules, *,
        benchmarks: Mapping[str, str] | None = None, embed: str = '',
        form: str = 'jsonl', grading_timeout: float = 5.0,
        runner: Sequence[str] = (), say: Callable[[str], None] = print) -> dict:
  """Runs the stages that are not done; returns the report.

  Args:
    inputs: files or patterns of them: JSONL, gzipped or not, or array_record.
    folder: gets a folder for each stage, `curated.<form>`, `annotations.jsonl`
      and `report.json`.
    rules: what to drop.
    benchmarks: name -> JSONL file of {prompt} or {question}.
    embed: `module:function` from texts to an array of unit vectors, to compare
      with the benchmarks' by cosine; '' compares words only.
    form: of what is kept: 'jsonl', or 'array_record' with a JSON object each.
    grading_timeout: seconds for one comparison.
    runner: options of Beam, e.g. `--runner=DataflowRunner`.
    say: is told what each stage did.

  Raises:
    ValueError: no file, a line that is no problem, or a folder that was begun
      with other files or rules.
  """
  if form not in FORMS:
    raise ValueError(f'Expected a form among {FORMS}, got {form!r}.')
  folder = pathlib.Path(folder).expanduser().resolve()
  files = sorted(itertools.chain.from_iterable(map(glob.glob, inputs)))
  if not files:
    raise ValueError(f'Expected input files, but nothing matches '
                     f'{list(inputs)}. Correct the paths.')
  indices = {name: _prompts(path) for name, path in (benchmarks or {}).items()}
  _claim(folder, _settings(files, indices, rules, embed))
  transforms = {
      'clean': _clean(rules), 'exact': _exact, 'near': _near(rules),
      'benchmarks': _benchmarks(indices, rules, embed),
      'answers': _answers(grading_timeout), 'rates': _rates(rules)}
  options = pipeline_options.PipelineOptions(list(runner))
  source, counts = files, {}
  for number, name in enumerate(STAGES):
    stage = folder / f'{number}_{name}'
    if not (stage / _DONE).exists():
      _run_stage(source, stage, transforms[name], options)
    counts[name] = json.loads((stage / _DONE).read_text())
    say(f'   {name}: kept {counts[name]["kept"]}, dropped '
        f'{counts[name]["dropped"] or "nothing"}')
    source = sorted(glob.glob(str(stage / 'kept*')))
  return _finish(folder, source, counts, rules, form)


def _run_stage(source, stage: pathlib.Path, transform, options):
  """One pipeline; writes beside, then renames."""
  begun = stage.with_suffix('.begun')
  shutil.rmtree(begun, ignore_errors=True)
  begun.mkdir(parents=True)
  with beam.Pipeline(options=options) as pipeline:
    problems = (pipeline | beam.Create(source) | beam.Reshuffle()
                | beam.FlatMap(_read))
    judged = transform(problems)  # (problem, reason or None)
    for name, wanted in (('kept', False), ('dropped', True)):
      (judged | f'only {name}' >> beam.Filter(
          lambda pair, wanted=wanted: (pair[1] is not None) == wanted)
       | f'lines {name}' >> beam.Map(_line)
       | f'write {name}' >> beam.io.WriteToText(
           str(begun / name), file_name_suffix='.jsonl'))
  dropped: dict[str, int] = {}
  for row in _rows(begun, 'dropped'):
    dropped[row['reason']] = dropped.get(row['reason'], 0) + 1
  kept = sum(1 for _ in _rows(begun, 'kept'))
  (begun / _DONE).write_text(json.dumps(dict(
      kept=kept, dropped=dict(sorted(dropped.items())))))
  shutil.rmtree(stage, ignore_errors=True)  # of a run without its mark
  os.replace(begun, stage)


def _read(path: str):
  """Problems of a file; reasons of an earlier stage are none of this one."""
  for number, row in lines.stream(path):
    rates = row.pop('pass_rates', None)
    problem = curation.parse(row, f'{path}, line {number}')
    yield problem if rates is None else problem | {'pass_rates': rates}


def _line(pair) -> str:
  problem, reason = pair
  return json.dumps(problem if reason is None else {
      'id': problem['id'], 'reason': reason}, ensure_ascii=False,
                    sort_keys=True)


def _clean(rules):
  return lambda problems: problems | beam.Map(
      lambda p: (p, curation.unclean(p, rules)))


def _exact(problems):
  """Of equal texts the smallest id stays; what stays has an id of its own."""
  def sort(pair):
    first, *others = sorted(pair[1], key=lambda p: (
        p['id'], json.dumps(p, sort_keys=True)))
    return [(first, None)] + [(p, 'duplicate') for p in others]

  return (problems
          | 'by text' >> beam.Map(
              lambda p: (curation.normalized(p['prompt']), p))
          | 'equal texts' >> beam.GroupByKey() | 'one' >> beam.FlatMap(sort)
          | 'by id' >> beam.Map(lambda pair: (pair[0]['id'], pair))
          | 'equal ids' >> beam.GroupByKey()
          | 'own ids' >> beam.FlatMap(lambda found: curation.own_ids(found[1])))


def _near(rules):
  """Problems that share a band are compared; then marked by id."""
  def transform(problems):
    marked = (
        problems
        | 'bands' >> beam.FlatMap(lambda p: [
            (key, p) for key in curation.band_keys(p['prompt'], rules)])
        | 'by band' >> beam.GroupByKey()
        | 'compare' >> beam.FlatMap(
            lambda pair: curation.near_duplicates(pair[1], rules))
        | 'as marks' >> beam.Map(lambda found: (found[0], 'near duplicate')))
    by_id = problems | 'by id' >> beam.Map(lambda p: (p['id'], p))
    return ({'problem': by_id, 'mark': marked} | 'join' >> beam.CoGroupByKey()
            | 'judge' >> beam.FlatMap(lambda pair: [
                (p, next(iter(pair[1]['mark']), None))
                for p in pair[1]['problem']]))
  return transform


def _benchmarks(prompts, rules, embed):
  index = curation.benchmark_index(prompts, rules)
  names = [name for name, texts in prompts.items() for _ in texts]
  texts = [text for some in prompts.values() for text in some]
  return lambda problems: problems | beam.ParDo(
      _Compare(index, names, texts, rules, embed))


class _Compare(beam.DoFn):
  """Words in common, then embeddings."""

  def __init__(self, index, names, texts, rules, embed):
    self._index, self._names, self._texts = index, names, texts
    self._rules, self._path = rules, embed

  def setup(self):
    if self._path:
      module, _, name = self._path.partition(':')
      self._embed = getattr(importlib.import_module(module), name)
      self._vectors = self._embed(self._texts) if self._texts else None

  def process(self, problem):
    reason = curation.contaminated(problem, self._index, self._rules)
    if reason is None and self._path and self._texts:
      close = self._embed([problem['prompt']]) @ self._vectors.T
      best = int(close[0].argmax())
      if close[0, best] >= self._rules.cosine:
        reason = f'like benchmark {self._names[best]}'
    yield problem, reason


def _answers(timeout):
  return lambda problems: problems | beam.ParDo(_Grade(timeout))


class _Grade(beam.DoFn):
  """Owns grading processes."""

  def __init__(self, timeout):
    self._timeout = timeout

  def setup(self):
    # Here, because it brings in jax, which only the workers pay for.
    from rljax import rewards
    self._scorer = rewards.create(num_workers=1, timeout=self._timeout)

  def process(self, problem):
    yield curation.graded(problem, self._scorer)

  def teardown(self):
    self._scorer.close()


def _rates(rules):
  return lambda problems: problems | beam.Map(
      lambda p: (p, curation.too_easy_or_hard(p, rules)))


def _prompts(path: str) -> list[str]:
  found = [row.get('prompt') or row.get('question')
           for _, row in lines.objects(path)]
  if None in found:
    raise ValueError(f"Expected objects with 'prompt' or 'question' in {path}. "
                     'Correct the benchmark file.')
  return found


def _settings(files, indices, rules, embed) -> dict:
  digest = lambda texts: hashlib.sha256(json.dumps(texts).encode()).hexdigest()
  return dict(files={path: _digest(path) for path in files},
              benchmarks={name: digest(x) for name, x in indices.items()},
              rules=vars(rules), embed=embed)


def _claim(folder: pathlib.Path, settings: dict):
  """Refuses to mix stages that were made of something else."""
  path, settings = folder / 'settings.json', json.loads(json.dumps(settings))
  if path.exists():
    before = json.loads(path.read_text())
    differ = sorted(key for key in settings if before.get(key) != settings[key])
    if differ:
      raise ValueError(f'Expected the settings that {folder} was begun with, '
                       f'but {", ".join(differ)} differ. Take another folder, '
                       'or delete this one.')
    return
  folder.mkdir(parents=True, exist_ok=True)
  _write(path, json.dumps(settings, indent=1))


def _finish(folder, source, counts, rules, form) -> dict:
  """One file of records, one of annotations, and the report."""
  problems = sorted(itertools.chain.from_iterable(map(_read, source)),
                    key=lambda p: p['id'])
  text = lambda make: ''.join(
      json.dumps(make(p), ensure_ascii=False) + '\n' for p in problems)
  if form == 'array_record':
    lines.write_array_record(folder / 'curated.array_record',
                             map(curation.training_record, problems))
  else:
    _write(folder / 'curated.jsonl', text(curation.training_record))
  _write(folder / 'annotations.jsonl', text(functools.partial(
      curation.annotation, rules=rules)))
  first = counts[STAGES[0]]
  report = dict(read=first['kept'] + sum(first['dropped'].values()),
                kept=len(problems), stages=counts)
  _write(folder / 'report.json', json.dumps(report, indent=1) + '\n')
  return report


def _rows(folder: pathlib.Path, name: str):
  for path in sorted(folder.glob(f'{name}*')):
    with path.open(encoding='utf-8') as file:
      yield from map(json.loads, file)


def _digest(path: str) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _write(path: pathlib.Path, text: str):
  """Under a temporary name, then renamed."""
  beside = path.with_name(path.name + '.tmp')
  beside.write_text(text, encoding='utf-8')
  os.replace(beside, path)
