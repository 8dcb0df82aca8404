"""A layer of experts under each dispatch, forward and backward.

The one that `auto` takes on this platform against the others; all give equal
outputs, which is checked first.
"""
from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from rljax.models import moe
from rljax.models import variants

_NAMES = ('dense', 'block', 'ragged')


def run(interleaved, smoke: bool, team) -> list[dict]:
  del team  # all in this process
  sizes = [(64, 'tiny')] if smoke else [
      (64, 'mini'), (2_048, 'mini'), (2_048, 'tiny_wide')]
  return [measure(interleaved, *size) for size in sizes]


def measure(interleaved, num_tokens: int, variant: str) -> dict:
  """Milliseconds of a layer and its gradients, fp32."""
  config = variants.VARIANTS[variant]
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape) * 0.1, jnp.float32)
  experts, width, hidden = (config.num_experts, config.model_dim,
                            config.expert_dim)
  arrays = (draw(num_tokens, width),
            jnp.asarray(rng.uniform(size=(num_tokens, config.top_k)),
                        jnp.float32),
            draw(experts, width, 2, hidden), draw(experts, hidden, width))
  experts_MX = jnp.asarray(np.stack([
      rng.permutation(experts)[:config.top_k] for _ in range(num_tokens)]),
      jnp.int32)

  def layer(name):
    chosen = moe.choose_dispatch(
        config if name == 'auto' else _with(config, name), experts_MX.size)

    def loss(x_MD, gates_MX, gate_up_ED2F, down_EFD):
      y_MD = chosen(x_MD, experts_MX, gates_MX, gate_up_ED2F, down_EFD)
      return jnp.sum(y_MD * y_MD), y_MD
    run = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
    return lambda: run(*arrays)

  functions = {name: layer(name) for name in ('auto', *_NAMES)}
  want = functions['dense']()
  for name in _NAMES:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(
        a, b, rtol=1e-3, atol=1e-4), functions[name](), want)
  found = interleaved(functions, rounds=7)
  peers = {name: 1e3 * found[name] for name in _NAMES}
  return dict(
      row='moe_dispatch', higher_is_better=False,
      metric=f'ms, {num_tokens} tokens through a layer of {variant}, forward '
      'and backward', rljax=1e3 * found['auto'], peers=peers)


def _with(config, dispatch: str):
  return variants.dataclasses.replace(config, moe_dispatch=dispatch)
