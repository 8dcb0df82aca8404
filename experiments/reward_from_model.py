"""A reward model as the reward of a policy run: `config.reward_model`.

Verifiers still judge: whether a response is correct stays their word, and says
what the score is worth. The reward is the model's score instead. `run` names
the --workdir of `experiments.train_reward_model`, and what it trained decides:

  scores  each response by itself; `heads` reduces an ensemble, `normalize`
          takes the statistics stored with the run
  judge   against a greedy answer of the policy in training to the same prompt,
          in both orders: (0, 1), and 1/2 is "as good as that" (GRAM)

A response that cannot be scored has no reward, as one that nobody could grade.
"""
from __future__ import annotations

import dataclasses
from typing import Callable

import numpy as np

from experiments import responses
from experiments import trained_reward
from rljax.agents import pair_judge
from rljax.rewards import model_based
from rljax.training import reward as training


def check(config):
  """Refuses, before anything is compiled, what cannot work together.

  Raises:
    ValueError: an unknown reduction or average.
  """
  options = config.reward_model
  training.reduce_heads(np.zeros((1, 1, 1)), options.heads)
  if options.average not in pair_judge.AVERAGES:
    raise ValueError(f'Expected reward_model.average among '
                     f'{pair_judge.AVERAGES}, got {options.average!r}.')


def create(config, job) -> Callable | None:
  """(graded, draw) -> graded with the model's rewards; None without a model.

  Raises:
    ValueError: no such run, or statistics that it does not have.
  """
  options = config.reward_model
  if not options.run:
    return None
  loaded = trained_reward.load(options.run, job.mesh, job.rules,
                               step=options.step, heads=options.heads)
  if loaded.form == 'judge':
    if options.normalize:
      raise ValueError('Expected reward_model.normalize=False with a judge, '
                       'whose scores lie in (0, 1), got True. Turn it off.')
    return lambda graded, draw: by_judge(graded, draw, loaded.ask,
                                         options.average)
  statistics = model_based.read(loaded.folder, loaded.step) if (
      options.normalize) else None
  return lambda graded, draw: by_scores(graded, loaded.ask, statistics)


def by_scores(graded: responses.Graded, ask,
              statistics: model_based.Statistics | None) -> responses.Graded:
  """Each response by itself."""
  score_R = ask(_prompts(graded), graded.texts,
                graded.rollout.stopped_PG.ravel())
  return with_rewards(graded, score_R if statistics is None else (
      statistics.normalized(score_R)))


def by_judge(graded: responses.Graded, draw: responses.Draw, judge,
             average: str) -> responses.Graded:
  """Against a greedy answer, one for each prompt and policy."""
  with draw.clock('rollout'):
    greedy = responses.sample(
        draw.sampler, draw.params, graded.records, draw.key,
        tokenizer=draw.tokenizer, num_samples=1,
        sampling=draw.sampling | dict(temperature=0.0))
  references = [draw.tokenizer.decode(tokens_GT[0, :length_G[0]])
                for tokens_GT, length_G in zip(
                    greedy.tokens_PGT, greedy.length_PG, strict=True)]
  size = graded.valid_PG.shape[1]
  with draw.clock('reward'):
    reward_R = pair_judge.against_reference(
        judge, _prompts(graded),
        [text for text in references for _ in range(size)], graded.texts,
        average=average)
  return with_rewards(graded, reward_R)


def with_rewards(graded: responses.Graded,
                 reward_R: np.ndarray) -> responses.Graded:
  """The same responses under other rewards; NaN is not gradable."""
  results = tuple(model_based.rescored(graded.results, reward_R))
  shape = graded.valid_PG.shape
  return dataclasses.replace(
      graded, results=results,
      reward_PG=np.array([r.reward or 0.0 for r in results],
                         np.float32).reshape(shape),
      valid_PG=np.isfinite(reward_R).reshape(shape))


def _prompts(graded: responses.Graded) -> list[str]:
  size = graded.valid_PG.shape[1]
  return [record['prompt'] for record in graded.records for _ in range(size)]
