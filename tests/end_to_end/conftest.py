"""One uninterrupted run of the smoke pipeline, shared by the tests of it."""
import dataclasses
import functools
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
  scratch = tmp_path_factory.mktemp('end_to_end')
  workdir = scratch / 'reference'
  printed = runs.finish(runs.start('ring_lite', scratch, workdir))
  return Reference(scratch, workdir, printed)


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
