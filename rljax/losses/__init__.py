"""Objectives by name. A folder is a signature, a file in it is an objective.

`get` imports `rljax.losses.<family>.<name>` and binds hyper-parameters to its
`loss`. Adding an objective is adding a file: nothing here changes. A family
whose hyper-parameters have ranges has a `check` of them in its own `__init__`.
"""
from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import difflib
import functools
import importlib
import inspect
import pkgutil
import types
from typing import Any


@dataclasses.dataclass(frozen=True)
class Objective:
  """The two stages of an objective: weights of a step, then a weighted sum."""
  name: str
  # On the whole step, without a model; None where pairs are what counts.
  token_weights: Callable[..., Any] | None
  loss: Callable[..., Any]           # on any rows of it; hparams are bound
  reads: tuple[str, ...]             # optional fields of the batch it must find
  one_sided: bool                    # of pairs: one response alone is enough
  hparams: Mapping[str, Any]         # all keywords of `loss`, with defaults


def names(family: str) -> tuple[str, ...]:
  """The objectives of a family, in alphabetical order."""
  families = [m.name for m in pkgutil.iter_modules(__path__) if m.ispkg]
  if family not in families:
    raise KeyError(_unknown('family of losses', family, families))
  package = importlib.import_module(f'{__name__}.{family}')
  return tuple(sorted(m.name for m in pkgutil.iter_modules(package.__path__)))


def get(family: str, name: str, **hparams: Any) -> Objective:
  """Looks an objective up and binds keyword arguments to its loss."""
  existing = names(family)
  if name not in existing:
    raise KeyError(_unknown(f'{family} loss', name, existing))
  module = importlib.import_module(f'{__name__}.{family}.{name}')
  defaults = {
      p.name: p.default
      for p in inspect.signature(module.loss).parameters.values()
      if p.kind is inspect.Parameter.KEYWORD_ONLY
  }
  for key in hparams:
    if key not in defaults:
      raise ValueError(
          _unknown(f'hyper-parameter of {family} loss {name!r}', key, defaults))
  bound = defaults | hparams
  missing = [k for k, v in bound.items() if v is inspect.Parameter.empty]
  if missing:
    raise ValueError(
        f'Expected a value for {", ".join(missing)} of {family} loss {name!r}, '
        f'got {sorted(hparams)}. Add the missing ones to the config.')
  package = importlib.import_module(f'{__name__}.{family}')
  if hasattr(package, 'check'):
    package.check(name, bound)
  return Objective(
      name=name,
      token_weights=getattr(module, 'token_weights', None),
      loss=functools.partial(module.loss, **bound),
      reads=getattr(module, 'READS', ()),
      one_sided=getattr(module, 'ONE_SIDED', False),
      hparams=types.MappingProxyType(bound),
  )


def _unknown(what: str, got: str, existing) -> str:
  close = difflib.get_close_matches(got, list(existing), n=1)
  hint = f' Did you mean {close[0]!r}?' if close else ''
  listed = ', '.join(sorted(existing)) or '(none)'
  return f'Unknown {what} {got!r}; use one of: {listed}.{hint}'
