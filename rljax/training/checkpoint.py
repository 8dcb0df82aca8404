"""Checkpoints: asynchronous, atomic, checked, and restored onto any mesh.

A step is written under a temporary name by a background thread and renamed when
complete, so a process killed at any moment leaves whole checkpoints only. The
sizes and checksums of its files are written before that rename: what the disk
loses or changes later is found by name, not trained on.

  <folder>/<step>/params      parameters alone, readable without the optimiser;
                              of adapted ones, what is trained: who restores
                              them brings the base
                  optimizer   step counter and optimiser state
                  record      JSON: fingerprint of the run, progress of the loop
                  checksums.json

Random keys are not stored. They are derived from (seed, stream, step).
"""
from __future__ import annotations

import json
import pathlib
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from rljax.models import lora
from rljax.types import TrainState

_CHECKSUMS = 'checksums.json'
_ITEMS = ('params', 'optimizer', 'record')


class Checkpointer:
  """Saves and restores (train state, progress); a context manager.

  Args:
    folder: where the steps lie; made if it does not exist.
    fingerprint: JSON-like hyper-parameters that make a checkpoint unusable when
      they change (those of the model, the optimiser, the tokenizer).
    every: `save` writes at multiples of this step only, unless forced.
    keep: newest checkpoints to keep; None keeps all.
    read_only: for evaluating a run that may still be training: deletes nothing,
      writes nothing.
  """

  def __init__(self, folder, *, fingerprint: dict[str, Any], every: int = 1,
               keep: int | None = 3, read_only: bool = False):
    if every < 1 or (keep is not None and keep < 1):
      raise ValueError(f'Expected every >= 1 and keep >= 1 or None, got '
                       f'every={every}, keep={keep}.')
    self.folder = pathlib.Path(folder).absolute()
    self._fingerprint = _json_copy(fingerprint, 'fingerprint')
    self.every = every
    self._saving: int | None = None
    options = dict(read_only=True) if read_only else dict(
        max_to_keep=keep,
        cleanup_tmp_directories=True,
        async_options=ocp.AsyncOptions(
            post_finalization_callback=self._write_checksums))
    self._manager = ocp.CheckpointManager(
        self.folder,
        item_handlers={'params': ocp.StandardCheckpointHandler(),
                       'optimizer': ocp.StandardCheckpointHandler(),
                       'record': ocp.JsonCheckpointHandler()},
        options=ocp.CheckpointManagerOptions(**options))

  def __enter__(self) -> Checkpointer:
    return self

  def __exit__(self, *unused):
    self.close()

  def close(self):
    """Ends the save under way, then frees the threads."""
    self._manager.close()

  def wait(self):
    """Returns when the last save is on disk; raises what it raised."""
    self._manager.wait_until_finished()

  def steps(self) -> list[int]:
    """The steps whose saving came to its end."""
    return steps_in(self.folder)

  def latest_step(self) -> int | None:
    """The newest step whose saving came to its end."""
    return max(self.steps(), default=None)

  def latest_path(self) -> str | None:
    """The newest complete checkpoint, to be named in messages."""
    step = self.latest_step()
    return None if step is None else str(self.folder / str(step))

  def save(self, step: int, state: TrainState, progress: dict[str, Any],
           force: bool = False) -> bool:
    """Starts writing; returns whether it did.

    The arrays are copied before this returns, so `state` may be donated next.
    Nothing is written off the multiples of `every` unless forced, or when the
    step has been saved already.

    Args:
      step: steps taken, `state.step`; given apart so that nothing waits.
      state: arrays, on any sharding.
      progress: JSON-like: state of the data iterator, stage of the pipeline.
      force: save off the multiples of `every` as well.
    """
    if not force and step % self.every:
      return False
    self.wait()
    newest = self.latest_step()
    if newest == step:
      return False
    if newest is not None and newest > step:
      raise ValueError(
          f'Asked to save step {step}, but {self.folder} already holds step '
          f'{newest}. Restore before training, or use another folder.')
    _reject_keys(state)
    record = {'fingerprint': self._fingerprint,
              'progress': _json_copy(progress, 'progress')}
    self._saving = step
    return self._manager.save(step, force=True, args=ocp.args.Composite(
        params=ocp.args.StandardSave(lora.split(state.params)[0]),
        optimizer=ocp.args.StandardSave(_optimizer_item(state)),
        record=ocp.args.JsonSave(record)))

  def restore_or(self, state: TrainState,
                 progress: dict[str, Any]) -> tuple[TrainState, dict[str, Any]]:
    """The newest checkpoint, or the arguments if there is none.

    Args:
      state: arrays, or `jax.ShapeDtypeStruct`s with shardings: the checkpoint
        is placed as these are, on whatever mesh it was written.
      progress: returned as it is when there is no checkpoint.
    """
    self.wait()
    step = self.latest_step()
    return (state, progress) if step is None else self.restore(step, state)

  def restore(self, step: int,
              state: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """One given step; the arrays are placed as those of `state`."""
    record = self._open(step)
    trained, rest = lora.split(state.params)
    targets = {'params': trained, 'optimizer': _optimizer_item(state)}
    items = self._read(step, targets)
    restored = TrainState(step=items['optimizer']['step'],
                          params=lora.joined(items['params'], rest),
                          opt_state=items['optimizer']['opt_state'],
                          critic=_critic(items['optimizer']))
    return restored, record['progress']

  def restore_params(self, params, step: int | None = None):
    """Parameters alone, placed as `params`; the newest if no step is given."""
    self.wait()
    step = self.latest_step() if step is None else step
    if step is None:
      raise ValueError(f'Expected a checkpoint in {self.folder}, found none. '
                       'Train first, or name another folder.')
    self._open(step)
    trained, rest = lora.split(params)
    return lora.joined(self._read(step, {'params': trained})['params'], rest)

  def _open(self, step: int) -> dict[str, Any]:
    """Checks the files and the fingerprint; returns the record."""
    if step not in self.steps():
      raise ValueError(f'Expected a checkpoint of step {step} in '
                       f'{self.folder}, found {self.steps()}. Name one of '
                       'these.')
    damage = _damage(self.folder / str(step))
    if damage:
      raise ValueError(self._damaged(step, damage))
    record = self._manager.restore(step, args=ocp.args.Composite(
        record=ocp.args.JsonRestore()))['record']
    _compare_fingerprints(self.folder / str(step), record['fingerprint'],
                          self._fingerprint)
    return record

  def _read(self, step: int, targets: dict[str, Any]) -> dict[str, Any]:
    """Arrays of the named items, placed as their targets."""
    metadata = self._manager.item_metadata(step)
    for name, target in targets.items():
      _compare_trees(self.folder / str(step) / name, metadata[name].tree,
                     target)
    restored = self._manager.restore(step, args=ocp.args.Composite(**{
        name: ocp.args.StandardRestore(_abstract(target))
        for name, target in targets.items()}))
    return {name: restored[name] for name in targets}

  def _damaged(self, step: int, damage: str) -> str:
    path = self.folder / str(step)
    intact = [other for other in self.steps()
              if other != step and not _damage(self.folder / str(other))]
    if intact:
      remedy = (f'Step {max(intact)} in the same folder is intact: delete '
                f'{path} to go on from there')
      if max(intact) > step:
        remedy = f'Step {max(intact)} in the same folder is intact: use it'
    else:
      remedy = f'No other step there is intact: delete {path} to start afresh'
    return (f'Expected a complete checkpoint in {path}, but {damage}. '
            f'{remedy}, or restore the folder from a copy.')

  def _write_checksums(self):
    """Runs in the saving thread, between the last byte and the rename."""
    folder = self.folder / str(self._saving)
    temporary = [path for path in self.folder.glob(f'{self._saving}.*')
                 if path.is_dir()]
    if temporary:
      folder, = temporary
    sums = {str(path.relative_to(folder)): [path.stat().st_size, _crc(path)]
            for name in _ITEMS for path in sorted((folder / name).rglob('*'))
            if path.is_file()}
    (folder / _CHECKSUMS).write_text(json.dumps(sums, indent=1))


def steps_in(folder: pathlib.Path) -> list[int]:
  """The steps in a folder of checkpoints whose saving came to its end."""
  if not folder.exists():
    return []
  return sorted(int(path.name) for path in folder.iterdir()
                if path.name.isdecimal())


def save_params(folder, params):
  """Writes parameters alone, for export; replaces what was there."""
  _reject_keys(params)
  with ocp.StandardCheckpointer() as writer:
    writer.save(pathlib.Path(folder).absolute(), params, force=True)


def load_params(folder, params):
  """Reads what `save_params` wrote, placed as `params`."""
  path = pathlib.Path(folder).absolute()
  if not path.exists():
    raise ValueError(f'Expected exported parameters in {path}, found nothing. '
                     'Write them with save_params.')
  with ocp.StandardCheckpointer() as reader:
    _compare_trees(path, reader.metadata(path).item_metadata.tree, params)
    return reader.restore(path, _abstract(params))


def _optimizer_item(state: TrainState) -> dict[str, Any]:
  """What training needs besides the parameters; the critic is of that kind."""
  item = {'step': state.step, 'opt_state': state.opt_state}
  if state.critic is None:
    return item
  return item | {'critic': {
      'params': state.critic.params, **_optimizer_item(state.critic)}}


def _critic(item: dict[str, Any]) -> TrainState | None:
  return TrainState(**item['critic']) if 'critic' in item else None


def _abstract(tree):
  """Shapes, dtypes and, where the tree holds arrays, their shardings."""
  return jax.tree.map(
      lambda x: x if isinstance(x, jax.ShapeDtypeStruct)
      else ocp.utils.to_shape_dtype_struct(x), tree)


def _json_copy(value: dict[str, Any], name: str) -> dict[str, Any]:
  """The value as JSON gives it back; refuses what JSON would lose."""
  try:
    copy = json.loads(json.dumps(value, allow_nan=False))
  except (TypeError, ValueError) as error:
    raise ValueError(
        f'Expected {name} of strings, finite numbers, booleans, None, lists '
        f'and dicts with string keys, got {value!r} ({error}). Convert arrays '
        'with .tolist() and bytes to text.') from error
  if name == 'progress' and copy != value:
    raise ValueError(
        f'Expected progress that JSON gives back unchanged, got {value!r}, '
        f'which comes back as {copy!r}. Use lists for tuples and strings for '
        'keys.')
  return copy


def _reject_keys(tree):
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      raise ValueError(
          f'Expected no random keys in a checkpoint, got one at '
          f'{_name(path)}. Derive keys from (seed, stream, step) instead.')


def _name(path) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')


def differences(saved: dict, expected: dict, there: str = 'checkpoint',
                here: str = 'this run') -> list[str]:
  """Lines of what was stored otherwise than it is expected, by key."""
  absent = '(absent)'
  return [f'  {key}: {there} {saved.get(key, absent)!r}, '
          f'{here} {expected.get(key, absent)!r}'
          for key in sorted(saved.keys() | expected.keys())
          if saved.get(key, absent) != expected.get(key, absent)]


def _compare_fingerprints(path: pathlib.Path, saved: dict, expected: dict):
  differing = differences(saved, expected)
  if differing:
    raise ValueError(
        f'Expected a checkpoint of this run in {path}, but it was written with '
        'other settings:\n' + '\n'.join(differing) + '\nGive this run the '
        "checkpoint's settings to continue it, or another folder to start "
        'afresh.')


def _compare_trees(path: pathlib.Path, saved, target):
  """Orbax pads, cuts or casts on some mismatches; here each is an error."""
  describe = lambda tree: {
      _name(keys): f'{jnp.dtype(leaf.dtype).name}{list(leaf.shape)}'
      for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}
  saved, target = describe(saved), describe(target)
  differing = [f'  {name}: checkpoint {saved.get(name, "nothing")}, '
               f'this run {target.get(name, "nothing")}'
               for name in sorted(saved.keys() | target.keys())
               if saved.get(name) != target.get(name)]
  if differing:
    more = len(differing) - 8
    tail = f'\n  and {more} more' if more > 0 else ''
    raise ValueError(
        f'Expected the arrays of this run in {path}, but:\n'
        + '\n'.join(differing[:8]) + tail + '\nUse the model and optimiser '
        'that wrote it, or another folder to start afresh.')


def _crc(path: pathlib.Path) -> int:
  value = 0
  with path.open('rb') as file:
    while block := file.read(1 << 22):
      value = zlib.crc32(block, value)
  return value


def _damage(path: pathlib.Path) -> str | None:
  """What is wrong with the files of a checkpoint, if anything."""
  try:
    sums = {name: (int(size), int(crc)) for name, (size, crc) in
            json.loads((path / _CHECKSUMS).read_text()).items()}
  except FileNotFoundError:
    return f'{_CHECKSUMS} is missing (a deletion cut short, or another program)'
  except (ValueError, TypeError, AttributeError):
    return f'{_CHECKSUMS} is unreadable (cut short or overwritten)'
  for name, (size, crc) in sums.items():
    file = path / name
    if not file.exists():
      return f'{name} is missing'
    if file.stat().st_size != size:
      return (f'{name} has {file.stat().st_size} bytes instead of {size}')
    if _crc(file) != crc:
      return f'{name} has changed since it was written'
  return None
