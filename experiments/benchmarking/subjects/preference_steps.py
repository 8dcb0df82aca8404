"""Steps on pairs of responses: DPO, and a Bradley-Terry reward model.

Everybody gets the same pairs as token ids, in every step, and the same weights:
those of a dense model and, for the reward, of a head. Lengths are skewed, as in
dialogues. What a peer pads it pads by its own rules: TRL to the longest text of
the step, Tunix prompts and responses each to their longest. Ours packs, in rows
of the length that leaves the least room, a prompt once for both responses.

The losses of the warm-up steps must agree; that of DPO begins with log 2, as
the policy begins as its reference. Tunix has no precomputed reference: it
scores its own in either row. It has no trainer of reward models.

Limits count every token once that must be computed, and the vocabulary for the
responses of DPO alone.
"""
from __future__ import annotations

import math

import numpy as np

from experiments.benchmarking.subjects import crews
from rljax import models
from rljax.packing import layout

_BETA = 0.1
_DENSE = dict(mlp_dim=4_096)
_EOS = 1  # of the tokenizer that `crews` writes
_STEP, _LONGEST = 64, 1_024  # lengths of rows are multiples, up to this

Pair = tuple[list[int], list[int], list[int]]  # prompt, chosen, rejected


def dpo_step(interleaved, smoke, team) -> list[dict]:
  return [_dpo(interleaved, smoke, team, precomputed)
          for precomputed in (False, True)]


def _dpo(interleaved, smoke, team, precomputed: bool) -> dict:
  work, config, pairs = _work(smoke)
  with crews.Crew(
      team, work, 'dpo', ('trl', 'tunix'), pairs=pairs, beta=_BETA,
      precomputed=precomputed, row_length=row_length(
          [len(prompt) + 1 + sum(map(len, sides)) for prompt, *sides in pairs])
  ) as crew:
    losses = _agreed_losses(crew)
    check_start(losses, math.log(2))
    found = crew.measure(interleaved)
    passes = 3 if precomputed else 4
    limit = len(pairs) * found.flops / (passes * sum(
        dpo_flops(config, *map(len, pair)) for pair in pairs))
    how = 'precomputed reference' if precomputed else 'reference in each step'
    return crew.row('dpo_step', f'pairs per second, {how}, {_about(pairs)}',
                    found, len(pairs), limit=limit) | dict(losses=losses)


def reward_step(interleaved, smoke, team) -> list[dict]:
  work, config, pairs = _work(smoke)
  width = config.model_dim
  head_D = np.random.default_rng(1).normal(0, (width + 1) ** -0.5, width)
  with crews.Crew(
      team, work, 'reward', ('trl',), pairs=pairs,
      row_length=row_length([len(prompt) + sum(map(len, sides))
                             for prompt, *sides in pairs]),
      head=head_D.astype(np.float32).tolist()) as crew:
    losses = _agreed_losses(crew)
    found = crew.measure(interleaved)
    limit = len(pairs) * found.flops / (3 * sum(
        trunk_flops(config, *map(len, pair)) for pair in pairs))
    return [crew.row('reward_step', f'pairs per second, {_about(pairs)}',
                     found, len(pairs), limit=limit) | dict(losses=losses)]


def make_pairs(vocab_size: int, smoke: bool) -> list[Pair]:
  """Pairs with skewed lengths; every response ends with the end of text."""
  rng = np.random.default_rng(0)
  count = 2 if smoke else 8

  def texts(median, low, high):
    lengths = np.clip(median * np.exp(0.8 * rng.normal(size=count)), low, high)
    return [rng.integers(2, vocab_size, int(length)).tolist()
            for length in lengths]

  prompts = texts(*(8, 4, 12) if smoke else (128, 16, 448))
  sides = [texts(*(4, 2, 8) if smoke else (64, 8, 256)) for _ in range(2)]
  return [(prompt, *([*side[:-1], _EOS] for side in both))
          for prompt, *both in zip(prompts, *sides, strict=True)]


def row_length(lengths: list[int]) -> int:
  """Of the rows that leave the least room, as a config would have it."""
  choices = range(-(-max(lengths) // _STEP) * _STEP, _LONGEST + 1, _STEP)
  slots = lambda length: length * (
      1 + int(layout.place(np.array(lengths), length)[0].max()))
  return min(choices, key=slots)


def dpo_flops(config, prompt: int, chosen: int, rejected: int) -> float:
  """Of a forward pass: each token once, the vocabulary for the responses."""
  return trunk_flops(config, prompt, chosen, rejected) + (
      chosen + rejected) * 2 * config.model_dim * config.vocab_size


def trunk_flops(config, prompt: int, chosen: int, rejected: int) -> float:
  """Of a forward pass through the layers, each token once."""
  return prompt * crews.flops_of_layers(config, (prompt + 1) / 2) + sum(
      side * crews.flops_of_layers(config, prompt + (side + 1) / 2)
      for side in (chosen, rejected))


def check_start(losses: dict[str, list[float]], value: float):
  """Raises ValueError unless everybody's first loss is this."""
  for name, found in losses.items():
    if abs(found[0] - value) > 1e-4:
      raise ValueError(
          f'Expected {name} to begin with the loss {value:.6f}, got '
          f'{found[0]:.6f}. Its reference is not the policy it begins with.')


def _agreed_losses(crew) -> dict[str, list[float]]:
  losses = {name: [worker.run()['loss'] for _ in range(3)]
            for name, worker in crew.workers.items()}
  crews.check_losses(losses)
  return losses


def _work(smoke: bool):
  work = crews.work_of(_DENSE, smoke, length=16)
  config = models.create(work.variant, **dict(work.model)).config
  return work, config, make_pairs(config.vocab_size, smoke)


def _about(pairs: list[Pair]) -> str:
  prompts, *sides = ([len(pair[part]) for pair in pairs] for part in range(3))
  return (f'{len(pairs)} pairs, prompts of {np.mean(prompts):.0f} tokens '
          f'(up to {max(prompts)}), responses of {np.mean(sides):.0f} (up to '
          f'{max(map(max, sides))})')
