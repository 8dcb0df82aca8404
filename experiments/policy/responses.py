"""Sample responses to records and grade them; training and evaluation alike."""
from __future__ import annotations

import collections
import dataclasses
import itertools
import pathlib
from typing import Any
from typing import Callable

import jax
import numpy as np

from experiments.job import launch
from rljax import packing
from rljax import processes
from rljax import rollout
from rljax.data import chat
from rljax.rollout import statistics
from rljax.training import metrics
from rljax.types import RewardResult
from rljax.types import Rollout


@dataclasses.dataclass(frozen=True)
class Graded:
  """Responses with their verdicts; P records, G samples each."""
  records: tuple[dict, ...]
  rollout: Rollout
  texts: tuple[str, ...]            # flat order, P * G
  results: tuple[RewardResult, ...]  # flat order
  reward_PG: np.ndarray   # float32; 0 where not gradable
  valid_PG: np.ndarray    # bool; False: the verifier failed, not the model
  correct_PG: np.ndarray  # bool
  # bool; sampled with a hint that the rollout's prompts do not hold.
  guided_PG: np.ndarray | None = None
  # bool; sampled by the policy of an earlier step.
  recorded_PG: np.ndarray | None = None

  def __post_init__(self):
    for name in ('guided_PG', 'recorded_PG'):
      if getattr(self, name) is None:
        object.__setattr__(self, name, np.zeros(self.valid_PG.shape, bool))


@dataclasses.dataclass(frozen=True)
class Draw:
  """Samples and grades groups under one policy and one key."""
  sampler: Callable
  params: Any
  key: Any
  tokenizer: Any
  scorer: Any
  sampling: dict[str, Any]
  clock: Callable
  rescore: Callable | None = None  # (graded, self) -> graded, other rewards

  def __call__(self, records, num_samples: int, part: int = 0) -> Graded:
    """Groups of so many samples; another `part`, other samples."""
    with self.clock('rollout'):
      samples = sample(
          self.sampler, self.params, records,
          jax.random.fold_in(self.key, part) if part else self.key,
          tokenizer=self.tokenizer, num_samples=num_samples,
          sampling=self.sampling)
    with self.clock('reward'):
      graded = grade(samples, records, self.scorer, self.tokenizer)
    return graded if self.rescore is None else self.rescore(graded, self)

  def prompts(self, records) -> tuple[np.ndarray, ...]:
    """The records' prompts as the sampler sees them."""
    return tuple(prompt_tokens(self.tokenizer, records))


def make_sampler(job, config, **options):
  """The sampler of a config's `rollout` section; options go to it as well."""
  launch.check_positions(
      job.model,
      config.rollout.max_prompt_length + config.rollout.max_new_tokens)
  return rollout.make_sampler(
      job.model, job.mesh, num_slots=config.rollout.num_slots,
      max_prompt_length=config.rollout.max_prompt_length,
      max_new_tokens=config.rollout.max_new_tokens,
      stop_ids=job.tokenizer.stop_ids, **options)


def check_prompt_lengths(config):
  """Refuses data whose prompts the sampler was not made for."""
  limit, room = config.data.max_prompt_length, config.rollout.max_prompt_length
  if limit > room:
    raise ValueError(
        f'Expected data.max_prompt_length <= rollout.max_prompt_length = '
        f'{room}, got {limit}. Lower the one or raise the other.')


def sample(sampler, params, records, key, *, tokenizer, num_samples,
           sampling) -> Rollout:
  """Samples `num_samples` responses to each record's prompt."""
  return sampler(params, prompt_tokens(tokenizer, records), key,
                 samples_per_prompt=num_samples, **sampling)


def prompt_tokens(tokenizer, records) -> list[np.ndarray]:
  """The records' prompts as token ids."""
  return [np.asarray(chat.prompt_tokens(tokenizer, record['prompt']), np.int32)
          for record in records]


def grade(samples: Rollout, records, scorer, tokenizer) -> Graded:
  """Decodes responses and asks the verifiers.

  Each process does so for its own prompts, and gets the others' verdicts.
  """
  shape = samples.length_PG.shape
  own = processes.own(range(shape[0]))
  texts = [tokenizer.decode(samples.tokens_PGT[p, g, :samples.length_PG[p, g]])
           for p in own for g in range(shape[1])]
  results = scorer.score(
      [records[p] for p in own for _ in range(shape[1])], texts,
      lengths=samples.length_PG[own].ravel(),
      stopped=samples.stopped_PG[own].ravel())
  texts, results = (_of_all(mine, shape[1]) for mine in (texts, results))
  valid = np.array([r.reward is not None for r in results]).reshape(shape)
  reward = np.array([r.reward or 0.0 for r in results], np.float32)
  correct = np.array([r.is_correct for r in results]).reshape(shape)
  return Graded(tuple(records), samples, texts, results,
                reward.reshape(shape), valid, correct)


def _of_all(mine: list, num_samples: int) -> tuple:
  """Flat order, from what each process has of its own prompts."""
  groups = processes.gather_own([
      mine[i:i + num_samples] for i in range(0, len(mine), num_samples)])
  return tuple(itertools.chain.from_iterable(groups))


def verdicts(graded: Graded) -> dict[str, int]:
  """Number of responses by status."""
  return dict(collections.Counter(r.status for r in graded.results))


def summary(graded: Graded) -> dict[str, float]:
  """The step's rewards, responses and verdicts as metrics."""
  valid = graded.valid_PG  # what nobody could grade says nothing
  mean = lambda x_PG: float(x_PG[valid].mean()) if valid.any() else float('nan')
  counts = {f'verdict_{status}': float(count)
            for status, count in verdicts(graded).items()}
  return statistics.summarize(graded.rollout) | counts | {
      'reward': mean(graded.reward_PG),
      'accuracy': mean(graded.correct_PG),
      'ungradable': float((~valid).sum()),
      'sampled_tokens': float(graded.rollout.length_PG.sum())}


def total_verdicts(workdir) -> dict[str, int]:
  """Verdicts of a whole run, resumed or not, from its metrics."""
  total = collections.Counter()
  for line in metrics.read(pathlib.Path(workdir) / metrics.FILE_NAME):
    for name, value in line.items():
      origin, is_verdict, status = name.rpartition('verdict_')
      if is_verdict and origin in ('', 'hint_'):
        total[f'{status}, with a hint' if origin else status] += int(value)
  return dict(total)


def join(parts: list[Graded]) -> Graded:
  """Several draws of the same number of samples as one."""
  chain = lambda name: sum((getattr(part, name) for part in parts), ())
  stack = lambda name: np.concatenate([getattr(p, name) for p in parts])
  return Graded(
      chain('records'), packing.join([p.rollout for p in parts]),
      chain('texts'), chain('results'), stack('reward_PG'), stack('valid_PG'),
      stack('correct_PG'), stack('guided_PG'), stack('recorded_PG'))


def take(graded: Graded, keep_P: np.ndarray) -> Graded:
  """The prompts where `keep_P` is True."""
  size = graded.reward_PG.shape[1]
  pick = np.flatnonzero(keep_P)
  flat = [p * size + g for p in pick for g in range(size)]
  return Graded(
      tuple(graded.records[p] for p in pick),
      packing.take_prompts(graded.rollout, keep_P),
      tuple(graded.texts[i] for i in flat),
      tuple(graded.results[i] for i in flat),
      graded.reward_PG[pick], graded.valid_PG[pick], graded.correct_PG[pick],
      graded.guided_PG[pick], graded.recorded_PG[pick])
