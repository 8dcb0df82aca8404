r"""Scores of image files by a reward of GAN-RM, and the best of them.

  python -m experiments.score_images --run=runs/gan_rm --images=samples \
      --workdir=runs/scores --best=4

`--images` are files, or folders that are searched for PNG and JPEG files. An
image is prepared as those of the run were: the middle square, resized, with
their margin. `--each_folder` takes the best of each folder by itself, where a
folder holds the samples of a prompt. A reward that is conditioned takes a
file's folder for its class.

Writes `scores.json`: all scores in the order of the files, and the best. A file
that cannot be read ends the script with its name, before anything is scored; by
`--skip_unreadable` it is listed instead.
"""
from __future__ import annotations

from collections.abc import Sequence
import pathlib

from absl import app
from absl import flags
import numpy as np

from experiments.gan import gan_reward
from experiments.job import launch
from rljax.data import images
from rljax.evaluation import report
from rljax.training import metrics

_BATCH = 64  # images scored at once: one shape, compiled once


def run(folder: str, named: Sequence[str], workdir: str, *, number: int = -1,
        best: int = 1, each_folder: bool = False,
        skip_unreadable: bool = False) -> dict:
  """Scores files; returns what `scores.json` holds.

  Args:
    folder: the --workdir of `experiments.train_gan_rm`.
    named: files, or folders of them.
    workdir: of `scores.json`.
    number: of the round whose reward it is; -1 is the last.
    best: how many are named.
    each_folder: the best of each folder, not of all.
    skip_unreadable: lists what cannot be read, and goes on.

  Raises:
    ValueError: no run, no image, or one that cannot be read.
  """
  if best < 1:
    raise ValueError(f'Expected --best >= 1, got {best}. Raise it.')
  reward = gan_reward.load(folder, number)
  paths = found_paths(named)
  whole, unreadable = read(reward, paths, skip_unreadable)
  score_R = score(reward, whole)
  rows = [{'image': str(path), 'score': float(x)}
          for (path, _), x in zip(whole, score_R, strict=True)]
  found = {'run': str(reward.folder), 'round': reward.number,
           'command': report.command_line(), 'scores': rows,
           'best': ranked(rows, best, each_folder), 'unreadable': unreadable}
  target = pathlib.Path(workdir).expanduser().resolve()
  target.mkdir(parents=True, exist_ok=True)
  report.write_json(target / 'scores.json', found)
  launch.say(f'   {len(rows)} images scored, {len(unreadable)} could not be '
             f'read; writes {target / "scores.json"}')
  for row in found['best']:
    launch.say(f'   {row["score"]:.4f}  {row["image"]}')
  return found


def found_paths(named: Sequence[str]) -> list[pathlib.Path]:
  """Files, and those of folders, each once.

  Raises:
    ValueError: one that is neither, or nothing is named.
  """
  found = []
  for name in named:
    path = pathlib.Path(name).expanduser()
    if not path.exists():
      raise ValueError(f'Expected a file or a folder of images, got {name!r}, '
                       'which is not there. Correct --images.')
    found += images.files(path) if path.is_dir() else [path]
  if not found:
    raise ValueError('Expected images to score, got none. Name files or '
                     'folders with --images.')
  return list(dict.fromkeys(found))


def read(reward, paths, skip_unreadable: bool):
  """([(path, pixels_YWU)], what cannot be read), without the margin."""
  whole, unreadable = [], []
  for i in metrics.progress(range(len(paths)), 'read'):
    path = paths[i]
    try:
      whole.append((path, images.read(path, reward.data.size,
                                      reward.data.channels)))
    except ValueError as error:
      if not skip_unreadable:
        raise
      unreadable.append({'image': str(path), 'why': str(error)})
  if not whole:
    raise ValueError(f'Expected an image that can be read, got none of '
                     f'{len(paths)}, the first for this: '
                     f'{unreadable[0]["why"]} Replace the files.')
  return whole, unreadable


def score(reward, whole) -> np.ndarray:
  """R of each image, in batches of one shape."""
  class_R = classes(reward, [path for path, _ in whole])
  part = images.pad(images.ImageSet(
      'files', np.stack([pixels for _, pixels in whole]), class_R,
      reward.classes), reward.data.margin)
  found = []
  for i in metrics.progress(range(-(-len(part) // _BATCH)), 'score'):
    # The last batch is filled up from the front.
    some = part.take(np.arange(i * _BATCH, (i + 1) * _BATCH) % len(part))
    found.append(reward(some.pixels_RYWU, some.class_R))
  return np.concatenate(found)[:len(part)]


def classes(reward, paths) -> np.ndarray:
  """class_R of the files: by their folder where the reward asks for it.

  A class is called as the run's folder of images has it, 'cat' or 'train/cat';
  '.' is a folder without others in it, and any image is of that class.

  Raises:
    ValueError: a folder that is no class of the run.
  """
  if not reward.conditioned:
    return np.zeros(len(paths), np.int32)
  folders = [path.resolve().parent for path in paths]
  names = [_class(reward.classes, folder) for folder in folders]
  unknown = sorted({folder.name for folder, name in zip(folders, names,
                                                      strict=True)
                    if name is None})
  if unknown:
    raise ValueError(
        f'Expected folders named by the classes {list(reward.classes)}, as the '
        f'reward is conditioned on them, got {unknown}. Sort the images into '
        'such folders.')
  return np.array([reward.classes.index(name) for name in names], np.int32)


def _class(names: Sequence[str], folder: pathlib.Path) -> str | None:
  """The longest of the names in which a folder ends; '.' fits any."""
  fits = [name for name in names if folder.parts[
      len(folder.parts) - len(pathlib.PurePath(name).parts):]
          == pathlib.PurePath(name).parts]
  return max(fits, key=len, default=None)


def ranked(rows, best: int, each_folder: bool) -> list[dict]:
  """The best rows, of each folder or of all; of equals, the first."""
  groups = {}
  for row in rows:
    group = str(pathlib.Path(row['image']).parent) if each_folder else ''
    groups.setdefault(group, []).append(row)
  order = lambda group: sorted(group, key=lambda row: -row['score'])[:best]
  return [row for group in groups.values() for row in order(group)]


def main():
  """Flags, then `run`."""
  flags.DEFINE_string('run', None, 'Folder of a run of train_gan_rm.')
  flags.DEFINE_list('images', None, 'Files or folders, separated by commas.')
  flags.DEFINE_string('workdir', None, 'Folder of scores.json.')
  flags.DEFINE_integer('round', -1, 'Whose reward; -1 is the last.')
  flags.DEFINE_integer('best', 1, 'How many are named.')
  flags.DEFINE_bool('each_folder', False, 'Best of each folder, not of all.')
  flags.DEFINE_bool('skip_unreadable', False,
                    'List what cannot be read, and go on.')
  flags.mark_flags_as_required(['run', 'images', 'workdir'])

  def call(_):
    flag = flags.FLAGS
    run(flag.run, flag.images, flag.workdir, number=flag.round, best=flag.best,
        each_folder=flag.each_folder, skip_unreadable=flag.skip_unreadable)
  app.run(call)


if __name__ == '__main__':
  main()
