r"""One run of the sweep that a config file lists, or all of them in turn.

  python -m experiments.sweep --config=configs/policy/c3po_tiny.py
  python -m experiments.sweep --config=configs/policy/c3po_tiny.py \
      --workdir=runs/sweep --sweep_index=3

The first prints the list, the second runs its entry 3 in `runs/sweep/3`, and
`--all` runs every entry. An entry of `get_sweep()` is a flat dictionary,
{'loss.kl_coef': 0.0, 'seed': 1}, and comes after what the command line
overrides. A dictionary as a value replaces a whole section: two losses need not
have the same hyper-parameters. The folder of the config says which script runs.
"""
from __future__ import annotations

import copy
import difflib
import importlib.util
import json
import pathlib
import re

from absl import flags
from ml_collections import config_dict
from ml_collections import config_flags

from experiments import evaluate
from experiments import make_pairs
from experiments import ring_lite
from experiments import sft
from experiments import train_gan_rm
from experiments import train_policy
from experiments import train_preference
from experiments import train_reward_model
from experiments.job import launch
from rljax.evaluation import report

SCRIPTS = {'evaluation': evaluate.run, 'gan': train_gan_rm.run,
           'pairs': make_pairs.run, 'pipeline': ring_lite.run,
           'policy': train_policy.run, 'preference': train_preference.run,
           'reward': train_reward_model.run, 'supervised': sft.run}


def load(path: str | pathlib.Path):
  """A config file as a module."""
  spec = importlib.util.spec_from_file_location('swept_config', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def entries(path: str | pathlib.Path) -> list[dict]:
  """What `get_sweep()` of a config file returns."""
  module = load(path)
  if not hasattr(module, 'get_sweep'):
    raise ValueError(
        f'Expected a function get_sweep() in {path}, got none. Add one that '
        "returns a list of overrides, such as [{'seed': 0}, {'seed': 1}].")
  return list(module.get_sweep())


def script(path: str | pathlib.Path):
  """The `run` that belongs to a config, by the folder it lies in."""
  family = pathlib.Path(path).absolute().parent.name
  if family not in SCRIPTS:
    raise ValueError(
        f'Expected a config in a folder named {" or ".join(SCRIPTS)}, which '
        f'says what is to be run, got {str(path)!r}. Move it into one.')
  return SCRIPTS[family]


def apply(config, entry: dict):
  """A locked copy of the config with the entry's values.

  Raises:
    ValueError: a name that the config does not have, or a value of another
      type; the message suggests the name that was probably meant.
  """
  config = copy.deepcopy(config)  # the stages of a pipeline included
  for name, value in entry.items():
    *parents, last = re.findall(r'\w+', name)  # rl[0].seed -> rl 0 seed
    section = config
    for part in parents:
      section = _child(section, part, name)
    _child(section, last, name)
    if isinstance(value, dict):
      value = config_dict.ConfigDict(value).lock()
    try:
      section[last] = value
    except TypeError as error:
      raise ValueError(
          f'Expected a value for {name!r} of the type that the config has, got '
          f'{value!r}: {error}. Correct the entry in get_sweep().') from error
  return config.lock()


def run_entry(path, config, workdir, index: int):
  """Runs entry `index` in a folder of its own."""
  listed = entries(path)
  if not 0 <= index < len(listed):
    raise ValueError(
        f'Expected --sweep_index in 0..{len(listed) - 1}, as {path} lists '
        f'{len(listed)} runs, got {index}. Leave it out to see the list.')
  run, settings = script(path), apply(config, listed[index])
  folder = pathlib.Path(workdir).expanduser() / str(index)
  _claim(folder, listed[index])
  launch.say(f'-- {_line(index, listed[index])}')
  return run(settings, str(folder))


def run_wanted(path, config, workdir, index: int | None, *, every: bool = False,
               show: bool = False):
  """Runs one entry, or every one, or only shows the list."""
  listed, wanted = entries(path), [index is not None, every, show]
  if sum(wanted) > 1:
    raise ValueError('Expected one of --sweep_index, --all and --list, got '
                     f'{sum(wanted)} of them. Choose one.')
  if show or not any(wanted):
    print(describe(listed))
    return
  if not workdir:
    raise ValueError('Expected --workdir, the folder of the sweep, got none. '
                     'Add --workdir=runs/<name>.')
  for i in range(len(listed)) if every else (index,):
    run_entry(path, config, workdir, i)


def describe(listed: list[dict]) -> str:
  """The entries, one a line."""
  return '\n'.join(_line(i, entry) for i, entry in enumerate(listed))


def _line(index: int, entry: dict) -> str:
  values = []
  for name, value in entry.items():
    section = value.items() if isinstance(value, dict) else ()
    values += ([f'{name}.{key}={item}' for key, item in section]
               or [f'{name}={value}'])
  return f'{index:3d}  {"  ".join(values)}'


def _child(section, part: str, name: str):
  """What a part of a dotted name stands for."""
  if isinstance(section, tuple | list):
    if part.isdecimal() and int(part) < len(section):
      return section[int(part)]
    known = [str(i) for i in range(len(section))]
  else:
    known = list(section) if isinstance(
        section, config_dict.ConfigDict) else []
    if part in known:
      return section[part]
  close = difflib.get_close_matches(part, known, n=1)
  hint = f' Did you mean {close[0]!r} instead of {part!r}?' if close else ''
  raise ValueError(
      f'Expected a name of the config, got {name!r}: where {part!r} stands '
      f'there are {", ".join(known) or "no names"}.{hint} Correct the entry in '
      'get_sweep().')


def _claim(folder: pathlib.Path, entry: dict):
  """Refuses a folder in which a run with other overrides was begun."""
  folder.mkdir(parents=True, exist_ok=True)
  path, entry = folder / 'sweep.json', report.plain(entry)
  if path.exists() and json.loads(path.read_text()) != entry:
    raise ValueError(
        f'Expected {folder} to hold the run {entry}, got one of '
        f'{path.read_text().strip()}: get_sweep() has changed since. Use '
        'another --workdir.')
  report.write_json(path, entry)


def main():
  """Adds its flags to those of every script."""
  index_flag = flags.DEFINE_integer(
      'sweep_index', None, 'Which entry to run; without it, prints the list.')
  all_flag = flags.DEFINE_bool('all', False, 'Run every entry in turn.')
  list_flag = flags.DEFINE_bool('list', False, 'Print the entries.')

  def run(config, workdir):
    name = config_flags.get_config_filename(flags.FLAGS['config'])
    run_wanted(name.partition(':')[0], config, workdir, index_flag.value,
               every=all_flag.value, show=list_flag.value)

  launch.main(run, required=('config',))


if __name__ == '__main__':
  main()
