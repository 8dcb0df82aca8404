"""What a training run says of itself: seconds, curves, and its report."""
from __future__ import annotations

import contextlib
import pathlib
import time
from typing import Any

import numpy as np

from experiments.job import launch
from rljax import processes
from rljax.evaluation import plots
from rljax.evaluation import report
from rljax.training import metrics


class Clock:
  """Wall seconds by stage; a run that resumes goes on counting."""

  def __init__(self, seconds: dict[str, float] | None = None):
    self.seconds = dict(seconds or {})
    self.last = {}

  @contextlib.contextmanager
  def __call__(self, stage: str):
    begin = time.perf_counter()
    yield
    taken = time.perf_counter() - begin
    self.last[stage] = self.last.get(stage, 0.0) + taken
    self.seconds[stage] = self.seconds.get(stage, 0.0) + taken

  def rates(self, report: dict[str, float]) -> dict[str, float]:
    """Seconds and tokens per second of the step's stages; starts a new step."""
    last, self.last = self.last, {}
    out = {f'{stage}_seconds': taken for stage, taken in last.items()}
    tokens = {'rollout': 'sampled_tokens', 'reward': 'sampled_tokens',
              'pack': 'train_tokens', 'update': 'train_tokens'}
    out |= {f'{stage}_tokens_per_second': report[tokens[stage]] / taken
            for stage, taken in last.items()
            if tokens.get(stage) in report}
    return out


def training_plots(job: launch.Job, panels) -> list[pathlib.Path]:
  """Draws the curves of a training run and, if it has experts, their load."""
  lines = metrics.read(job.workdir / metrics.FILE_NAME)
  folder = job.workdir / 'plots'
  drawn = plots.training_curves(lines, panels, folder)
  if job.model.config.num_experts:
    drawn.append(plots.expert_load(lines, folder))
  return drawn


def curves(job: launch.Job, names) -> list[dict[str, Any]]:
  """Means over the first and the last tenth of the steps, for the report."""
  lines = metrics.read(job.workdir / metrics.FILE_NAME)
  tenth = max(len(lines) // 10, 1)
  parts = {'first tenth': lines[:tenth], 'last tenth': lines[-tenth:]}
  rows = []
  for name in names:
    found = {part: [line[name] for line in some if line.get(name) is not None]
             for part, some in parts.items()}
    if all(found.values()):
      rows.append({'metric': name} | {
          part: float(np.mean(values)) for part, values in found.items()})
  return rows


def step_seconds(job: launch.Job) -> list[dict[str, Any]]:
  """Median seconds and tokens per second of each part of a step."""
  lines = metrics.read(job.workdir / metrics.FILE_NAME)
  lines = lines[1:] or lines  # the first step compiles
  names = [name.removesuffix('_seconds') for name in lines[-1]
           if name.endswith('_seconds')]
  median = lambda name: float(np.median([line[name] for line in lines]))
  return [dict(part=name, seconds=median(f'{name}_seconds'),
               tokens_per_second=median(f'{name}_tokens_per_second'))
          for name in names]


def has_report(job: launch.Job) -> bool:
  """Whether a run in this folder has come to its end."""
  return (job.workdir / 'report.json').exists()


def finish(job: launch.Job, config, clock: Clock, counter, sections,
           plots_made):
  """Writes `report.json` and `report.md`."""
  written = report.write_report(
      job.workdir, title=job.title, command=report.command_line(),
      seed=config.seed, seconds=clock.seconds,
      compilations=dict(sorted(counter.counts.items())), sections=sections,
      plots=plots_made)
  processes.meet()  # what comes next may read it
  return written
