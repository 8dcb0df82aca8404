r"""Does it fit? Memory, operations and traffic of a run, before renting a pod.

  python -m experiments.plan_capacity \
      --config=configs/policy/ring_lite_paper.py --num_devices=256 \
      --device=v5p --workdir=runs/capacity

Compiles the sampler and the update of a policy config ahead of time for as many
simulated devices, with arrays that have a shape and no contents, and adds up
what XLA says of one device. Another mesh: --config.mesh.fsdp=16. Needs no
accelerator; memory for the compiler only.

The update is one of two micro-batches, each of `packing.rows_per_device` rows
on every share of the batch: a step of n of them takes n / 2 times its
operations and traffic, in the same memory. The temporary memory is that of
XLA's CPU compiler, which fuses less than those of TPUs and GPUs do and widens
bfloat16: take it for an upper estimate. Operations are those of the matrix
products.
"""
from __future__ import annotations

import dataclasses
import pathlib
import time

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
from ml_collections import config_flags
import numpy as np

from experiments.job import launch
from experiments.job import starting_params
from experiments.policy import critics
from experiments.policy import policy_pieces
from rljax import losses
from rljax import models
from rljax import rollout
from rljax import sharding
from rljax.evaluation import report
from rljax.models import lora
from rljax.models import transformer
from rljax.ops import routes
from rljax.ops import sampling
from rljax.rollout import decode
from rljax.training import forward as forwards
from rljax.training import optimizer as optimizers
from rljax.training import program
from rljax.training import state as states
from rljax.training import update as updates
from rljax.types import PolicyBatch

GIB = 2 ** 30

# GiB of memory on one device, as JAX counts devices.
DEVICES = {'v4': 32, 'v5e': 16, 'v5p': 95, 'v6e': 32, 'v7x': 96, 'a100': 80,
           'h100': 80, 'h200': 141, 'b200': 180}
_HEADROOM = 0.9  # of the memory; the rest is the runtime's and fragmentation


@dataclasses.dataclass(frozen=True)
class Stage:
  """One compiled function on one device."""
  name: str
  memory: dict[str, int]   # bytes: arguments, temporary, output
  tflops: float            # of the matrix products, on each device
  collectives: dict        # by kind; see `program.collectives`
  compile_seconds: float


def plan(config, num_devices: int, device: str) -> dict:
  """Compiles for simulated devices and says what one of them holds.

  Args:
    config: of `experiments.train_policy`; its mesh, model, optimizer, rollout
      and packing.row_length are used.
    num_devices: simulated; set before JAX has counted its devices.
    device: one of DEVICES.

  Raises:
    ValueError: a mesh that divides neither the devices nor the model, or a
      run with a critic, which is not counted.
  """
  if config.advantage == critics.GAE:
    raise ValueError("Expected an advantage without a critic, got 'gae': its "
                     'network and moments are not counted here. Plan with '
                     'group_normalized, and add what is as large as parameters '
                     'and optimizer of the policy.')
  if device not in DEVICES:
    raise ValueError(f'Expected a device among {sorted(DEVICES)}, got '
                     f'{device!r}. Name one, or add it to DEVICES.')
  mesh = sharding.make_mesh(**config.mesh, devices=jax.devices()[:num_devices])
  rules = sharding.make_rules(config.sharding)
  model = models.create(**config.model)
  optimizer = optimizers.make_optimizer(**config.optimizer)
  with sharding.use(mesh, rules):
    state = states.abstract_state(model, optimizer, mesh, rules,
                                  adapt=starting_params.adapting(config))
    parts = dict(parameters=local_bytes(state.params),
                 optimizer=local_bytes(state.opt_state))
    stages = [update_stage(config, model, optimizer, mesh, state)]
    sampled_from = rollout_params(config, model, mesh, rules, state.params)
    cache, found = sampler_stages(config, model, mesh, sampled_from)
  peak = {stage.name: sum(stage.memory.values()) for stage in [*stages, *found]}
  # The slots are given up when a rollout ends; the moments stay during one, and
  # the reference always.
  has_reference = losses.get('policy', **config.loss).hparams['kl_coef']
  # Of adapters it is their base, which is there already.
  reference = parts['parameters'] if has_reference and (
      not config.lora.rank) else 0
  peak['update'] += reference
  # Gathered or merged, it is a copy that the sampler gets: the original stays.
  copied = parts['parameters'] if (
      config.rollout.gathered_params or config.lora.rank) else 0
  for name in ('prefill', 'decode'):
    peak[name] += parts['optimizer'] + reference + copied
  limit = int(DEVICES[device] * GIB)
  total, active = transformer.count_params(model)
  return report.plain(dict(
      variant=config.model.variant, num_parameters=total,
      num_active_parameters=active, num_devices=num_devices, device=device,
      mesh=dict(mesh.shape), row_length=config.packing.row_length,
      num_slots=config.rollout.num_slots, memory_limit=limit,
      bytes=dict(parts, reference=reference, cache=cache),
      peak=peak, fits=max(peak.values()) <= _HEADROOM * limit,
      stages=[dataclasses.asdict(s) for s in [*stages, *found]]))


def update_stage(config, model, optimizer, mesh, state) -> Stage:
  """The update: two micro-batches on each share of the mesh."""
  objective = losses.get('policy', **config.loss)
  rows = sharding.batch(mesh)
  num_rows = (2 * config.packing.rows_per_device
              * sharding.batch_ways(mesh))
  array = lambda dtype, *shape: jax.ShapeDtypeStruct(
      (num_rows, *shape), dtype, sharding=rows)
  ints = array(jnp.int32, config.packing.row_length)
  floats = array(jnp.float32, config.packing.row_length)
  batch = PolicyBatch(
      tokens_BT=ints, position_BT=ints, segment_BT=ints, weight_BT=floats,
      share_BT=floats, advantage_BT=floats, old_logp_BT=floats,
      ref_logp_BT=floats if objective.hparams['kl_coef'] else None,
      load_BLE=array(jnp.float32, model.config.num_layers,
                     model.config.num_experts),
      experts_BTLX=None if config.routing_replay == 'off' else array(
          routes.dtype(model.config.num_experts), config.packing.row_length,
          model.config.num_layers, model.config.top_k))
  update = updates.make_update_fn(
      forwards.compose(
          forwards.make_forward(model, sampling.make_params(
              **policy_pieces.sampling_options(config))),
          objective.loss, **config.regularize),
      optimizer, num_microbatches=2, batch_sharding=rows,
      state_sharding=jax.tree.map(lambda x: x.sharding, state))
  return compiled_stage('update', update, mesh, state, batch,
                        jax.random.key(0))


def rollout_params(config, model, mesh, rules, params):
  """The parameters as the sampler gets them."""
  place = sharding.gathered if config.rollout.gathered_params else (
      sharding.tree_sharding)
  return jax.tree.map(
      lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at),
      jax.eval_shape(lora.merge, params),
      place(mesh, transformer.abstract_params(model), rules))


def sampler_stages(config, model, mesh, params) -> tuple[int, list[Stage]]:
  """Bytes of the slots on one device, and the sampler's functions."""
  roll = config.rollout
  sampler = rollout.make_sampler(
      model, mesh, num_slots=roll.num_slots,
      max_prompt_length=roll.max_prompt_length,
      max_new_tokens=roll.max_new_tokens,
      record_experts=config.routing_replay == 'rollout',
      gathered_params=roll.gathered_params)
  functions = sampler.functions
  slots = jax.eval_shape(functions.init)
  at = functions.init.lower().compile().output_shardings
  slots = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), slots,
      at)
  num_rows = sampler.num_prefill
  refill = decode.Refill(
      tokens_PT=np.zeros((num_rows, roll.max_prompt_length), np.int32),
      prompt_length_P=np.zeros(num_rows, np.int32),
      source_B=np.zeros(roll.num_slots, np.int32),
      hash_B=np.zeros(roll.num_slots, np.uint32),
      sample_B=np.zeros(roll.num_slots, np.int32), limit=np.int32(1))
  return local_bytes(slots), [
      compiled_stage('prefill', functions.prefill, mesh, params, slots, refill,
                     jax.random.key(0)),
      compiled_stage('decode', functions.decode, mesh, params, slots,
                     sampling.make_params(), np.int32(0))]


def compiled_stage(name: str, function, mesh, *arguments) -> Stage:
  begin = time.perf_counter()
  compiled = function.lower(*arguments).compile()
  seconds = time.perf_counter() - begin
  print(f'   compiled {name} in {seconds:.0f} s', flush=True)
  flops = program.product_flops(function, *arguments) / mesh.size
  return Stage(name, program.memory(compiled), flops / 1e12,
               program.collectives(compiled.as_text()), seconds)


def local_bytes(tree) -> int:
  """What one device holds of arrays that have shapes and shardings only."""
  size = lambda x: np.prod(x.sharding.shard_shape(x.shape), dtype=np.int64) * (
      x.dtype.itemsize)
  return int(sum(size(x) for x in jax.tree.leaves(tree)))


def table(found: dict) -> str:
  """What a user reads, in Markdown."""
  gib = lambda size: f'{size / GIB:.2f}'
  lines = [
      f'{found["variant"]} ({found["num_parameters"]:,} parameters) on '
      f'{found["num_devices"]} x {found["device"]}, mesh {found["mesh"]}, rows '
      f'of {found["row_length"]}, {found["num_slots"]} slots', '',
      '| GiB on each device | ' + ' | '.join(found['bytes']) + ' | limit |',
      '|---|' + '---|' * (len(found['bytes']) + 1),
      '| | ' + ' | '.join(map(gib, found['bytes'].values()))
      + f' | {gib(found["memory_limit"])} |', '',
      '| function | arguments | temporary | output | peak with all that stays '
      '| TFLOP | collectives, GiB (count) |', '|---|---|---|---|---|---|---|']
  for stage in found['stages']:
    moved = ', '.join(
        f'{kind} {gib(row["bytes"])} ({row["count"]:.0f})'
        for kind, row in stage['collectives'].items())
    memory = ' | '.join(gib(size) for size in stage['memory'].values())
    lines.append(f'| {stage["name"]} | {memory} | '
                 f'{gib(found["peak"][stage["name"]])} | '
                 f'{stage["tflops"]:.3f} | {moved or "none"} |')
  verdict = 'fits' if found['fits'] else 'DOES NOT FIT'
  return '\n'.join([*lines, '', f'{verdict}: {gib(max(found["peak"].values()))}'
                    f' of {_HEADROOM:.0%} of {gib(found["memory_limit"])} GiB'])


def run(config, workdir: str, num_devices: int, device: str) -> dict:
  """Plans, prints, and writes both as JSON and Markdown."""
  folder = pathlib.Path(workdir).expanduser().resolve()
  folder.mkdir(parents=True, exist_ok=True)
  print(f'== plan_capacity\n   devices  {num_devices} x {device}, simulated\n'
        f'   model    {config.model.variant}\n   writes   {folder}', flush=True)
  found = plan(config, num_devices, device) | {'command': report.command_line()}
  name = f'{config.model.variant}_{num_devices}_{device}'
  report.write_json(folder / f'{name}.json', found)
  report.write_text(folder / f'{name}.md', table(found) + '\n')
  print(table(found), flush=True)
  return found


def main(_):
  values = flags.FLAGS
  name = config_flags.get_config_filename(values['config'])
  launch.check_exists(name.partition(':')[0])
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', values.num_devices)
  run(values.config, values.workdir, values.num_devices, values.device)


if __name__ == '__main__':
  config_flags.DEFINE_config_file('config', None, 'Policy config.',
                                  lock_config=True)
  flags.DEFINE_integer('num_devices', 8, 'How many devices to simulate.')
  flags.DEFINE_enum('device', 'v5p', sorted(DEVICES), 'Whose memory counts.')
  flags.DEFINE_string('workdir', None, 'Folder for the JSON and Markdown.')
  flags.mark_flags_as_required(['config', 'workdir'])
  app.run(main)
