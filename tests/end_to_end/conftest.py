"""One uninterrupted run of the smoke pipeline, shared by the tests of it."""
import dataclasses
import pathlib

import pytest

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
