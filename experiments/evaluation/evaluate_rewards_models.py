"""Whom the benchmarks of reward models may ask: ours, a server's, any judge."""
from __future__ import annotations

import hashlib
import pathlib

import numpy as np

from experiments import evaluate
from experiments.evaluation import evaluate_rewards_answers as answers_lib
from experiments.reward import trained_reward
from rljax import sharding
from rljax.agents import comparison_judge
from rljax.agents import pair_judge

Model = answers_lib.Model


def server(config, cache: pathlib.Path) -> Model:
  """The language model on a server that `config.asked` names, as a judge."""
  options = config.asked
  # Here, because its packages are an extra, and recorded answers need none.
  from rljax.agents import http_language_model
  return from_language_model(config, http_language_model.HttpLanguageModel(
      http_language_model.Endpoint(options.base_url, options.model, (
          options.api_key_env or None))), cache)


def trained(config) -> Model:
  """The newest checkpoint of a run of ours, in the folder `config.asked.path`.

  Of a model that scores, the scorer; of a judge, the judge of its logits.
  """
  mesh, rules = sharding.make_mesh(), sharding.make_rules()
  loaded = trained_reward.load(config.asked.path, mesh, rules)
  digest = evaluate.digest(loaded.folder / 'checkpoints', loaded.step)
  name = f'{loaded.folder}, step {loaded.step}, {digest}'

  def ask_there(*args):
    with sharding.use(mesh, rules):
      return loaded.ask(*args)

  if loaded.form != 'scores':
    return from_pair_judge(ask_there, name)
  return Model(name, scorer=lambda texts: ask_there(*zip(*texts, strict=True)))


def from_language_model(config, model, cache: pathlib.Path) -> Model:
  """Any `LanguageModel` as a judge of pairs.

  All that may change its verdicts is in its name, and the name in what they are
  kept under.

  Args:
    config: its section `asked` says how to ask.
    model: whom.
    cache: of the single verdicts.
  """
  options = config.asked
  settings = dict(temperature=options.temperature,
                  max_tokens=options.max_tokens,
                  num_retries=options.num_retries)
  said = ', '.join(f'{name}={value}' for name, value in settings.items())
  prompt = comparison_judge.request(pair_judge.Pair('prompt', 'A', 'B'))
  name = (f'{options.model} at {options.base_url}, {said}, prompt '
          f'{hashlib.sha256(prompt.encode()).hexdigest()[:8]}')
  return Model(name, judge=lambda pairs, calls: comparison_judge.compare(
      pairs, model, judge_id=name, calls=calls, cache=cache, **settings))


def from_pair_judge(judge: pair_judge.PairJudge, name: str) -> Model:
  """A judge with logits of its labels, GRAM's for instance."""
  def preferences(pairs, calls):
    del calls  # it says the same every time
    logit_N2 = np.asarray(judge(pairs), np.float64)
    return 0.5 + np.tanh((logit_N2[:, 0] - logit_N2[:, 1]) / 2) / 2
  return Model(name, judge=preferences)
