"""Verdicts on the reasoning of graded responses, by a program or a server.

`config.judge.name` says who judges:

  none      nobody
  program   the teacher that wrote the demo's solutions works out every step
            again; it judges all responses, once
  server    a language model on a server, `num_calls` times; of responses with
            a wrong answer only if `judge.everything`, as CoT-Pass@K needs none
"""
from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np
import tqdm

from experiments.policy import responses
from rljax.agents import reasoning_judge
from rljax.data import teacher
from rljax.evaluation import cot_pass_at_k
from rljax.evaluation import logic_prior

NAMES = ('none', 'program', 'server')
CACHE = 'reasoning_verdicts.jsonl'


def check(config):
  """Refuses, before anything is sampled, a judge that cannot be asked.

  Raises:
    ValueError: an unknown name, a server without address or model, or rates of
      a judge that tells nothing apart.
    ImportError: a server, and nothing installed to reach one with.
  """
  options = config.judge
  if options.name not in NAMES:
    raise ValueError(f'Expected judge.name among {NAMES}, got '
                     f'{options.name!r}. Correct it.')
  cot_pass_at_k.aggregate([[[cot_pass_at_k.YES]]], 'majority', options.missing)
  cot_pass_at_k.rogan_gladen(1, 1, fpr=options.fpr, tpr=options.tpr)
  if options.name == 'server' and not (options.base_url and options.model):
    raise ValueError(
        "Expected judge.base_url and judge.model with judge.name='server', got "
        f'{options.base_url!r} and {options.model!r}. Give both.')
  if options.name == 'server':
    server(config)


def verdicts(config, graded: responses.Graded, folder) -> np.ndarray:
  """verdict_PGV as `evaluation.cot_pass_at_k` reads it.

  Args:
    config: with a `judge` section.
    graded: of P prompts with G responses each.
    folder: keeps what a server has said.

  Raises:
    ValueError: a record whose family has no teacher.
    LanguageModelError: the server gave no reply; what it said is kept.
  """
  if config.judge.name == 'program':
    return by_program(graded)
  return by_model(config, graded, server(config), folder / CACHE)


def reading(config) -> dict:
  """How the verdicts are to be read, for `measurement.measure`."""
  options = config.judge
  errs = (options.fpr, options.tpr) != (0.0, 1.0)
  return dict(everything=options.everything or options.name == 'program',
              missing=options.missing,
              call_rates=(options.fpr, options.tpr) if errs else None)


def judged(graded: responses.Graded, verdict_PGV, ks: Sequence[int], seed: int,
           *, everything: bool = False, missing: str = 'abstains',
           call_rates: tuple[float, float] | None = None) -> dict:
  """CoT-Pass@K under every rule, and what is to be known of the judge.

  Args:
    graded: of at least two problems.
    verdict_PGV: from `verdicts`; None where nobody judged.
    ks: of the curves.
    seed: of the resampling.
    everything: whether responses with a wrong answer were judged as well.
    missing: what a missing verdict is; as in `cot_pass_at_k.aggregate`.
    call_rates: as in `cot_pass_at_k.summarize`.
  """
  if verdict_PGV is None:
    return dict(reasoning=None, judge=None)
  whole_P = graded.valid_PG.all(axis=1)
  if whole_P.sum() < 2:
    raise ValueError(
        'Expected at least two problems whose every response could be graded, '
        f'got {whole_P.sum()} of {len(whole_P)}. See to the verifier.')
  correct_PG, verdict_PGV = graded.correct_PG[whole_P], verdict_PGV[whole_P]
  # A single verdict is the same under every rule.
  rules = cot_pass_at_k.RULES if verdict_PGV.shape[-1] > 1 else ('all',)
  judge = {'agreement': cot_pass_at_k.agreement(verdict_PGV)}
  if everything:
    prior = logic_prior.estimate(correct_PG, cot_pass_at_k.aggregate(
        verdict_PGV, 'majority', missing), seed=seed)
    ids = [graded.records[p]['id'] for p in np.flatnonzero(whole_P)]
    judge |= dataclasses.asdict(prior) | {
        'violations': [ids[p] for p in prior.violations]}
  return dict(judge=judge, reasoning=[
      cot_pass_at_k.summarize(
          correct_PG, verdict_PGV, ks=ks, rule=rule, seed=seed, missing=missing,
          call_rates=call_rates) for rule in rules])


def server(config):
  """The language model that the `judge` section names."""
  options = config.judge
  # Here, because its packages are an extra, and other judges need none of it.
  from rljax.agents import http_language_model
  return http_language_model.HttpLanguageModel(http_language_model.Endpoint(
      options.base_url, options.model, api_key_env=options.api_key_env or None))


def by_program(graded: responses.Graded) -> np.ndarray:
  """One verdict each, of responses of the families that have a teacher."""
  num_samples = graded.valid_PG.shape[1]
  found = [teacher.check(graded.records[i // num_samples], text).valid
           for i, text in enumerate(graded.texts)]
  return np.where(found, cot_pass_at_k.YES, cot_pass_at_k.NO).reshape(
      *graded.valid_PG.shape, 1)


def by_model(config, graded: responses.Graded, model, cache) -> np.ndarray:
  """Verdicts of a language model; -1 for what it was not asked."""
  options = config.judge
  shape = graded.valid_PG.shape
  asked = np.flatnonzero(
      graded.valid_PG if options.everything
      else graded.correct_PG & graded.valid_PG)
  found = np.full((graded.valid_PG.size, options.num_calls),
                  cot_pass_at_k.INVALID, np.int8)
  with tqdm.tqdm(total=len(asked) * options.num_calls, desc='judge',
                 unit='verdict') as bar:
    found[asked] = reasoning_judge.judge(
        [graded.records[i // shape[1]]['prompt'] for i in asked],
        [graded.texts[i] for i in asked], model, judge_id=options.model,
        num_calls=options.num_calls, num_retries=options.num_retries,
        temperature=options.temperature, max_tokens=options.max_tokens,
        cache=cache, on_verdict=bar.update)
  return found.reshape(*shape, options.num_calls)
