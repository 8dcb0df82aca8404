"""Optimisers and learning-rate schedules by their optax names."""
from __future__ import annotations

import inspect

import jax
import optax


def make_schedule(learning_rate: float, *, name: str = 'constant',
                  warmup_steps: int = 0, decay_steps: int = 0,
                  end_factor: float = 0.0) -> optax.Schedule:
  """Linear warm-up, then constant, cosine or linear.

  Args:
    learning_rate: the peak.
    name: constant, cosine or linear.
    warmup_steps: from 0 to the peak.
    decay_steps: length of the decay after the warm-up; not for constant.
    end_factor: final rate over peak.

  Raises:
    ValueError: unknown name, or a decay without a length.
  """
  if name not in ('constant', 'cosine', 'linear'):
    raise ValueError(f'Unknown schedule {name!r}; expected constant, cosine or '
                     'linear.')
  if name != 'constant' and decay_steps < 1:
    raise ValueError(f'Schedule {name!r} needs decay_steps >= 1, got '
                     f'{decay_steps}.')
  after = {
      'constant': lambda: optax.constant_schedule(learning_rate),
      'cosine': lambda: optax.cosine_decay_schedule(
          learning_rate, decay_steps, alpha=end_factor),
      'linear': lambda: optax.linear_schedule(
          learning_rate, learning_rate * end_factor, decay_steps),
  }[name]()
  if not warmup_steps:
    return after
  # Step 0 already learns: a rate of exactly 0 would waste it.
  warmup = optax.linear_schedule(
      learning_rate / (warmup_steps + 1), learning_rate, warmup_steps)
  return optax.join_schedules([warmup, after], [warmup_steps])


def make_optimizer(name: str, learning_rate: float, *,
                   clip_norm: float | None = 1.0, schedule=None,
                   **options) -> optax.GradientTransformation:
  """Builds `optax.<name>` behind global-norm clipping.

  Args:
    name: any optimiser of optax whose first argument is a learning rate.
    learning_rate: the peak rate.
    clip_norm: global gradient norm to clip at; None for no clipping.
    schedule: arguments of `make_schedule`; None is constant.
    **options: further arguments of the optimiser (b1, weight_decay, ...).

  Raises:
    ValueError: optax has no such optimiser, or it has no such argument.
  """
  make = getattr(optax, name, None)
  parameters = inspect.signature(make).parameters if callable(make) else {}
  if 'learning_rate' not in parameters:
    raise ValueError(f'optax has no optimiser {name!r}; try adamw, sgd, lion '
                     'or adafactor.')
  unknown = set(options) - set(parameters)
  if unknown:
    raise ValueError(f'optax.{name} takes no {sorted(unknown)}; it takes '
                     f'{sorted(parameters)}.')
  if 'weight_decay' in options and 'mask' in parameters:
    options.setdefault('mask', is_decayed)
  rate = make_schedule(learning_rate, **dict(schedule or {}))
  steps = [make(rate, **options)]
  if clip_norm is not None:
    steps.insert(0, optax.clip_by_global_norm(clip_norm))
  return optax.chain(*steps)


def is_decayed(params):
  """True for matrices, False for norm scales, which decay would only shrink."""
  def decide(path, _):
    return all(getattr(key, 'key', None) != 'scale' for key in path)
  return jax.tree_util.tree_map_with_path(decide, params)
