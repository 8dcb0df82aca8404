r"""What training has gained: answers found more often, or found at last.

  python -m experiments.gain --before=runs/before --after=runs/after \
      --workdir=runs/gain

Each is the folder of an evaluation, of the same problems and settings; behind
`#` stands the name of one of its checkpoints where there are several:
`--before=runs/ring_lite/seed_0/test#sft`. Splits the progress into what k
samples of the start had reached as well and what they had not, over k
(`rljax/evaluation/capability.py`).
"""
from __future__ import annotations

import dataclasses
import json
import pathlib

from absl import app
from absl import flags
import numpy as np

from experiments.evaluation import measurement
from experiments.job import launch
from experiments.job import run_folder
from rljax.evaluation import capability
from rljax.evaluation import intervals
from rljax.evaluation import plots
from rljax.evaluation import report


def run(before: str, after: str, workdir: str, seed: int = 0) -> dict:
  """Compares two evaluations; writes the report and `gain.png`.

  Args:
    before: `<folder>` or `<folder>#<checkpoint>`.
    after: as `before`.
    workdir: of the report.
    seed: of the resampling of problems.

  Returns:
    The analyses by mode, as plain dicts.

  Raises:
    ValueError: an evaluation is not there, or the two are not of the same
      problems and settings.
  """
  start, end = read(before), read(after)
  check_alike(start, end)
  before_PG, after_PG, left_out = outcomes(start, end)
  folder = pathlib.Path(workdir).expanduser().resolve()
  folder.mkdir(parents=True, exist_ok=True)
  found = {}
  for mode in capability.MODES:
    most = before_PG.shape[1] - (mode == 'hard')
    ks = [2 ** i for i in range(most.bit_length())]
    found[mode] = report.plain(dataclasses.asdict(capability.analyse(
        before_PG, after_PG, ks=ks, mode=mode, seed=seed)))
  soft = found['soft']
  plot = plots.gain(
      {name: [dict(k=point['k'], **point[key]) for point in soft['points']]
       for key, name in (('self_distilled', 'within reach of k'),
                         ('capability', 'beyond it'))},
      folder / 'plots', total=soft['progress']['estimate'])
  report.write_report(
      folder, title='gain', command=report.command_line(), seed=seed,
      seconds={}, compilations={}, plots=[plot], sections={
          'compared': [dict(before=before, after=after,
                            problems=len(before_PG), left_out=left_out,
                            samples=before_PG.shape[1])],
          'change': [dict(mode=mode, gain=part['gain'],
                          progress=part['progress'],
                          regression=part['regression'])
                     for mode, part in found.items()],
          'progress by k': [
              dict(mode=mode, k=point['k'],
                   self_distilled=point['self_distilled'],
                   capability=point['capability'])
              for mode, part in found.items() for point in part['points']],
          'solved by': [
              dict(k=point['k'], **coverage(before_PG, after_PG, point['k']))
              for point in soft['points']],
          'problems by state, before (rows) and after': [
              dict(k=point['k'], before=state) | dict(zip(
                  capability.STATES, row, strict=True))
              for point in soft['points'] for state, row in zip(
                  capability.STATES, point['transitions'], strict=True)]})
  launch.say(f'   gain {measurement.text(soft["gain"])} = progress '
             f'{measurement.text(soft["progress"])} - regression '
             f'{measurement.text(soft["regression"])}')
  for point in soft['points']:
    launch.say(f'   k={point["k"]}: within reach '
               f'{measurement.text(point["self_distilled"])}, beyond '
               f'{measurement.text(point["capability"])}')
  return found


def coverage(before_PG, after_PG, k: int) -> dict:
  """Which side some of the first k samples solve; McNemar's p-value."""
  found = intervals.mcnemar(*(x_PG[:, :k].any(axis=1)
                              for x_PG in (before_PG, after_PG)))
  return {'both': found.both, 'before only': found.only_a,
          'after only': found.only_b, 'neither': found.neither,
          'p-value': found.p_value}


def read(name: str) -> dict:
  """The result of one checkpoint of an evaluation."""
  folder, _, checkpoint = name.partition('#')
  path = pathlib.Path(folder).expanduser() / 'results.json'
  if not path.is_file():
    raise ValueError(f'Expected an evaluation in {folder!r}, but there is no '
                     'results.json. Run experiments.evaluate first, or correct '
                     'the folder.')
  results = json.loads(path.read_text())
  if not checkpoint and len(results) == 1:
    checkpoint, = results
  if checkpoint not in results:
    raise ValueError(f'Expected one of the checkpoints {sorted(results)} of '
                     f'{folder!r}, got {checkpoint!r}. Name it behind a #.')
  if any('samples' not in problem for problem in results[checkpoint][
      'problems']):
    raise ValueError(f'Expected the outcome of each sample in {path}, which an '
                     'older version wrote. Remove it, and evaluate again.')
  return results[checkpoint]


def check_alike(before: dict, after: dict):
  """Refuses evaluations that differ in more than the policy."""
  one, other = (run_folder.flat({
      key: value for key, value in found['request']['config'].items()
      if key not in ('init', 'name')}) for found in (before, after))
  differ = sorted(key for key in one.keys() | other.keys()
                  if one.get(key) != other.get(key))
  if differ:
    raise ValueError(
        f'Expected two evaluations with the same settings, but '
        f'{", ".join(differ)} differ. Evaluate both with one config.')
  if [p['id'] for p in before['problems']] != [
      p['id'] for p in after['problems']]:
    raise ValueError('Expected evaluations of the same problems in the same '
                     'order, got others. Has the data changed in between?')


def outcomes(before: dict, after: dict):
  """(before_PG, after_PG) bool, and how many problems are left out.

  A problem with a sample that could not be graded, on either side, is out.
  """
  pairs = [(one['samples'], other['samples']) for one, other in zip(
      before['problems'], after['problems'], strict=True)]
  whole = [pair for pair in pairs if '-' not in ''.join(pair)]
  if len(whole) < 2:
    raise ValueError(f'Expected at least two problems all of whose samples '
                     f'were graded, got {len(whole)} of {len(pairs)}. See to '
                     'the verifier.')
  sides = (np.array([list(text) for text in side]) == '1'
           for side in zip(*whole, strict=True))
  return *sides, len(pairs) - len(whole)


def main(_):
  flag = flags.FLAGS
  run(flag.before, flag.after, flag.workdir)


if __name__ == '__main__':
  flags.DEFINE_string('before', None, 'Evaluation of the start.')
  flags.DEFINE_string('after', None, 'Evaluation of the end.')
  flags.DEFINE_string('workdir', None, 'Folder for the report.')
  flags.mark_flags_as_required(['before', 'after', 'workdir'])
  app.run(main)
