"""Letters counted word by word: `names:1; and:0; 1+0=1`.

Or with a running total: `names:0+1=1; and:1+0=1`.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from rljax.data.teachers import steps as lib


def write(facts: dict[str, Any], rng: np.random.Generator) -> list[str]:
  """Draws one of the two ways; one word needs no sum."""
  words, counts = facts['span'], _counts(facts)
  if rng.random() < 0.5:
    steps, total = [], 0
    for word, count in zip(words, counts, strict=True):
      steps.append(f'{word}:{total}+{count}={total + count}')
      total += count
    return steps
  steps = [f'{w}:{n}' for w, n in zip(words, counts, strict=True)]
  if len(words) > 1:
    steps.append('+'.join(map(str, counts)) + f'={sum(counts)}')
  return steps


def follow(facts: dict[str, Any], steps: list[str]) -> str:
  """Returns what the steps lead to; raises BadStep at the first wrong one."""
  words, counts = facts['span'], _counts(facts)
  running = bool(steps) and '=' in steps[0]
  total = 0
  for i, step in enumerate(steps[:len(words)]):
    word, _, claim = step.rpartition(':')
    if word != words[i]:
      raise lib.BadStep(i, f'expected the word {words[i]!r}')
    expected = str(counts[i])
    if running:
      expected = f'{total}+{counts[i]}={total + counts[i]}'
    if claim != expected:
      raise lib.BadStep(i, f'{step!r} should say {expected}')
    total += counts[i]
  needs_sum = not running and len(words) > 1
  if len(steps) != len(words) + needs_sum:
    raise lib.BadStep(min(len(steps), len(words) + needs_sum),
                      f'{len(steps)} steps for {len(words)} words')
  if needs_sum:
    terms, _, claim = steps[-1].partition('=')
    if terms != '+'.join(map(str, counts)):
      raise lib.BadStep(len(words), f'{terms!r} are not the counts')
    lib.check_sides(len(words), [claim], total)
  return str(total)


def _counts(facts: dict[str, Any]) -> list[int]:
  return [word.lower().count(facts['target_letter']) for word in facts['span']]
