"""PNG plots of a run, from its `metrics.jsonl` and its evaluation.

Figures are made without pyplot and without a display, so that a training
process, a test and a notebook draw the same files and share no state.
"""
from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
import pathlib
from typing import Any

import jax
from matplotlib import figure
from matplotlib import ticker
from matplotlib.backends import backend_agg
import numpy as np

_SMOOTH = 15  # a running mean is drawn over longer curves
_COLOURS = ('#1f5fa8', '#c2571a', '#2d7f4f', '#8a4fa3', '#7a7a7a')


@dataclasses.dataclass(frozen=True)
class Panel:
  """One plot: curves of metrics over steps."""
  file_name: str
  title: str
  unit: str                # label of the vertical axis
  metrics: tuple[str, ...]


POLICY_PANELS = (
    Panel('reward', 'Reward of the sampled responses', 'mean reward',
          ('reward',)),
    Panel('entropy', 'Token entropy of the policy', 'entropy (nats per token)',
          ('entropy',)),
    Panel('length', 'Response length', 'tokens per response',
          ('response_length',)),
    Panel('grad_norm', 'Gradient norm before clipping', 'global L2 norm',
          ('grad_norm',)),
    Panel('budget_fill', 'How full the token budget and the rows are',
          'share filled', ('budget_fill', 'row_fill')),
    Panel('throughput', 'Throughput', 'tokens per second',
          ('rollout_tokens_per_second', 'update_tokens_per_second')),
)

REASONING_PANEL = Panel(
    'reasoning', 'Right answers, and right reasoning among them', 'share',
    ('answer_right', 'reasoning_right_of_these'))

SUPERVISED_PANELS = (
    Panel('loss', 'Cross-entropy on the demonstrations', 'nats per token',
          ('loss',)),
    Panel('grad_norm', 'Gradient norm before clipping', 'global L2 norm',
          ('grad_norm',)),
    Panel('throughput', 'Throughput', 'tokens per second',
          ('update_tokens_per_second',)),
)

REWARD_PANELS = (
    Panel('loss', 'Loss of the comparisons', 'nats per list', ('loss',)),
    Panel('accuracy', 'Pairs in the right order', 'share', ('accuracy',)),
    Panel('gap', 'Lead of the better response', 'mean gap of scores',
          ('gap',)),
    Panel('grad_norm', 'Gradient norm before clipping', 'global L2 norm',
          ('grad_norm',)),
    Panel('throughput', 'Throughput', 'tokens per second',
          ('update_tokens_per_second',)),
)

PREFERENCE_PANELS = (
    Panel('loss', 'Loss on the pairs', 'mean over pairs', ('loss',)),
    Panel('accuracy', 'Pairs whose chosen response has the greater reward',
          'share of pairs', ('reward_accuracy',)),
    Panel('reward', 'Implicit rewards', 'mean over pairs',
          ('reward_chosen', 'reward_rejected', 'reward_margin')),
    Panel('logp', 'Log-probability of the responses', 'nats per response',
          ('logp_chosen', 'logp_rejected')),
    Panel('grad_norm', 'Gradient norm before clipping', 'global L2 norm',
          ('grad_norm',)),
    Panel('throughput', 'Throughput', 'tokens per second',
          ('update_tokens_per_second',)),
)


def training_curves(records: Sequence[Mapping[str, Any]],
                    panels: Sequence[Panel], folder) -> list[pathlib.Path]:
  """Draws each panel to `<folder>/<file_name>.png`; returns the files.

  Args:
    records: one dict per step with 'step', as `training.metrics.read` gives.
    panels: which metrics to draw; each must occur in the records.
    folder: made if it does not exist.
  """
  if not records:
    raise ValueError('Expected metrics of at least one step, got none.')
  known = set().union(*records) - {'step'}
  for panel in panels:
    missing = [name for name in panel.metrics if name not in known]
    if missing:
      raise ValueError(
          f'Expected the metrics of plot {panel.file_name!r} among '
          f'{sorted(known)}, missing {missing}. Log them, or leave the panel '
          'out.')
  return [_curves(records, panel, pathlib.Path(folder)) for panel in panels]


def expert_load(records: Sequence[Mapping[str, Any]], folder, *,
                metric: str = 'expert_load', last: int = 10) -> pathlib.Path:
  """Heat map [layers, experts] of the mean over the last steps; 1 = balanced.

  Args:
    records: as in `training_curves`.
    folder: gets `expert_load.png`.
    metric: holds [layers][experts] loads whose mean over the experts is 1.
    last: how many steps to average.
  """
  with_load = [record for record in records if metric in record]
  if not with_load:
    raise ValueError(f'Expected {metric!r} in the metrics, found none. Log the '
                     'router statistics, or leave this plot out.')
  loads = [record[metric] for record in with_load[-last:]]
  load_LE = np.mean(np.asarray(loads, float), axis=0)
  layers, experts = load_LE.shape
  fig, axes = _figure(width=max(5.0, 2.2 + 0.42 * experts),
                      height=max(2.8, 1.7 + 0.42 * layers))
  axes.grid(False)
  image = axes.imshow(load_LE, aspect='auto', cmap='RdBu_r', vmin=0, vmax=2)
  if load_LE.size <= 256:
    for (layer, expert), value in np.ndenumerate(load_LE):
      axes.text(expert, layer, f'{value:.2f}', ha='center', va='center',
                fontsize=7, color='white' if abs(value - 1) > 0.6 else 'black')
  bar = fig.colorbar(image, ax=axes, extend='max')
  bar.set_label('load (1 = balanced)')
  first, final = (with_load[-len(loads)]['step'], with_load[-1]['step'])
  axes.set(title=f'Expert load, mean of steps {first} to {final}',
           xlabel='expert', ylabel='layer')
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_locator(ticker.MaxNLocator(integer=True))
  return _save(fig, pathlib.Path(folder) / 'expert_load.png')


def pass_at_k(curves: Mapping[str, Sequence[Mapping[str, float]]], folder, *,
              num_samples: int, level: float = 0.95,
              name: str = 'pass_at_k') -> pathlib.Path:
  """pass@k over k with bands, one curve per model.

  Args:
    curves: model -> points with 'k', 'estimate', 'low', 'high'.
    folder: gets `<name>.png`.
    num_samples: n, without which a pass@k says little.
    level: of the bands.
    name: of what is drawn.
  """
  fig, axes = _figure()
  _bands(axes, curves)
  axes.set(title=f'{name.replace("_at_", "@")} from n = {num_samples} samples '
           f'({level:.0%} intervals over problems)',
           xlabel='k (samples drawn)', ylabel='share of problems solved',
           ylim=(-0.02, 1.02))
  axes.legend(frameon=False, loc='lower right')
  return _save(fig, pathlib.Path(folder) / f'{name}.png')


def gain(curves: Mapping[str, Sequence[Mapping[str, float]]], folder, *,
         total: float) -> pathlib.Path:
  """What of the progress was in reach of k samples of the start, over k.

  Args:
    curves: part -> points with 'k', 'estimate', 'low', 'high'.
    folder: gets `gain.png`.
    total: the progress that the parts share.
  """
  fig, axes = _figure()
  _bands(axes, curves)
  axes.axhline(total, color='#7a7a7a', linewidth=1, linestyle='--',
               label='progress')
  axes.set(title='Progress, by whether k samples of the start would do',
           xlabel='k (samples of the start)', ylabel='share of problems')
  axes.legend(frameon=False)
  return _save(fig, pathlib.Path(folder) / 'gain.png')


def reliability(bins: Mapping[str, Sequence[Mapping[str, float]]],
                folder, *, name: str = 'reliability') -> pathlib.Path:
  """Observed against predicted preference, one curve per model.

  Args:
    bins: model -> bins with 'count', 'predicted' and 'observed'; the area of a
      point is its share of the pairs.
    folder: gets `<name>.png`.
    name: of the file.
  """
  fig, axes = _figure(width=4.8, height=4.6)
  axes.plot([0, 1], [0, 1], color='#7a7a7a', linewidth=1, linestyle='--',
            label='calibrated')
  for colour, (label, some) in zip(
      itertools.cycle(_COLOURS), bins.items(), strict=False):
    shown = [b for b in some if b['count']]
    total = sum(b['count'] for b in shown)
    x, y = ([b[key] for b in shown] for key in ('predicted', 'observed'))
    axes.plot(x, y, color=colour, label=label)
    axes.scatter(x, y, color=colour, s=[
        12 + 300 * b['count'] / total for b in shown], alpha=0.6)
  axes.set(title='Reliability, the order of a pair drawn',
           xlabel='predicted preference', ylabel='share preferred',
           xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
  axes.legend(frameon=False, loc='upper left')
  return _save(fig, pathlib.Path(folder) / f'{name}.png')


def over_optimisation(points: Sequence[Mapping], folder) -> pathlib.Path:
  """Proxy and gold of the best of n over KL, each on an axis of its own.

  Args:
    points: with 'n', 'kl', and 'proxy' and 'gold' as 'estimate', 'low', 'high'.
    folder: gets `over_optimisation.png`.
  """
  fig, axes = _figure()
  kl = [point['kl'] for point in points]
  for place, colour, name in ((axes, _COLOURS[0], 'gold'),
                              (axes.twinx(), _COLOURS[1], 'proxy')):
    pick = lambda key, name=name: [point[name][key] for point in points]
    place.fill_between(kl, pick('low'), pick('high'), color=colour, alpha=0.18,
                       linewidth=0)
    place.plot(kl, pick('estimate'), color=colour, marker='.')
    place.set_ylabel(f'{name} reward', color=colour)
  axes.set(title=f'Best of n by the proxy, n to {points[-1]["n"]}',
           xlabel='KL(best of n || policy), at most, in nats')
  return _save(fig, pathlib.Path(folder) / 'over_optimisation.png')


def _bands(axes, curves):
  """Curves over powers of two."""
  for colour, (label, points) in zip(
      itertools.cycle(_COLOURS), curves.items(), strict=False):
    points = sorted(points, key=lambda point: point['k'])
    pick = lambda name: [point[name] for point in points]
    axes.fill_between(pick('k'), pick('low'), pick('high'), color=colour,
                      alpha=0.18, linewidth=0)
    axes.plot(pick('k'), pick('estimate'), color=colour, marker='o',
              markersize=4, label=label)
  ks = sorted({point['k'] for points in curves.values() for point in points})
  axes.set_xscale('log', base=2)
  axes.set_xticks(ks, [str(k) for k in ks])
  axes.minorticks_off()


def arms(values: Mapping[str, Mapping[str, Mapping]], path) -> pathlib.Path:
  """What each arm of a comparison did, a panel for each metric.

  Args:
    values: arm -> metric -> 'mean', 'low', 'high' and 'values', one per seed.
    path: of the PNG.
  """
  names = list(next(iter(values.values())))
  fig = figure.Figure(figsize=(6.4, (0.9 + 0.26 * len(values)) * len(names)),
                      layout='constrained')
  backend_agg.FigureCanvasAgg(fig)
  panels = fig.subplots(len(names), squeeze=False)[:, 0]
  for axes, name in zip(panels, names, strict=True):
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6, axis='x')
    for place, (colour, arm) in enumerate(
        zip(itertools.cycle(_COLOURS), values, strict=False)):
      found = values[arm][name]
      axes.plot([found['low'], found['high']], [place, place], color=colour)
      axes.plot(found['values'], [place] * len(found['values']), '.',
                color=colour, alpha=0.45)
      axes.plot(found['mean'], place, 'o', color=colour)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_title(name, loc='left', fontsize='medium')
  return _save(fig, pathlib.Path(path))


def _curves(records, panel: Panel, folder: pathlib.Path) -> pathlib.Path:
  fig, axes = _figure()
  for colour, name in zip(
      itertools.cycle(_COLOURS), panel.metrics, strict=False):
    points = [(record['step'], record[name]) for record in records
              if name in record]
    steps, values = np.array(points, float).T  # null, for NaN, becomes a gap
    if len(steps) < 2 * _SMOOTH:
      axes.plot(steps, values, color=colour, marker='.', label=name)
    else:
      axes.plot(steps, values, color=colour, alpha=0.3, linewidth=1)
      axes.plot(steps, _running_mean(values), color=colour,
                label=f'{name}, mean of {_SMOOTH} steps')
  axes.set(title=panel.title, xlabel='step', ylabel=panel.unit)
  axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  axes.legend(frameon=False)
  return _save(fig, folder / f'{panel.file_name}.png')


def _running_mean(values: np.ndarray) -> np.ndarray:
  """Mean of each value and those before it, gaps left out."""
  shown = np.isfinite(values)
  total = np.cumsum(np.where(shown, values, 0.0))
  count = np.cumsum(shown)
  total[_SMOOTH:] -= total[:-_SMOOTH].copy()
  count[_SMOOTH:] -= count[:-_SMOOTH].copy()
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _figure(width: float = 6.4, height: float = 3.8):
  fig = figure.Figure(figsize=(width, height), layout='constrained')
  backend_agg.FigureCanvasAgg(fig)
  axes = fig.add_subplot()
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(alpha=0.25, linewidth=0.6)
  return fig, axes


def _save(fig: figure.Figure, path: pathlib.Path) -> pathlib.Path:
  if jax.process_index() == 0:  # the others compute, one writes
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=110)
  return path
