"""What a study makes once: a file of its workdir that knows what it is of.

A name alone would hand the values of a smoke run to the study itself.
"""
from __future__ import annotations

from collections.abc import Callable
import pathlib
import pickle
from typing import Any
import zlib

import jax
import numpy as np


def made(folder, name: str, what: Any, make: Callable[[], Any]):
  """What was made before of the same, or now.

  Args:
    folder: of the files; is made.
    name: of the file, for people.
    what: sizes, seeds, settings: whatever decides the value, but the code. Its
      `repr` has to tell, so no array is to be in it.
    make: () -> arrays in a tree.
  """
  path = pathlib.Path(folder).expanduser() / (
      f'{name.replace(" ", "_")}_{digest(what)}.pickle')
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    found = jax.tree.map(np.asarray, make())
    temporary = path.with_suffix('.tmp')
    temporary.write_bytes(pickle.dumps(found))
    temporary.rename(path)
  return pickle.loads(path.read_bytes())


def digest(what: Any) -> str:
  """For the name of a file of what has this `repr`."""
  return f'{zlib.crc32(repr(what).encode()):08x}'
