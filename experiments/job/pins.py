"""Which checkpoint the step -1 stands for: the newest when a run begins.

The run that it is of may go on while this one rests. What this one reads again
when it is continued must be what it has begun with.
"""
from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
from typing import Any

from rljax import processes
from rljax.interop import convert
from rljax.training import checkpoint

NEWEST = -1
# Key of a folder -> key of the step that is read there.
_STEPS = {
    'init.checkpoint': 'init.step', 'lora.base': 'lora.base_step',
    'reference.checkpoint': 'reference.step',
    'guide.checkpoint': 'guide.step', 'reward_model.run': 'reward_model.step'}
KEYS = tuple(_STEPS.values())


def pinned(config, stored: Mapping[str, Any], unread: Sequence[str] = (),
           begun: bool = True):
  """The config, its steps of -1 replaced by those of the first start.

  Published checkpoints have no steps. Where a folder has none yet, -1 stays:
  who reads it says what is missing.

  Args:
    config: of a run.
    stored: 'section.key' -> value at the first start; empty for a first start.
    unread: keys of folders that this start does not read.
    begun: whether anything was saved; else what is gone is not missed, and the
      newest takes its place.

  Raises:
    ValueError: a checkpoint of the first start is gone, or a step below -1.
  """
  found = config.copy_and_resolve_references()
  for place, key in _STEPS.items():
    (section, name), step_name = place.split('.'), key.partition('.')[2]
    options = found[section] if section in found else {}
    if name not in options or not options[name]:
      continue
    if options[step_name] < NEWEST:  # else read as the newest, and not kept
      raise ValueError(f'Expected {key} >= -1, where -1 is the newest, got '
                       f'{options[step_name]}. Correct it.')
    if options[step_name] != NEWEST or convert.is_published(options[name]):
      continue
    folder = pathlib.Path(options[name]).expanduser()
    steps = processes.gather(checkpoint.steps_in(
        folder / 'checkpoints' if name == 'run' else folder))[0]
    step = stored.get(key, NEWEST)
    if step == NEWEST or step not in steps and not begun:
      step = max(steps, default=NEWEST)
    elif step not in steps and place not in unread:
      raise ValueError(
          f'Expected step {step} in {folder}, which {key}=-1 stood for when '
          f'this run began, found {steps}. Bring that checkpoint back to '
          'continue the run, or begin it anew in another --workdir.')
    options[step_name] = step
  return found
