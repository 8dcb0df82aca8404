"""Recorded routes: the experts of every token, in as few bytes as they need.

A route is [layers, experts per token] of unsigned ids. The largest id of the
type marks a token that was not recorded; the router chooses for it.
"""
from __future__ import annotations

import numpy as np


def dtype(num_experts: int) -> np.dtype:
  """One byte up to 255 experts, two above."""
  return np.dtype(np.uint8 if num_experts < 256 else np.uint16)


def unrecorded(route_dtype) -> int:
  """The id of no expert."""
  return int(np.iinfo(route_dtype).max)
