"""Arms of RL, each over the same seeds: runs them, and says what came of it.

All arms begin from one distilled start, see the same problems in the same order
under the same seed, take equally many steps, and are tuned alike: each chooses
its learning rate from the same list, by the reward it ends with under a seed
that is not used again. `outcome` judges what is claimed of them.
"""
from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import pathlib
import zlib

import numpy as np

from experiments import evaluate
from experiments import ring_lite
from experiments import sft
from experiments import sweep
from experiments import train_policy
from experiments.job import shared as sharing
from experiments.studies import outcome
from rljax.evaluation import report
from rljax.training import metrics

_TUNING_SEED = 100


@dataclasses.dataclass(frozen=True)
class Run:
  """What a run has left behind."""
  lines: list[dict]        # a step each
  start: dict              # measured on held-out problems before RL
  end: dict                # and after


@dataclasses.dataclass(frozen=True)
class Study:
  """The whole plan, made before anything is run."""
  name: str
  question: str
  sft: object              # config of the start
  policy: object           # config that arms change
  evaluation: object       # config of the measurement
  # Overrides as `sweep.apply` takes them, for each stage of training in turn.
  arms: Mapping[str, Sequence[Mapping]]
  metrics: Mapping[str, Callable[[Run], float]]
  claims: Sequence[outcome.Claim]
  seeds: Sequence[int] = (0, 1, 2, 3, 4)
  learning_rates: Sequence[float] = (3e-4,)  # tuned if there are several
  notes: str = ''
  # (params, key) -> what the sampler gets in place of the parameters.
  disturb: Callable | None = None

  def __post_init__(self):
    outcome.check(self)
    if _TUNING_SEED in self.seeds:
      raise ValueError(f'Expected seeds without {_TUNING_SEED}, which tunes, '
                       f'got {list(self.seeds)}.')


def run(study: Study, workdir) -> dict:
  """Runs what is not there yet and returns the results."""
  workdir = pathlib.Path(workdir).expanduser().resolve()
  runs = {arm: [] for arm in study.arms}
  ring_lite.train(sft, study.sft, start_of(study, workdir))
  with ring_lite.timed(workdir), sharing.Shared() as shared:
    at = workdir, shared
    rates = {arm: tuned(study, arm, *at) for arm in study.arms}
    for seed in study.seeds:  # by seed: whatever drifts, drifts for all arms
      for arm in study.arms:
        runs[arm].append(one_run(study, arm, rates[arm], seed, *at))
  return outcome.results(study, runs, settings(study, rates)) | {
      'seconds': sum(seconds(at) for at in (
          workdir, start_of(study, workdir)))}


def start_of(study, workdir) -> pathlib.Path:
  """Beside the workdir: studies with the same start distil it once."""
  text = json.dumps(report.plain(study.sft.to_dict()), sort_keys=True)
  return workdir.parent / f'start_{zlib.crc32(text.encode()):08x}'


def seconds(workdir) -> float:
  """Wall seconds spent in a folder, interrupted or not."""
  return json.loads((workdir / ring_lite.SECONDS).read_text())


def settings(study: Study, rates) -> dict:
  """What the record says of each arm."""
  own = lambda stages: stages[0].get('optimizer.learning_rate')
  return {arm: {'learning_rate': (rates[arm] if own(stages) is None
                                  else own(stages)),
                'stages': [dict(stage) for stage in stages]}
          for arm, stages in study.arms.items()}


def tuned(study, arm, workdir, shared=None) -> float:
  """The rate of the list with the largest reward in the last fifth."""
  if len(study.learning_rates) == 1:
    return study.learning_rates[0]
  ends = [final('reward')(one_run(study, arm, rate, _TUNING_SEED, workdir,
                                  shared, measure=False))
          for rate in study.learning_rates]
  return study.learning_rates[int(np.argmax(ends))]


def one_run(study, arm, rate, seed, workdir, shared=None,
            measure=True) -> Run:
  """Trains an arm under a seed, unless that is done; measures both ends."""
  folder = workdir / arm.replace(' ', '_') / f'rate_{rate:g}' / f'seed_{seed}'
  first = None
  step = study.policy.init.step
  at = (str(start_of(study, workdir) / 'checkpoints'),
        study.sft.num_steps if step < 0 else step)
  lines = []
  for number, overrides in enumerate(study.arms[arm]):
    config = sweep.apply(study.policy, {
        'seed': seed, 'optimizer.learning_rate': rate,
        'init.checkpoint': at[0], 'init.step': at[1], **overrides})
    first = first or (config.init.checkpoint, config.init.step)
    stage = folder / f'stage_{number}'
    ring_lite.train(train_policy, config, stage, disturb=study.disturb,
                    shared=shared, draw=False)
    lines += metrics.read(stage / metrics.FILE_NAME)
    at = str(stage / 'checkpoints'), config.num_steps
  if not measure:
    return Run(lines, {}, {})
  start = workdir / f'start_{first[1]}'
  return Run(lines, measured(study, start, first, shared),
             measured(study, folder / 'measured', at, shared))


def measured(study, folder, checkpoint, shared=None) -> dict:
  """Accuracy, entropy and pass@k on held-out problems."""
  found = evaluate.run(study.evaluation, folder, {'checkpoint': checkpoint},
                       shared, plotted=False)
  return found['checkpoint']


# Numbers of a run, by name.


def mean(name: str) -> Callable[[Run], float]:
  """Over all steps."""
  return lambda done: float(np.mean(_series(done, name)))


def final(name: str) -> Callable[[Run], float]:
  """Mean over the last fifth of the steps."""
  def take(done):
    values = _series(done, name)
    return float(np.mean(values[-max(len(values) // 5, 1):]))
  return take


def variation(name: str) -> Callable[[Run], float]:
  """Standard deviation over the mean; the first step, which compiles, apart."""
  def take(done):
    values = _series(done, name)[1:]
    return float(np.std(values) / max(abs(np.mean(values)), 1e-12))
  return take


def accuracy(done: Run) -> float:
  """On held-out problems, after RL."""
  return done.end['accuracy']['estimate']


def gain(done: Run) -> float:
  """Accuracy after RL less that before."""
  return accuracy(done) - done.start['accuracy']['estimate']


def entropy(done: Run) -> float:
  """Nats per token on held-out problems, after RL."""
  return done.end['entropy']['estimate']


def _series(done: Run, name: str) -> np.ndarray:
  values = np.array([line[name] for line in done.lines
                     if line.get(name) is not None], np.float64)
  if not values.size:
    raise ValueError(f'Expected the metric {name!r} in the steps of a run, got '
                     f'{sorted(done.lines[-1])}. Correct the study.')
  return values


def load(path: str, argument: str = ''):
  """A config by the path of its file, as the command line takes it."""
  return sweep.load(pathlib.Path(__file__).parents[2] / path).get_config(
      argument)


def main(make: Callable[[bool], Study]):
  """The command line of a study of RL; see `outcome.main`."""
  outcome.main(lambda smoke, workdir: run(make(smoke), workdir))
