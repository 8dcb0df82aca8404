"""What may be asked of a trained reward model, and how one is loaded again.

A `Scorer` gives each response a score of its own; a `Judge` is a
`pair_judge.PairJudge`. Both answer NaN where a text cannot be shown.
"""
from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any
from typing import NamedTuple

from ml_collections import config_dict
import numpy as np

from experiments.job import launch
from experiments.job import run_folder
from experiments.reward import reward_model_forms
from rljax import sharding
from rljax.agents import pair_judge
from rljax.data import chat
from rljax.data import judge_prompts
from rljax.data import preference_tokens
from rljax.data import tokenizer as tokenizers
from rljax.packing import lists as packed_lists
from rljax.training import checkpoint
from rljax.training import optimizer as optimizers
from rljax.training import reward as training
from rljax.training import state as states
from rljax.types import ComparedTexts


@dataclasses.dataclass(frozen=True)
class Scorer:
  """Scores of responses, each by itself, under fixed parameters."""
  tokenizer: Any
  score: Callable
  params: Any
  shape: dict[str, int]
  max_length: int
  heads: str = 'mean'

  def __call__(self, prompts: Sequence[Any], responses: Sequence[str],
               stopped: Sequence[bool] | None = None) -> np.ndarray:
    """score_N; NaN for a text that is too long, or forges a turn.

    Responses to one prompt that follow each other are a list, whose prompt is
    computed once; a score is that of the text by itself all the same.

    Args:
      prompts: a text or messages for each response.
      responses: of the assistant.
      stopped: False for a response that was cut: no stop token is scored.
    """
    stopped = [True] * len(responses) if stopped is None else stopped
    texts = [self._text(*one) for one in zip(prompts, responses, stopped,
                                             strict=True)]
    groups = in_lists(prompts, texts, self.max_length,
                      self.shape['num_candidates'])
    found_NCJ = training.score_all(
        self.score, self.params,
        [_list(texts, group) for group in groups], **self.shape)
    score_NC = training.reduce_heads(found_NCJ, self.heads)
    score_N = np.full(len(texts), np.nan)
    for group, score_C in zip(groups, score_NC, strict=True):
      score_N[group] = score_C[:len(group)]
    return score_N

  def _text(self, prompt, response, ends) -> np.ndarray | None:
    if chat.has_special(self.tokenizer, response, may_end=True):
      return None
    text = np.concatenate(preference_tokens.prompt_and_response(
        self.tokenizer, messages(prompt), response, ends=bool(ends)))
    return text if len(text) <= self.max_length else None


def in_lists(prompts: Sequence[Any], texts: Sequence[np.ndarray | None],
             max_length: int, num_candidates: int) -> list[list[int]]:
  """Places of texts to be scored together: neighbours with equal prompts.

  Args:
    prompts: of each text.
    texts: None for what is not scored.
    max_length: of what a list stores, what all begin with once.
    num_candidates: the most of a list.
  """
  groups = []
  for i, text in enumerate(texts):
    if text is None:
      continue
    longer = [*groups[-1], i] if groups else []
    joins = longer and len(longer) <= num_candidates and (
        prompts[longer[0]] == prompts[i]) and packed_lists.stored_length(
            _list(texts, longer)) <= max_length
    groups[-1:] = [longer] if joins else [*groups[-1:], [i]]
  return groups


def _list(texts, group) -> ComparedTexts:
  return ComparedTexts(tuple(texts[i] for i in group), tuple(range(len(group))))


@dataclasses.dataclass(frozen=True)
class Judge:
  """A `pair_judge.PairJudge` under fixed parameters."""
  tokenizer: Any
  score: Callable
  params: Any
  shape: dict[str, int]
  max_length: int

  def __call__(self, pairs: Sequence[pair_judge.Pair]) -> np.ndarray:
    """logit_N2; NaN for a pair that cannot be shown, however it is cut."""
    texts = [judge_prompts.prompt_tokens(
        self.tokenizer, messages(pair.prompt), pair.first, pair.second,
        self.max_length)[0] for pair in pairs]
    logit_N2 = np.full((len(texts), 2), np.nan)
    fits = [i for i, text in enumerate(texts) if text is not None]
    logit_N2[fits] = training.score_all(
        self.score, self.params,
        [ComparedTexts((texts[i],), (0, 1)) for i in fits],
        **self.shape)[..., 0]
    return logit_N2

  def shows(self, response: str) -> bool:
    """Whether there is a pair with this response that could be shown."""
    return not chat.has_special(self.tokenizer, response)


def messages(prompt) -> list[dict[str, str]]:
  """A prompt as messages; a text is what the user says."""
  return [{'role': 'user', 'content': prompt}] if isinstance(prompt, str) else (
      list(prompt))


def asked(config, job, score: Callable, params, parts: int,
          heads: str = 'mean') -> Scorer | Judge:
  """What may be asked of parameters: a `Scorer` or a `Judge`."""
  common = job.tokenizer, score, params, reward_model_forms.shape(
      config, parts)
  limit = config.packing.row_length
  return Scorer(*common, limit, heads) if config.form == 'scores' else Judge(
      *common, limit)


class Loaded(NamedTuple):
  """A reward model of a finished run."""
  form: str
  ask: Scorer | Judge
  folder: pathlib.Path
  step: int


def load(folder: str | pathlib.Path, mesh, rules, *, step: int = -1,
         heads: str = 'mean') -> Loaded:
  """Reads model, tokenizer, sizes and parameters from the folder of a run.

  Args:
    folder: the --workdir of `experiments.train_reward_model`.
    mesh: devices.
    rules: logical axis table.
    step: of the checkpoint; -1 is the newest.
    heads: how an ensemble is reduced; see `training.reward.reduce_heads`.

  Raises:
    ValueError: no such run, or one that scores nothing.
  """
  folder = pathlib.Path(folder).expanduser().resolve()
  config = stored_config(folder)
  if config.form == 'pretraining':
    raise ValueError(f'Expected a run of scores or of a judge in {folder}, got '
                     "form='pretraining', which has learnt no preference. "
                     'Train a judge from it.')
  model = launch.create_model(config.model)
  base = launch.Job('reward_model', folder, mesh, rules, model,
                    tokenizers.load(config.tokenizer),
                    launch.make_fingerprint(config, model))
  job = reward_model_forms.as_trained(config, base)
  parts = launch.num_microbatches(config, mesh)
  optimizer = optimizers.make_optimizer('sgd', 0.0)
  if config.lora.rank:  # on the parameters that it began with
    found, _ = reward_model_forms.initial_state(
        config, base, job, optimizer,
        states.named_keys(config.seed, 'init', 'sample', 'update', 'head'))
  else:
    found = states.abstract_state(job.model, optimizer, mesh, rules)
  with checkpoint.Checkpointer(folder / 'checkpoints', read_only=True,
                               fingerprint=job.fingerprint) as saver:
    step = saver.latest_step() if step < 0 else step
    params = saver.restore_params(found.params, step)
  score = training.make_score_fn(
      reward_model_forms.make_forward(config, base), num_microbatches=parts,
      batch_sharding=sharding.batch(mesh))
  return Loaded(config.form, asked(config, job, score, params, parts, heads),
                folder, step)


def stored_config(folder: pathlib.Path) -> config_dict.ConfigDict:
  """The configuration of a run of train_reward_model.

  Raises:
    ValueError: the folder has none.
  """
  found = run_folder.stored_config(folder)
  if 'form' not in found:
    raise ValueError(f'Expected the folder of a reward model in {folder}, got '
                     'that of another script. Name the --workdir of '
                     'train_reward_model.')
  return found
