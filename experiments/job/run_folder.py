"""The folder of a run: whose it is, how far it came, and saving into it."""
from __future__ import annotations

import json
import pathlib
from typing import Any

from ml_collections import config_dict

from experiments.job import pins
from rljax import processes
from rljax.evaluation import report
from rljax.training import checkpoint

_CONFIG = 'config.json'

# What does not make it another run: how far it goes, how often it is saved, on
# which devices and how fast.
_FREE = (
    'num_steps', 'checkpoint', 'mesh', 'sharding', 'packing.rows_per_device',
    'rollout.gathered_params',
    'data.source.data_dir', 'reward.num_workers',
    'model.remat', 'model.moe_dispatch', 'model.query_chunk')

# What may be turned down to go on from the last good checkpoint.
_STEERED = ('optimizer.learning_rate', 'optimizer.clip_norm',
            'critic.optimizer.learning_rate', 'critic.optimizer.clip_norm')


class Preempted(BaseException):
  """The run was asked to stop and has saved its state.

  Not an Exception: libraries catch those where they can go on without.
  """


def claim(config, workdir: pathlib.Path, *, reads_start: bool = True):
  """Makes the folder that of this training run; call it before training.

  The configuration is stored, so that a run is never continued under another
  objective, other data or another reference by mistake.

  Args:
    config: of the run; a step of -1 is the one it stood for at the first start.
    workdir: of the run.
    reads_start: whether a run that is continued reads `config.init` again, for
      a reference; adapters always do.

  Returns:
    The config to go on with.

  Raises:
    ValueError: a run of another configuration lies there, a checkpoint that it
      has begun with is gone, or it is not the same folder for all processes.
  """
  stored = _compare_with_stored(config, workdir, _FREE + _STEERED)
  begun = _begun(workdir)
  unread = ('init.checkpoint',) if begun and not reads_start and (
      not config.lora.rank) else ()
  # Scores of a reference, too, are of what the first start has read.
  saved = begun or (workdir / 'scores').exists()
  config = pins.pinned(config, stored, unread, saved)
  processes.meet()  # before it is written, all have read
  report.write_json(workdir / _CONFIG, flat(config.to_dict()))
  processes.meet()
  processes.check_same('folder --workdir', {
      'its config.json': (workdir / _CONFIG).exists()})
  if unread:
    config.init.checkpoint = ''  # what is restored takes its place
  return config


def finished(config, workdir: pathlib.Path) -> bool:
  """Whether this training run has come to its end in the folder.

  Raises:
    ValueError: a run of another configuration lies there.
  """
  last = workdir / 'checkpoints' / str(config.num_steps)
  if not all(path.exists() for path in (
      last, workdir / 'report.json', workdir / _CONFIG)):
    return False
  _compare_with_stored(config, workdir, _FREE)
  return True


def _begun(workdir: pathlib.Path) -> bool:
  """Whether there is a run to be continued."""
  return (workdir / _CONFIG).exists() and bool(
      checkpoint.steps_in(workdir / 'checkpoints'))


def _compare_with_stored(config, workdir: pathlib.Path, free) -> dict[str, Any]:
  """What is stored of the same run; nothing, where another one may begin."""
  path = workdir / _CONFIG
  stored = json.loads(path.read_text()) if path.exists() else {}
  differing = differences(stored, config, free)
  if differing and _begun(workdir):
    raise ValueError(
        f'Expected {workdir} to be new or to hold a run of this config, but '
        'it was begun with other settings:\n' + '\n'.join(differing)
        + '\nGive this run those settings to continue it, or another '
        '--workdir; to begin it anew here, delete that folder.')
  return {} if differing else stored


def is_run(folder: pathlib.Path) -> bool:
  """Whether `claim` has stored a configuration there."""
  return (folder / _CONFIG).exists()


def stored_config(folder: pathlib.Path) -> config_dict.ConfigDict:
  """The configuration of a run, as `claim` stored it.

  Raises:
    ValueError: there is none.
  """
  if not is_run(folder):
    raise ValueError(f'Expected the folder of a run in {folder}, but it has no '
                     f'{_CONFIG}. Name the --workdir of the training script.')
  config: dict[str, Any] = {}
  for name, value in json.loads((folder / _CONFIG).read_text()).items():
    *sections, key = name.split('.')
    place = config
    for section in sections:
      place = place.setdefault(section, {})
    place[key] = value
  return config_dict.ConfigDict(config)


def differences(stored: dict[str, Any], config, free=_FREE) -> list[str]:
  """Lines of what a stored configuration, from `flat`, says otherwise.

  The step -1 is whichever the run has begun with.
  """
  present, absent = flat(config.to_dict()), '-'
  return [
      f'  {key}: there {stored.get(key, absent)!r}, now '
      f'{present.get(key, absent)!r}'
      for key in sorted(stored.keys() | present.keys())
      if stored.get(key, absent) != present.get(key, absent)
      and not (key in pins.KEYS and present.get(key) == pins.NEWEST)
      and not any(f'{key}.'.startswith(f'{name}.') for name in free)]


def flat(values: dict[str, Any]) -> dict[str, Any]:
  """'section.key' -> value, as JSON gives it back."""
  def walk(value, name):
    if isinstance(value, dict) and value:
      for key, part in value.items():
        yield from walk(part, f'{name}.{key}' if name else key)
    else:
      yield name, value

  return dict(walk(report.plain(values), ''))


def save(saver, writer, stop, state, step: int, metrics, progress,
         last: bool = False):
  """Ends a step: a checkpoint when one is due, and leaving when asked to.

  Raises:
    ValueError: loss or parameters are not finite; the last good checkpoint
      stays.
    Preempted: SIGTERM has come; the state is saved.
  """
  done = step + 1
  asked = processes.anyone(stop.requested)  # all stop at the same step
  if last or asked or done % saver.every == 0:
    writer.check_finite(step, metrics)  # a spoilt state is never saved
    writer.flush()  # before the state, so that no line is ever missing
    saver.save(done, state, progress, force=True)
  if asked:
    _leave(saver)


def leave_if_asked(stop, saver):
  """Waits until what was saved is on disk; ends the run after SIGTERM.

  Raises:
    Preempted: SIGTERM has come.
  """
  saver.wait()  # a request that comes meanwhile counts
  if processes.anyone(stop.requested):
    _leave(saver)


def _leave(saver):
  saver.wait()
  raise Preempted(f'saved step {saver.latest_step()} in {saver.folder}')
