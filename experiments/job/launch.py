"""What every script does before its algorithm starts.

Flags, compilation cache, mesh, model and tokenizer, the printed header, how a
step divides over the devices, and an orderly end on SIGTERM.
"""
from __future__ import annotations

import dataclasses
import difflib
import functools
import pathlib
import signal
import sys
from typing import Any

from absl import app
from absl import flags
from absl import logging
import jax
from ml_collections import config_flags

from experiments.job import run_folder
from rljax import models
from rljax import processes
from rljax import sharding
from rljax.data import tokenizer as tokenizers
from rljax.evaluation import report
from rljax.interop import convert
from rljax.models import transformer
from rljax.training import metrics

# Settings of the model that change the way to the numbers, not the numbers.
_HOW_NOT_WHAT = ('dtype', 'remat', 'moe_dispatch', 'query_chunk')


@dataclasses.dataclass(frozen=True)
class Job:
  """The pieces that every stage of a run shares."""
  title: str
  workdir: pathlib.Path
  mesh: Any
  rules: Any
  model: Any
  tokenizer: Any
  fingerprint: dict[str, Any]  # what a checkpoint must agree on


def say(text: str):
  """Prints what a user shall read once, however many processes there are."""
  if jax.process_index() == 0:
    print(text, flush=True)


def start(config, workdir: str | pathlib.Path, title: str) -> Job:
  """Builds mesh, model and tokenizer, and prints what runs and where.

  Raises:
    ValueError: model, mesh or tokenizer that do not fit each other, or
      processes that were not started alike.
  """
  logging.set_verbosity(logging.ERROR)  # orbax warns of what is as intended
  workdir = pathlib.Path(workdir).expanduser().resolve()
  processes.check_same(
      'run', run_folder.flat(config.to_dict()) | report.versions()
      | {'--workdir': str(workdir)})
  mesh = sharding.make_mesh(**config.mesh)
  rules = sharding.make_rules(config.sharding)
  model = create_model(config.model)
  # Refuses a mesh that does not divide the model before anything is written.
  sharding.tree_sharding(mesh, transformer.abstract_params(model), rules)
  tokenizer = tokenizers.load(config.tokenizer)
  if tokenizer.vocab_size > model.config.vocab_size:
    raise ValueError(
        f'Tokenizer {config.tokenizer!r} has {tokenizer.vocab_size} ids but '
        f'the model embeds {model.config.vocab_size}. Use the tokenizer that '
        f'the model was made for, or a model with vocab_size='
        f'{tokenizer.vocab_size}: an entry of config.model.')
  workdir.mkdir(parents=True, exist_ok=True)
  total, active = transformer.count_params(model)
  devices, count = jax.devices(), jax.process_count()
  say(f'== {title}\n'
      f'   devices  {len(devices)} x {devices[0].device_kind} '
      f'({devices[0].platform})'
      + (f' of {count} processes\n' if count > 1 else '\n')
      + f'   mesh     {dict(mesh.shape)}\n'
      f'   model    {config.model.variant}: {total:,} parameters, '
      f'{active:,} active\n'
      f'   writes   {workdir}')
  return Job(title, workdir, mesh, rules, model, tokenizer,
             make_fingerprint(config, model))


def make_fingerprint(config, model) -> dict[str, Any]:
  """What a checkpoint must agree on with the run that reads it."""
  whole = {
      name: value for name, value in dataclasses.asdict(model.config).items()
      if name not in _HOW_NOT_WHAT} | {'tokenizer': config.tokenizer}
  return whole | {'lora': adapters(config)} if config.lora.rank else whole


def adapters(config) -> dict[str, Any]:
  """What the `lora` section says of the adapters themselves."""
  options = dict(config.lora)
  del options['base'], options['base_step']
  return options | {'targets': list(options['targets'])}


def create_model(options):
  """The model of a config's `model` section.

  Its `variant` is a name, or a folder or file with a published checkpoint.
  """
  variant, fields = options['variant'], dict(options)
  if not convert.is_published(variant):
    return models.create(**fields)
  del fields['variant']
  return transformer.Transformer(convert.model_config(variant, **fields))


def num_microbatches(config, mesh) -> int:
  """Into how many parts the rows of a step are split on this mesh.

  Raises:
    ValueError: the rows, or their length, do not divide.
  """
  length, parts = config.packing.row_length, mesh.shape['context']
  if length % parts:
    raise ValueError(
        f'Expected packing.row_length to be a multiple of mesh.context = '
        f'{parts}, got {length}. Change one of them.')
  rows, each = config.packing.num_rows, config.packing.rows_per_device
  ways = sharding.batch_ways(mesh)
  if each < 1 or rows % (each * ways):
    raise ValueError(
        f'Expected packing.num_rows to be a multiple of rows_per_device times '
        f'the {ways} shares that the mesh makes of a batch (data x fsdp), got '
        f'{rows} and rows_per_device={each}. Change one of them, or '
        'config.mesh.')
  return rows // (each * ways)


def check_rows(rows: int, needed: int, name: str = ''):
  """Refuses, before anything is compiled, rows too few for some draw.

  Args:
    rows: packing.num_rows.
    needed: rows that any lengths fit in.
    name: of the setting that says so.

  Raises:
    ValueError: they are.
  """
  if rows < needed:
    raise ValueError(
        f'Expected packing.num_rows >= {f"{name} = " if name else ""}{needed}, '
        f'which any lengths fit in, got {rows}. Raise it: micro-batches '
        'without a token cost nothing.')


def check_positions(model, longest: int):
  """Refuses texts longer than the model's rotary positions were made for.

  Raises:
    ValueError: they are.
  """
  if longest > model.config.max_positions:
    raise ValueError(
        f'Expected texts of at most {model.config.max_positions} tokens, the '
        f"model's max_positions, got a limit of {longest}. Lower "
        'max_prompt_length, max_new_tokens or row_length, or extend the model '
        'with config.model.max_positions and yarn.')


def share(total: int) -> dict[str, int]:
  """How many of a step's records are this process's, and which.

  Raises:
    ValueError: they do not divide.
  """
  count = jax.process_count()
  if total % count:
    raise ValueError(
        'Expected data.prompts_per_step or data.examples_per_step to be a '
        f'multiple of the {count} processes, which take equal shares of a '
        f'step, got {total}. Change it, or the number of processes.')
  return dict(batch_size=total // count, host_index=jax.process_index(),
              host_count=count)


def check_exists(path: str):
  """Refuses a config that is not there, naming those that are."""
  root = pathlib.Path(__file__).parents[2]
  if not pathlib.Path(path).exists():
    known = sorted(str(found.relative_to(root))
                   for found in root.glob('configs/*/*.py'))
    close = difflib.get_close_matches(path, known, n=1)
    hint = f' Did you mean {close[0]!r}?' if close else ''
    raise ValueError(f'Expected a config file, got {path!r}, which is not '
                     f'there. Configs: {", ".join(known)}.{hint}')


def main(run, required=('config', 'workdir')):
  """Parses --config and --workdir and calls `run(config, workdir)`."""
  config_flag = config_flags.DEFINE_config_file(
      'config', None, 'Config file, e.g. configs/policy/c3po_tiny.py:smoke.',
      lock_config=True)
  workdir_flag = flags.DEFINE_string(
      'workdir', None, 'Folder for checkpoints, metrics and the report.')
  cache_flag = flags.DEFINE_string(
      'compilation_cache', '~/.cache/rljax/xla',
      'Folder of compiled programs, shared by runs; empty for none.')
  coordinator_flag = flags.DEFINE_string(
      'coordinator', None, 'host:port of process 0 of several, or auto: as jax '
      'finds it on a TPU pod, under SLURM, in Kubernetes.')
  count_flag = flags.DEFINE_integer(
      'num_processes', None, 'How many processes run together.')
  index_flag = flags.DEFINE_integer(
      'process_id', None, 'Which of them this is, from 0.')
  timeout_flag = flags.DEFINE_integer(
      'process_timeout', 100, 'Seconds after which a process that is silent '
      'ends the others.', lower_bound=1)
  code_flag = flags.DEFINE_integer(
      'stopped_exit_code', 0, 'After SIGTERM, when the state is saved; not 0 '
      'where a scheduler shall start the run again.')
  flags.mark_flags_as_required(list(required))

  def leave(number, frame):
    # Evaluation, or between stages: whatever is done is on disk already.
    raise run_folder.Preempted('what is finished is saved')

  def exit_code():
    try:
      run(config_flag.value, workdir_flag.value)
    except run_folder.Preempted as stopped:
      say(f'Stopped on request: {stopped}. The same command continues.')
      return code_flag.value
    return 0

  def body(_):
    signal.signal(signal.SIGTERM, leave)  # training loops put their own above
    name = config_flags.get_config_filename(flags.FLAGS['config'])
    check_exists(name.partition(':')[0])  # what follows is its argument
    if cache_flag.value:
      metrics.enable_compilation_cache(
          pathlib.Path(cache_flag.value).expanduser())
    processes.keep_collectives_in_order()
    found = processes.settings(coordinator_flag.value, count_flag.value,
                               index_flag.value)
    with processes.joined(found, timeout_flag.value):
      code = exit_code()
    sys.exit(code)

  app.run(functools.partial(body))
