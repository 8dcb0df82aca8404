"""Graded responses made by hand, and a verifier that reads them."""
import numpy as np

from configs.pipeline import ring_lite_mini
from experiments.policy import responses
from rljax.types import RewardResult
from tests.packing import rollouts


def record(index: int, domain: str = 'math') -> dict:
  return {'id': f'r{index}', 'prompt': f'Say {index}.', 'domain': domain,
          'verifier': 'math'}


def make(reward_PG, length_PG=None, statuses=None) -> responses.Graded:
  """Responses of 4 tokens, unless said; reward 1 is right, None ungradable."""
  rewards = [reward for row in reward_PG for reward in row]
  shape = (len(reward_PG), len(reward_PG[0]))
  length_PG = np.full(shape, 4) if length_PG is None else np.asarray(length_PG)
  results = tuple(
      RewardResult(reward == 1, reward, status, None, 0.0) for reward, status
      in zip(rewards, statuses or ['ok'] * len(rewards), strict=True))
  return responses.Graded(
      records=tuple(record(p) for p in range(shape[0])),
      rollout=rollouts.make_rollout(length_PG, [3] * shape[0], 8),
      texts=tuple(f'text {r}' for r in range(len(rewards))), results=results,
      reward_PG=np.array([r or 0 for r in rewards], np.float32).reshape(shape),
      valid_PG=np.array([r is not None for r in rewards]).reshape(shape),
      correct_PG=np.array([r == 1 for r in rewards]).reshape(shape))


def policy_config(**changes):
  """Of a policy run: two groups of two, of 8 tokens at most."""
  config = ring_lite_mini.get_config('smoke').rl[0]
  config.data.prompts_per_step = 2
  config.rollout.update(samples_per_prompt=2, max_new_tokens=8,
                        max_prompt_length=8)
  config.data.max_prompt_length = 8
  config.packing.update(row_length=16, num_rows=8)
  config.packing.select.token_budget = 12
  config.update(changes)
  return config


def result(correct, entropy=0.4, domains=None, graded=4):
  """What `evaluate.run` says of a checkpoint: right answers of four, each."""
  domains = domains or ['math'] * len(correct)
  point = dict(k=2, estimate=0.5, low=0.4, high=0.6)
  return dict(
      problems=[dict(domain=d, correct=c, graded=graded)
                for d, c in zip(domains, correct, strict=True)],
      accuracy=dict(estimate=float(np.mean(correct)) / graded, low=0.0,
                    high=1.0),
      entropy=dict(estimate=entropy), pass_at_k=[point | dict(k=1), point],
      maj_at_k=[point], response_length=10 * float(np.mean(correct)),
      num_samples=4, examples=[])


class Scripted:
  """A verifier whose results are given beforehand."""

  def __init__(self, results):
    self.results = list(results)
    self.seen = []

  def score(self, records, texts, lengths, stopped):
    self.seen.append((tuple(records), tuple(texts), tuple(lengths),
                      tuple(stopped)))
    taken, self.results = (self.results[:len(texts)],
                           self.results[len(texts):])
    return taken
