"""Eight simulated CPU devices, strict shapes, no network, our warnings fail."""
import gc
import os
import pathlib
import socket

os.environ['JAX_PLATFORMS'] = 'cpu'
# The second and third make compilation eight times faster and code slower, the
# right bargain for models of this size. The fourth: see
# processes.keep_collectives_in_order.
os.environ['XLA_FLAGS'] = ' '.join([
    '--xla_force_host_platform_device_count=8',
    '--xla_backend_optimization_level=0',
    '--xla_cpu_use_fusion_emitters=false',
    '--xla_cpu_enable_concurrency_optimized_scheduler=false',
    os.environ.get('XLA_FLAGS', '')])  # the caller's win
os.environ['HF_HUB_OFFLINE'] = '1'

import jax
import pytest

jax.config.update('jax_numpy_rank_promotion', 'raise')


def pytest_configure(config):
  """What our own lines are warned about is an error; others' is shown."""
  config.addinivalue_line('filterwarnings', r'error:::(rljax|experiments)\.')


# Of the 65,530 pieces of memory that Linux grants a process by default. A
# compiled program takes a few; XLA dies of a segmentation fault without more.
_MANY_MAPS = 20_000


@pytest.fixture(autouse=True, scope='module')
def forget_programs():
  """A process that has compiled much lets go of it between two files."""
  yield
  if num_maps() > _MANY_MAPS:
    jax.clear_caches()
    gc.collect()


def num_maps() -> int:
  """Pieces of memory of this process; 0 where nobody says."""
  maps = pathlib.Path('/proc/self/maps')
  return len(maps.read_text().splitlines()) if maps.exists() else 0


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
  """Connections leave this machine only by mistake."""
  connect = socket.socket.connect

  def local_only(self, address):
    if self.family != socket.AF_UNIX and address[0] not in (
        '127.0.0.1', '::1', 'localhost'):
      raise OSError(f'A test tried to reach {address}; tests need no network.')
    return connect(self, address)

  monkeypatch.setattr(socket.socket, 'connect', local_only)
