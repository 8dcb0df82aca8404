"""Right answers and right reasoning in the course of training.

With `config.judge` of a policy run, the responses of every `judge.every`-th
step are judged. `reasoning.jsonl` in the run's folder gets a line for each
question and step; the metrics say how often an answer is right, how often the
reasoning of a right one is, and what advantage either kind of reasoning was
given: the theorem's claim is that of the sound one is positive.

Reference: arXiv 2506.14245, theorem 1 and the training dynamics.
"""
from __future__ import annotations

import pathlib

import jax
import numpy as np

from experiments.policy import critics
from experiments.policy import judging
from experiments.policy import responses
from rljax.evaluation import cot_dynamics
from rljax.evaluation import cot_pass_at_k
from rljax.evaluation import plots

FILE_NAME = 'reasoning.jsonl'
_RULE = 'majority'
_WINDOWS = 4


def record(config, graded: responses.Graded, step: int, folder) -> dict:
  """Judges a step's responses; returns the metrics, {} where none are judged.

  Only the first of several processes judges, as only it writes.
  """
  if (config.judge.name == 'none' or step % config.judge.every
      or jax.process_index()):
    return {}
  sound_PG = cot_pass_at_k.aggregate(
      judging.verdicts(config, graded, folder), _RULE,
      config.judge.missing) & graded.valid_PG
  both_PG = sound_PG & graded.correct_PG
  cot_dynamics.append(folder / FILE_NAME, [
      cot_dynamics.Observation(
          step=step, question=row['id'], samples=int(valid_G.sum()),
          correct=int((correct_G & valid_G).sum()), sound=int(both_G.sum()))
      for row, valid_G, correct_G, both_G in zip(
          graded.records, graded.valid_PG, graded.correct_PG, both_PG,
          strict=True) if valid_G.any()])
  return metrics(config, graded, sound_PG)


def metrics(config, graded: responses.Graded, sound_PG) -> dict[str, float]:
  """Shares of the responses, and mean advantages; NaN of none at all."""
  valid_PG, right_PG = graded.valid_PG, graded.correct_PG & graded.valid_PG
  share = lambda x_PG, of_PG: (
      float(x_PG[of_PG].mean()) if of_PG.any() else float('nan'))
  found = {
      'answer_right': share(right_PG, valid_PG),
      'reasoning_right_of_these': share(sound_PG, right_PG),
      'cot_pass_at_1': share(right_PG & sound_PG, valid_PG)}
  # Of responses that were judged: a server is not asked about wrong answers.
  if config.advantage != critics.GAE and (
      config.judge.name == 'program' or config.judge.everything):
    advantage_PG = critics.response_advantages(config, graded).reshape(
        valid_PG.shape)
    found |= {'advantage_of_sound': share(advantage_PG, sound_PG),
              'advantage_of_unsound': share(advantage_PG,
                                            valid_PG & ~sound_PG)}
  return found


def windows(folder, num_steps: int) -> list[dict]:
  """Medians over the questions of a run's quarters, for the report."""
  return [{'steps': f'{w.first} to {w.last}', 'questions': len(w.p_correct),
           'never right': w.never_correct, 'median P(CA)': w.median_p_correct,
           'median P(CC|CA)': w.median_p_sound_given_correct}
          for w in _windows(folder, num_steps)]


def draw(folder, num_steps: int) -> list[pathlib.Path]:
  """Violins of the same, and both rates step by step; [] without any."""
  found = _windows(folder, num_steps)
  if not found:
    return []
  name = lambda w: f'steps {w.first} to {w.last}'
  steps = cot_dynamics.by_step(cot_dynamics.read(folder / FILE_NAME))
  return [
      plots.distributions({
          'P(CA): right answers, by question': {
              name(w): w.p_correct for w in found},
          'P(CC|CA): right reasoning among them': {
              name(w): w.p_sound_given_correct for w in found}},
                          folder / 'plots' / 'reasoning_windows.png'),
      *plots.training_curves(steps, [plots.COT_PANEL], folder / 'plots')]


def _windows(folder, num_steps: int) -> list[cot_dynamics.Window]:
  path = folder / FILE_NAME
  if not path.exists():
    return []
  edges = np.linspace(0, num_steps, _WINDOWS + 1).astype(int)
  bounds = [(int(a), int(b) - 1) for a, b in zip(
      edges[:-1], edges[1:], strict=True) if b > a]
  return cot_dynamics.windows(cot_dynamics.read(path), bounds)
