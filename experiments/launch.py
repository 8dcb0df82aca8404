"""What every script does before its algorithm starts, and at its end.

Flags, compilation cache, mesh, model and tokenizer, the printed header, the
clock of the stages, and an orderly end on SIGTERM.
"""
from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import json
import pathlib
import signal
import sys
import time
from typing import Any

from absl import app
from absl import flags
from absl import logging
import jax
from ml_collections import config_dict
from ml_collections import config_flags
import numpy as np

from experiments import pins
from rljax import models
from rljax import processes
from rljax import sharding
from rljax.data import chat
from rljax.data import pipeline
from rljax.data import sources
from rljax.data import tokenizer as tokenizers
from rljax.evaluation import plots
from rljax.evaluation import report
from rljax.interop import convert
from rljax.models import lora
from rljax.models import transformer
from rljax.training import checkpoint
from rljax.training import metrics
from rljax.training import optimizer as optimizers
from rljax.training import state as training_state

_CONFIG = 'config.json'

# Settings of the model that change the way to the numbers, not the numbers.
_HOW_NOT_WHAT = ('dtype', 'remat', 'moe_dispatch', 'query_chunk')

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
      'run', flat(config.to_dict()) | report.versions()
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
  return whole | {'lora': _adapters(config)} if config.lora.rank else whole


def _adapters(config) -> dict[str, Any]:
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
  config = pins.pinned(config, stored, unread)
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
  return is_run(workdir) and bool(
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
  """Whether it is the folder of a training run: `claim` was called for it."""
  return (folder / _CONFIG).exists()


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


def stored_config(folder: pathlib.Path) -> config_dict.ConfigDict:
  """The configuration of a run, as `claim` stored it.

  Raises:
    ValueError: there is none.
  """
  path = folder / _CONFIG
  if not path.exists():
    raise ValueError(f'Expected the folder of a run in {folder}, but it has no '
                     f'{_CONFIG}. Name the --workdir of the training script.')
  config = {}
  for name, value in json.loads(path.read_text()).items():
    *sections, key = name.split('.')
    place = config
    for section in sections:
      place = place.setdefault(section, {})
    place[key] = value
  return config_dict.ConfigDict(config)


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


class Preempted(BaseException):
  """The run was asked to stop and has saved its state.

  Not an Exception: libraries catch those where they can go on without.
  """


def initial_state(config, job: Job, optimizer, key, source=None, whole=()):
  """The train state to begin with: random, or from a checkpoint.

  With `config.lora.rank` its parameters are `lora.Adapted`: the functions of
  `rljax.training`, checkpoints and samplers take them as they take others.

  Args:
    config: its `init` says where from: checkpoints of a run, or a published
      one.
    job: model and mesh.
    optimizer: of the run to come.
    key: for random parameters.
    source: (folder, step) of a run to read back, in the place of `config.init`;
      step -1 is the newest.
    whole: parts of the tree that are trained in full beside adapters: a head
      that the base does not have.

  Returns:
    (state, sharding of the state).

  Raises:
    ValueError: adapters that cannot be made, or whose base is not known.
  """
  if not config.lora.rank:
    return _whole_state(config, job, optimizer, key, source)
  state, shardings = training_state.init_state(
      job.model, optimizer, key, job.mesh, job.rules,
      params=base_params(config, job, key, source),
      adapt=adapting(config, whole))
  if source:
    folder, step = source
    with checkpoint.Checkpointer(pathlib.Path(folder).expanduser(),
                                 read_only=True,
                                 fingerprint=job.fingerprint) as saver:
      state = state.replace(params=saver.restore_params(
          state.params, None if step < 0 else step))
  return state, shardings


def base_params(config, job: Job, key, source=None):
  """The parameters that a run begins with; what adapters are trained on.

  Arguments and errors are those of `initial_state`.
  """
  base = base_of(config)
  if source and base[1] == pins.NEWEST:
    run = pathlib.Path(source[0]).expanduser().resolve().parent
    if is_run(run):
      base = base[0], base_of(stored_config(run))[1]  # as it was then
  if config.lora.rank:
    _check_adapters(config, base, source)
  state, _ = _whole_state(config, _without_adapters(job),
                          optimizers.make_optimizer('sgd', 0.0), key, base)
  return state.params


def base_of(config) -> tuple[str, int]:
  """(folder, step) of what adapters lie on; no folder: random parameters."""
  return (config.lora.base, config.lora.base_step) if config.lora.base else (
      config.init.checkpoint, config.init.step)


def adapting(config, whole=()):
  """What `training.state` wants as `adapt`: None where nothing is adapted."""
  return functools.partial(lora.create, whole=tuple(whole), **_adapters(
      config)) if config.lora.rank else None


def _without_adapters(job: Job) -> Job:
  """As a run without adapters has it, by whom such parameters are written."""
  return dataclasses.replace(job, fingerprint={
      name: value for name, value in job.fingerprint.items()
      if name != 'lora'})


def _check_adapters(config, base, source):
  if config.init.keep_optimizer:
    raise ValueError('Expected init.keep_optimizer=False with config.lora.rank,'
                     ' as new adapters have no moments, got True. Correct it.')
  if source and (not base[0] or pathlib.Path(base[0]).expanduser().resolve()
                 == pathlib.Path(source[0]).expanduser().resolve()):
    raise ValueError(
        'Expected config.lora.base, the parameters that the adapters in '
        f'{source[0]} were trained on, got {base[0]!r}. Name what that run had '
        'as config.init.checkpoint.')


def reference_of(params):
  """The policy before it was trained; what `update` donates is not in it.

  With adapters, the base without them, of which there is no second copy.
  """
  return lora.without(params) if isinstance(params, lora.Adapted) else (
      training_state.frozen_copy(params))


def _whole_state(config, job: Job, optimizer, key, source=None):
  """As `initial_state`, without adapters."""
  folder, step = source or (config.init.checkpoint, config.init.step)
  if folder and convert.is_published(folder):
    params = convert.load(folder, job.model, job.mesh, job.rules)
    return training_state.init_state(
        job.model, optimizer, key, job.mesh, job.rules, params=params)
  if not folder:
    return training_state.init_state(
        job.model, optimizer, key, job.mesh, job.rules)
  kept = training_state.abstract_state(
      job.model, optimizer, job.mesh, job.rules)
  with checkpoint.Checkpointer(pathlib.Path(folder).expanduser(),
                               read_only=True,
                               fingerprint=job.fingerprint) as saver:
    if not config.init.keep_optimizer:
      params = saver.restore_params(kept.params, None if step < 0 else step)
      return training_state.init_state(
          job.model, optimizer, key, job.mesh, job.rules, params=params)
    state, _ = saver.restore(saver.latest_step() if step < 0 else step, kept)
    return state.replace(step=state.step * 0), jax.tree.map(
        lambda x: x.sharding, kept)


def check_tokenizer(job: Job, folder: str):
  """Refuses a published model whose ids mean something else.

  Raises:
    ValueError: its tokenizer differs from this run's.
  """
  path = pathlib.Path(folder).expanduser()
  if not path.is_dir() or not (path / 'tokenizer_config.json').exists():
    return  # nothing to compare; sizes are compared by what reads the weights
  differing = tokenizers.differences(job.tokenizer, tokenizers.load(str(path)))
  if differing:
    raise ValueError(
        f'Expected the tokenizer of this run in {folder}, got one that '
        f'differs: {"; ".join(differing)}. Log-probabilities of other tokens '
        'cannot be compared: take a model with the same tokenizer.')


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
  """Ends the run after SIGTERM, when what was saved is on disk.

  Raises:
    Preempted: SIGTERM has come.
  """
  if processes.anyone(stop.requested):
    _leave(saver)


def _leave(saver):
  saver.wait()
  raise Preempted(f'saved step {saver.latest_step()} in {saver.folder}')


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


def open_records(config, job: Job, split: str, scorer=None, *,
                 hinted: bool = False):
  """The records of a split: chosen domains, checked lengths and golds.

  With `hinted`, the prompts that hold a hint must fit as well.

  Raises:
    ValueError: a prompt over the limit, or an answer that its own verifier
      rejects; both name the record.
  """
  options = dict(config.data.source)
  folder = pathlib.Path(options.pop('data_dir')).expanduser()
  source = sources.open_source(data_dir=str(folder), split=split, **options)
  source = pipeline.choose(source, domains=config.data.domains)
  hint = lambda record: sources.hint_prompt(record) if hinted else ''
  length = lambda record: max(
      len(chat.prompt_tokens(job.tokenizer, text))
      for text in (record['prompt'], hint(record) or record['prompt']))
  source, dropped = pipeline.limit(
      source, length, config.data.max_prompt_length,
      too_long=config.data.too_long)
  if dropped:
    say(f'   dropped  {dropped} prompts longer than '
        f'{config.data.max_prompt_length} tokens')
  bad = scorer.check_golds(list(source)) if scorer is not None else []
  if bad:
    first = ', '.join(sources.describe(record) for record in source
                      if record['id'] in bad[:5])
    raise ValueError(
        f'Expected every answer to pass its own verifier, but {len(bad)} of '
        f'{len(source)} in {source.name} do not (first: {first}). Correct '
        'these answers or remove the records.')
  return source


def training_plots(job: Job, panels) -> list[pathlib.Path]:
  """Draws the curves of a training run and, if it has experts, their load."""
  lines = metrics.read(job.workdir / metrics.FILE_NAME)
  folder = job.workdir / 'plots'
  drawn = plots.training_curves(lines, panels, folder)
  if job.model.config.num_experts:
    drawn.append(plots.expert_load(lines, folder))
  return drawn


def curves(job: Job, names) -> list[dict[str, Any]]:
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


def step_seconds(job: Job) -> list[dict[str, Any]]:
  """Median seconds and tokens per second of each part of a step."""
  lines = metrics.read(job.workdir / metrics.FILE_NAME)
  lines = lines[1:] or lines  # the first step compiles
  names = [name.removesuffix('_seconds') for name in lines[-1]
           if name.endswith('_seconds')]
  median = lambda name: float(np.median([line[name] for line in lines]))
  return [dict(part=name, seconds=median(f'{name}_seconds'),
               tokens_per_second=median(f'{name}_tokens_per_second'))
          for name in names]


def has_report(job: Job) -> bool:
  """Whether a run in this folder has come to its end."""
  return (job.workdir / 'report.json').exists()


def finish(job: Job, config, clock: Clock, counter, sections, plots_made):
  """Writes `report.json` and `report.md`."""
  written = report.write_report(
      job.workdir, title=job.title, command=report.command_line(),
      seed=config.seed, seconds=clock.seconds,
      compilations=dict(sorted(counter.counts.items())), sections=sections,
      plots=plots_made)
  processes.meet()  # what comes next may read it
  return written


def check_exists(path: str):
  """Refuses a config that is not there, naming those that are."""
  root = pathlib.Path(__file__).parents[1]
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
    raise Preempted('what is finished is saved')

  def exit_code():
    try:
      run(config_flag.value, workdir_flag.value)
    except Preempted as stopped:
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
