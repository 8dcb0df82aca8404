"""What came of a study: claims, intervals, and the files that say so.

A study is a table of arms over the same seeds, numbers to take from a run, and
claims, all of them written down before anything is run. An interval is
Student's over seeds. A claim compares two arms seed by seed; it is `seen` when
the interval of the difference lies on the claimed side of 0, `opposite` on the
other, and else `not seen`. A claim that two are alike names how far they may be
apart: `seen` is an interval within, `opposite` one beyond. Every claim counts
by itself: of twenty false ones, one is expected to be decided.
"""
from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
import shutil
from typing import Any

from absl import app
from absl import flags
import numpy as np
from scipy import stats

from rljax.evaluation import intervals
from rljax.evaluation import plots
from rljax.evaluation import report
from rljax.training import metrics

RESULTS = pathlib.Path(__file__).parents[1] / 'results'


@dataclasses.dataclass(frozen=True)
class Claim:
  """`arm` has more (sign 1) or less (sign -1) of a metric than `than`.

  Without `than` it is compared with 0. With sign 0 it has as much, to `within`.
  """
  text: str
  metric: str
  arm: str
  than: str | None
  sign: int
  within: float = 0.0  # in the unit of the metric


@dataclasses.dataclass(frozen=True)
class Plan:
  """The whole plan, made before anything is run."""
  name: str
  question: str
  arms: Mapping[str, Any]  # whatever tells the arms apart
  metrics: Mapping[str, Callable[[Any], float]]  # of what a run leaves behind
  claims: Sequence[Claim]
  seeds: Sequence[int] = (0, 1, 2, 3, 4)
  notes: str = ''

  def __post_init__(self):
    check(self)


def check(plan):
  """Raises ValueError for a claim about nothing, or a single seed."""
  for claim in plan.claims:
    if claim.metric not in plan.metrics or not {
        claim.arm, claim.than} <= {None, *plan.arms} or (
            claim.sign, claim.within > 0) not in (
                (1, False), (-1, False), (0, True)):
      raise ValueError(f'Expected a metric among {sorted(plan.metrics)}, two '
                       f'arms among {sorted(plan.arms)} and a sign of 1 or '
                       '-1, or of 0 with how far they may be apart, got '
                       f'{claim}. Correct the claim.')
  if len(plan.seeds) < 2:
    raise ValueError('Expected at least two seeds, got '
                     f'{list(plan.seeds)}. An interval needs them.')


def results(plan, runs: Mapping[str, Sequence[Any]], settings) -> dict:
  """The record of the study; nothing in it is written by hand.

  Args:
    plan: a `Plan`, or what has its fields.
    runs: by arm, what each seed has left behind: `plan.metrics` read it.
    settings: by arm, what the record shall say of it, such as its
      `learning_rate`.
  """
  values = {arm: {name: [float(take(r)) for r in found]
                  for name, take in plan.metrics.items()}
            for arm, found in runs.items()}
  claims = [judge(claim, values) for claim in plan.claims]
  return {
      'study': plan.name, 'question': plan.question,
      'command': f'python -m experiments.studies.{plan.name} '
                 f'--workdir=runs/studies/{plan.name}',
      'versions': report.versions(), 'devices': report.devices(),
      'seeds': list(plan.seeds), 'notes': plan.notes,
      'arms': {arm: report.plain(dict(settings[arm])) | {'metrics': {
          name: report.plain(dataclasses.asdict(student(found))) | {
              'mean': float(np.mean(found)), 'values': found}
          for name, found in values[arm].items()}}
               for arm in plan.arms},
      'claims': claims, 'conclusion': conclusion(claims)}


def student(values) -> intervals.Interval:
  """Mean over seeds with Student's interval."""
  values = np.asarray(values, np.float64)
  mean, error = values.mean(), stats.sem(values)
  reach = stats.t.ppf(0.975, len(values) - 1) * error
  return intervals.Interval(float(mean), float(mean - reach),
                            float(mean + reach))


def judge(claim: Claim, values) -> dict:
  """What the runs say of a claim."""
  delta = np.array(values[claim.arm][claim.metric])
  if claim.than is not None:
    delta = delta - np.array(values[claim.than][claim.metric])
  found = student(delta)
  if claim.sign:
    low, high = sorted((claim.sign * found.low, claim.sign * found.high))
  else:  # room left at the end that is furthest from 0, and at the nearest
    low = claim.within - max(abs(found.low), abs(found.high))
    high = claim.within - abs(np.clip(0, found.low, found.high))
  verdict = 'seen' if low > 0 else 'opposite' if high < 0 else 'not seen'
  return dataclasses.asdict(claim) | {
      'difference': found.estimate, 'low': found.low, 'high': found.high,
      'verdict': verdict}


def conclusion(claims) -> str:
  """One line."""
  parts = [f'{claim["text"]}: {claim["verdict"]} ({claim["difference"]:+.3g} '
           f'[{claim["low"]:.3g}, {claim["high"]:.3g}])' for claim in claims]
  return '; '.join(parts) + '.'


def write(found: dict, folder=RESULTS) -> list[pathlib.Path]:
  """`NAME.json`, `NAME.md` and `NAME.png`."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  name = found['study']
  report.write_json(folder / f'{name}.json', found)
  report.write_text(folder / f'{name}.md', markdown(found))
  drawn = plots.arms({arm: part['metrics']
                      for arm, part in found['arms'].items()},
                     folder / f'{name}.png')
  return [folder / f'{name}.json', folder / f'{name}.md', drawn]


def markdown(found: dict) -> str:
  """The record as text, made from it alone."""
  arms = found['arms']
  names = list(next(iter(arms.values()))['metrics'])
  cell = lambda m: f'{m["mean"]:.3g} [{m["low"]:.3g}, {m["high"]:.3g}]'
  rated = all('learning_rate' in part for part in arms.values())
  head = ['arm', *['rate'] * rated, *names]
  rows = [[arm, *[f'{part.get("learning_rate", 0):g}'] * rated,
           *(cell(part['metrics'][name]) for name in names)]
          for arm, part in arms.items()]
  claimed = [[c['text'], c['metric'], f'{c["arm"]} - {c["than"] or 0}',
              f'{c["difference"]:+.3g} [{c["low"]:.3g}, {c["high"]:.3g}]',
              c['verdict']] for c in found['claims']]
  lines = [
      f'# {found["study"]}', '', found['question'], '',
      f'`{found["command"]}`, seeds {found["seeds"]}, '
      f'{found["seconds"] / 60:.0f} minutes on '
      f'{found["devices"]["cpu_cores"]} cores '
      f'({found["devices"]["backend"]}); means over seeds with 95 % '
      'intervals.', '',
      *table(head, rows), '', '## Claims', '',
      *table(['claim', 'metric', 'difference', 'by seed', 'verdict'], claimed),
      '', found['notes'], '', f'![arms]({found["study"]}.png)', '']
  return '\n'.join(lines)


def table(head, rows) -> list[str]:
  """Lines of a Markdown table."""
  line = lambda cells: '| ' + ' | '.join(
      cell.replace('|', '\\|') for cell in cells) + ' |'
  return [line(head), '|' + '---|' * len(head), *map(line, rows)]


def main(run: Callable[[bool, str], dict]):
  """The command line of a study: `--workdir`, `--output`, `--smoke`.

  Args:
    run: (smoke, workdir) -> the record, from `results`, with its `seconds`.
  """
  flags.DEFINE_string('workdir', None, 'Folder of the runs; resumes.')
  flags.DEFINE_string('output', str(RESULTS), 'Folder of the results.')
  flags.DEFINE_bool('smoke', False, 'Two seeds of a few steps, for tests.')
  flags.DEFINE_bool('again', False, 'Throw away what is in the workdir.')
  flags.mark_flag_as_required('workdir')

  def call(_):
    flag = flags.FLAGS
    if flag.again:
      shutil.rmtree(flag.workdir, ignore_errors=True)
    metrics.enable_compilation_cache(
        pathlib.Path('~/.cache/rljax/xla').expanduser())
    found = run(flag.smoke, flag.workdir)
    for path in write(found, flag.output):
      print(f'Wrote {path}')
    print(found['conclusion'])
  app.run(call)
