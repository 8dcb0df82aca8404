"""Several processes that run one program on one mesh.

Every process runs the same script. What compiled functions see are global
arrays; what the host does is shared out:

  own(items)        this process's part: every n-th item
  gather_own(mine)  the parts of all, put together in the order of the items

so that afterwards every process holds the same and takes the same decisions:
all of them must call the same collective functions in the same order. With one
process, all of this costs nothing.
"""
from __future__ import annotations

from collections.abc import Sequence
import contextlib
import os
import pickle
import sys
import traceback
from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

_ENVIRONMENT = {'coordinator': 'JAX_COORDINATOR_ADDRESS',
                'num_processes': 'JAX_NUM_PROCESSES',
                'process_id': 'JAX_PROCESS_ID'}
_IN_ORDER = '--xla_cpu_enable_concurrency_optimized_scheduler=false'
_LEAST = 1024  # bytes of an exchange


def settings(coordinator: str | None = None, num_processes: int | None = None,
             process_id: int | None = None) -> dict[str, Any] | None:
  """How to join the others; what is None comes from the environment.

  Args:
    coordinator: host:port at which process 0 is reached; 'auto' leaves all
      three to what jax finds out by itself on a TPU pod, under SLURM, or in
      Kubernetes.
    num_processes: of the run.
    process_id: of this one, from 0.

  Returns:
    Arguments of `jax.distributed.initialize`; None for a process by itself.

  Raises:
    ValueError: some are given and some are missing, or out of range.
  """
  given = dict(coordinator=coordinator, num_processes=num_processes,
               process_id=process_id)
  for name, variable in _ENVIRONMENT.items():
    if given[name] is None and os.environ.get(variable):
      given[name] = os.environ[variable]
  if given['coordinator'] == 'auto':
    if num_processes is not None or process_id is not None:
      raise ValueError(
          'Expected --coordinator=auto alone, got --num_processes or '
          '--process_id with it. Leave them out, or give host:port.')
    return {}
  missing = [name for name, value in given.items() if value is None]
  if len(missing) == len(given):
    return None
  if missing:
    raise ValueError(
        'Expected --coordinator, --num_processes and --process_id together, '
        f'got no {" and no ".join(missing)} (flag or environment variable '
        f'{", ".join(_ENVIRONMENT[name] for name in missing)}). Give all '
        'three, or --coordinator=auto.')
  try:
    count, index = int(given['num_processes']), int(given['process_id'])
  except ValueError as error:
    raise ValueError(f'Expected numbers for num_processes and process_id, got '
                     f'{given}. Correct them.') from error
  if not 0 <= index < count:
    raise ValueError(f'Expected 0 <= process_id < num_processes, got {index} '
                     f'and {count}. Correct them.')
  return dict(coordinator_address=given['coordinator'], num_processes=count,
              process_id=index, cluster_detection_method='deactivate')


def keep_collectives_in_order():
  """For simulated devices; call it before the first use of a device.

  By default XLA runs what is independent in whatever order it becomes ready.
  Two CPU devices may then begin with different collectives, and wait for each
  other for ever. What stands in XLA_FLAGS already, wins.
  """
  flags = os.environ.get('XLA_FLAGS', '')
  if ('xla_force_host_platform_device_count' in flags
      or int(os.environ.get('JAX_NUM_CPU_DEVICES') or 1) > 1):
    os.environ['XLA_FLAGS'] = f'{_IN_ORDER} {flags}'


@contextlib.contextmanager
def joined(found: dict[str, Any] | None, timeout: int):
  """The body runs as one of several processes; enter it before using devices.

  A process whose body fails leaves at once, without waiting for the others at
  the usual barrier, so that they notice. One that vanishes is missed after
  `timeout` seconds at the latest; the others then end with a message.

  Args:
    found: from `settings`; None for a process by itself.
    timeout: seconds for a heartbeat to come, and for all to end.
  """
  if found is None:
    yield
    return
  # Preemption is a flag of ours, agreed on between steps; see `anyone`.
  jax.config.update('jax_enable_preemption_service', False)
  jax.distributed.initialize(**found, heartbeat_timeout_seconds=timeout,
                             shutdown_timeout_seconds=timeout)
  try:
    yield
  except BaseException:
    traceback.print_exc()
    print(f'Process {jax.process_index()} of {jax.process_count()} has failed, '
          'as above; the others end too. If the error is one of communication, '
          'look for the process that failed first.', file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)  # jax's exit hook would wait for the others, who wait for this
  jax.distributed.shutdown()


def own(items: Sequence) -> list:
  """This process's part; without a rest when they divide, in any case all."""
  return list(items[jax.process_index()::jax.process_count()])


def gather_own(mine: Sequence) -> list:
  """The inverse of `own`: what each process made of its part, in order."""
  parts = gather(list(mine))
  total = sum(map(len, parts))
  return [parts[i % len(parts)][i // len(parts)] for i in range(total)]


def gather(value) -> list:
  """The value of every process, by process; any that pickles."""
  if jax.process_count() == 1:
    return [value]
  data = np.frombuffer(pickle.dumps(value), np.uint8)
  sizes = _of_all(np.asarray([data.size]))[:, 0]
  # Powers of two, as each size is a compilation.
  room = 1 << (max(int(sizes.max()), _LEAST) - 1).bit_length()
  padded = np.zeros(room, np.uint8)
  padded[:data.size] = data
  found = _of_all(padded)
  return [pickle.loads(part[:size].tobytes())
          for part, size in zip(found, sizes, strict=True)]


def fetch(x) -> np.ndarray:
  """A whole array on the host, in every process."""
  if not isinstance(x, jax.Array) or (
      x.is_fully_addressable or x.is_fully_replicated):
    return np.asarray(x)
  return _whole(x, x.sharding.mesh)


def anyone(flag: bool) -> bool:
  """Whether it is true in some process; also a point where all meet."""
  return any(gather(bool(flag)))


def meet():
  """Returns when all processes have come here."""
  gather(None)


def _of_all(row: np.ndarray) -> np.ndarray:
  """The rows of all processes, one below the other."""
  grid = np.array(jax.devices()).reshape(jax.process_count(), -1)
  mesh = Mesh(grid, ('processes', 'devices'))
  return _whole(jax.make_array_from_process_local_data(
      NamedSharding(mesh, PartitionSpec('processes')), row[None]), mesh)


def _whole(x: jax.Array, mesh) -> np.ndarray:
  settle_all(jax.live_arrays())
  with jax.set_mesh(mesh):
    found = jax.jit(_as_it_is, out_shardings=NamedSharding(
        mesh, PartitionSpec()))(x)
  return np.asarray(settle(found).addressable_data(0))


def _as_it_is(x):
  return x


def settle(tree):
  """The same tree, computed by now if on CPUs: call it between programs.

  Programs that do not depend on each other run at the same time there, and
  those of several processes then wait for each other crosswise, for ever.
  Other devices run one after the other.
  """
  if jax.process_count() > 1 and jax.default_backend() == 'cpu':
    jax.block_until_ready(tree)
  return tree


def settle_all(arrays):
  """Settles what is still there of these.

  What saves a checkpoint lets go of its copies meanwhile, in another thread.
  """
  for x in arrays:
    try:
      settle(x)
    except RuntimeError:
      if not x.is_deleted():
        raise


def check_same(what: str, values: dict[str, Any]):
  """Refuses, in every process, values that are not the same in all.

  Raises:
    ValueError: they differ; says which, where, and what they are.
  """
  absent = '(absent)'
  everyone = gather(values)
  differing = []
  for index, other in enumerate(everyone):
    differing += [
        f'  {name}: process 0 {everyone[0].get(name, absent)!r}, process '
        f'{index} {other.get(name, absent)!r}'
        for name in sorted(everyone[0].keys() | other.keys())
        if everyone[0].get(name, absent) != other.get(name, absent)]
  if differing:
    raise ValueError(
        f'Expected the same {what} in all {len(everyone)} processes, got:\n'
        + '\n'.join(differing) + '\nStart all of them with the same command, '
        'the same code and the same packages.')
