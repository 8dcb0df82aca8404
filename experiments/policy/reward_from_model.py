"""A reward model as the reward of a policy run: `config.reward_model`.

Verifiers still judge: whether a response is correct stays their word, and says
what the score is worth. The reward is the model's score instead. `run` names
the --workdir of `experiments.train_reward_model`, and what it trained decides:

  scores  each response by itself; `heads` reduces an ensemble, `normalize`
          takes the statistics stored with the run
  judge   against a greedy answer of the policy in training to the same prompt,
          in both orders: (0, 1), and 1/2 is "as good as that" (GRAM); or, by
          `ranking`, the samples of a prompt against each other

A response that cannot be scored has no reward, as one that nobody could grade.
"""
from __future__ import annotations

import dataclasses
import pathlib
from typing import Callable

import numpy as np

from experiments.policy import responses
from experiments.reward import trained_reward
from rljax.agents import pair_judge
from rljax.rewards import model_based
from rljax.training import reward as training

RANKINGS = ('reference', *pair_judge.RANKINGS)


def check(config, samples_per_prompt: int):
  """Refuses, before anything is compiled, what cannot work together.

  Raises:
    ValueError: an unknown reduction, average or ranking, statistics of
      another reduction, or nothing to rank.
  """
  options = config.reward_model
  training.reduce_heads(np.zeros((1, 1, 1)), options.heads)
  if options.normalize and options.heads != 'mean':
    raise ValueError(
        "Expected reward_model.heads='mean' with normalize=True, as the "
        "statistics of a run are of its heads' mean, got "
        f'{options.heads!r}. Turn normalize off, or take the mean.')
  if options.average not in pair_judge.AVERAGES:
    raise ValueError(f'Expected reward_model.average among '
                     f'{pair_judge.AVERAGES}, got {options.average!r}.')
  if options.ranking not in RANKINGS:
    raise ValueError(f'Expected reward_model.ranking among {RANKINGS}, got '
                     f'{options.ranking!r}. Correct it.')
  if options.run and options.ranking != 'reference' and samples_per_prompt < 2:
    raise ValueError(
        f'Expected two samples of a prompt or more, for reward_model.ranking='
        f'{options.ranking!r} to compare, got samples_per_prompt='
        f"{samples_per_prompt}. Raise it, or take the ranking 'reference'.")


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
    if options.ranking != 'reference':
      return lambda graded, draw: by_ranking(
          graded, draw, loaded.ask, options.ranking, options.average,
          shows=loaded.ask.shows)
    return lambda graded, draw: by_judge(graded, draw, loaded.ask,
                                         options.average)
  if options.ranking != 'reference':
    raise ValueError(
        "Expected reward_model.ranking='reference' with a model of scores, "
        f'which compares nothing, got {options.ranking!r}. Leave it out.')
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


def by_ranking(graded: responses.Graded, draw: responses.Draw, judge,
               ranking: str, average: str,
               shows: Callable[[str], bool] = lambda text: True
               ) -> responses.Graded:
  """The samples of each prompt against each other.

  A knockout finds the best, and with the labels exchanged the worst: 1 and -1,
  and 0 for all others, and for all where the judge tells none apart. Samples
  that the judge can never be shown have no reward, nor has the last one left.
  A prompt has none where two others could not be compared.

  Args:
    graded: responses, and what verifiers say of them.
    draw: whose clock runs.
    judge: who is asked.
    ranking: one of `pair_judge.RANKINGS`.
    average: as in `pair_judge.scores`.
    shows: whether a response can be shown to the judge at all.
  """
  size = graded.valid_PG.shape[1]
  shown = np.array([shows(text) for text in graded.texts]).reshape(-1, size)
  shown &= shown.sum(axis=1, keepdims=True) > 1
  places = [np.flatnonzero(row) + p * size for p, row in enumerate(shown)]
  places = [found for found in places if len(found)]
  prompts = [graded.records[found[0] // size]['prompt'] for found in places]
  lists = [[graded.texts[i] for i in found] for found in places]
  ask = lambda who: np.concatenate([[], *pair_judge.rank(
      who, prompts, lists, ranking, average=average)])
  reverse = lambda pairs: np.asarray(judge(pairs))[:, ::-1]
  reward_R = np.full(shown.size, np.nan)
  with draw.clock('reward'):
    reward_R[shown.ravel()] = ask(judge) - (
        ask(reverse) if ranking == 'knockout' else 0)
  return with_rewards(graded, reward_R)


def most_judge_calls(config, num_prompts: int, size: int) -> int:
  """Pairs that a judge is shown for so many prompts of so many samples.

  Fewer, where it cannot be shown some of them.
  """
  options = config.reward_model
  if not options.run or trained_reward.stored_config(
      pathlib.Path(options.run).expanduser()).form != 'judge':
    return 0
  if options.ranking == 'reference':
    return 2 * num_prompts * size
  times = 2 if options.ranking == 'knockout' else 1  # the best, and the worst
  return times * num_prompts * pair_judge.num_calls(options.ranking, size)


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
