"""One uninterrupted run of the smoke pipeline, shared by the tests of it."""
import dataclasses
import fcntl
import functools
import os
import pathlib

import jax
from jax.experimental.compilation_cache import compilation_cache as cache
import pytest

from rljax import sharding
from rljax.training import metrics
from tests.end_to_end import runs


@dataclasses.dataclass(frozen=True)
class Reference:
  """A finished run, and the folder that holds its data and its cache."""
  scratch: pathlib.Path
  workdir: pathlib.Path
  printed: str


@pytest.fixture(scope='session')
def reference(tmp_path_factory) -> Reference:
  """Made once, also where several workers want it: the others wait."""
  root = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:  # each has a folder in that of all
    root = root.parent
  scratch, printed = root / 'end_to_end', root / 'printed.txt'
  with open(root / 'reference.lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not printed.exists():
      scratch.mkdir(exist_ok=True)
      printed.write_text(runs.finish(runs.start(
          'ring_lite', scratch, scratch / 'reference')))
  return Reference(scratch, scratch / 'reference', printed.read_text())


@pytest.fixture
def one_device(monkeypatch):
  """Scripts called in this process use one device, whatever there are.

  Eight simulated ones wait for each other, which takes long on two cores.
  """
  one = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
  monkeypatch.setattr(sharding, 'make_mesh', one)


@pytest.fixture(scope='module')
def compilation_cache(tmp_path_factory):
  """Runs of one module inside this process compile what they share once."""
  names = ('jax_compilation_cache_dir',
           'jax_persistent_cache_min_compile_time_secs',
           'jax_persistent_cache_min_entry_size_bytes')
  before = {name: getattr(jax.config, name) for name in names}
  metrics.enable_compilation_cache(tmp_path_factory.mktemp('xla'))
  yield
  for name, value in before.items():
    jax.config.update(name, value)
  cache.reset_cache()
