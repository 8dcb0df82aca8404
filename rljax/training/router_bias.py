"""Balance without a loss: a bias on the routers' choices, moved by its error.

  b_e ← b_e + u · sign(mean load - load_e)

The bias is a parameter without a gradient, so it is saved, restored, sampled
with and exported like any other; what an optimiser makes of it (decay) is put
back. Gates never see it: `models.moe`.

Reference: Auxiliary-loss-free load balancing (arXiv 2408.15664), algorithm 1;
u = 0.001 there and in DeepSeek-V3 (arXiv 2412.19437) §2.1.2.
"""
from __future__ import annotations

import jax
import jax.numpy as jnp

NAME = 'router_bias'


def move(old, new, load_LE, rate: float):
  """`new` parameters with the biases of `old` moved by the step's load.

  Args:
    old: parameters before the step.
    new: parameters that the optimiser made.
    load_LE: choices of each expert over the whole step, of mean 1; None if
      nobody counted them.
    rate: u; 0 leaves the biases as they are.

  Raises:
    ValueError: there is a rate, but no bias or no load to move it by.
  """
  def is_bias(path):
    return getattr(path[-1], 'key', None) == NAME

  found = any(is_bias(path)
              for path, _ in jax.tree_util.tree_leaves_with_path(old))
  if rate and (not found or load_LE is None):
    raise ValueError(
        f'Expected parameters named {NAME!r} and the metric expert_load with '
        f'router_bias_rate={rate}, got {"no load" if found else "none"}. Set '
        'model.router_bias=True, or the rate to 0.')

  def put_back(path, before, after):
    if not is_bias(path):
      return after
    return before + rate * jnp.sign(1.0 - load_LE) if rate else before

  return jax.tree_util.tree_map_with_path(put_back, old, new) if found else new
