"""What runs in one process need not make twice.

Compiled functions, checked records and graders depend on a part of a config
only. Runs that are given the same `Shared` make each of them once for every
such part: a study's runs differ in their seed, which is in none.
"""
from __future__ import annotations

import contextlib
import json
from typing import Any
from typing import Callable

from rljax.evaluation import report

# What no compiled function of a policy run has been made from.
_UNCOMPILED = ('seed', 'init', 'num_steps', 'checkpoint', 'data', 'reward',
               'judge')


class Shared:
  """Things by name and by what they were made from; closes them at the end."""

  def __init__(self):
    self._made = {}
    self._open = contextlib.ExitStack()

  def __enter__(self) -> Shared:
    return self

  def __exit__(self, *unused):
    self._made.clear()
    self._open.close()

  def __call__(self, name: str, parts: Any, make: Callable[[], Any]) -> Any:
    """`make()`, or what it gave before for equal `parts`; entered if it can.

    Args:
      name: of the thing.
      parts: JSON-like; whatever `make` reads, and does not find in `name`.
      make: called without arguments.
    """
    key = name, json.dumps(report.plain(parts), sort_keys=True)
    if key not in self._made:
      made = make()
      if hasattr(made, '__exit__'):
        made = self._open.enter_context(made)
      self._made[key] = made
    return self._made[key]


def compiled(config) -> dict[str, Any]:
  """The part of a policy config that its compiled functions are made from."""
  return {name: value for name, value in config.to_dict().items()
          if name not in _UNCOMPILED}


def records(config) -> dict[str, Any]:
  """The part of a config that decides which records are read, and how."""
  return {name: value for name, value in config.to_dict().items()
          if name in ('data', 'tokenizer', 'reward')}
