"""A second try with a hint, for prompts whose every answer was wrong.

  failed group  ->  a group under the hinted prompt  ->  trained on as if it had
  answered the prompt without

`config.guide.mode` says how:

  off       nothing of this
  filter    groups outside [lower, upper] are dropped: Filter-GRPO, the baseline
  replace   and those at or below `threshold` get a second group under the hint,
            which takes their place if it lies in [hint_lower, hint_upper]
  mixin     as replace, but keeps only the hinted successes; the other places go
            to unhinted failures
  balanced  half of every group is sampled with the hint, none is tried again

A record's hint is the field `hint_prompt` of its metadata: a whole prompt to
take the place of its own. Bounds are on a group's accuracy among the samples
that could be graded.

Reference: Guide (arXiv 2506.13923), abstract and official code; the table of
differences is in `losses.policy.guide`.
"""
from __future__ import annotations

import collections
import dataclasses

import numpy as np

from experiments.policy import responses
from rljax.data import sources
from rljax.types import RewardResult
from rljax.types import Rollout

# What a group is, array by array; also what a saved one is made of.
_ARRAYS = {'tokens_PGT': np.int32, 'logp_PGT': np.float32,
           'entropy_PGT': np.float32, 'length_PG': np.int32,
           'stopped_PG': np.bool_}
_FLAGS = {'reward_PG': np.float32, 'valid_PG': np.bool_,
          'correct_PG': np.bool_, 'guided_PG': np.bool_}

MODES = ('off', 'filter', 'replace', 'mixin', 'balanced')


def check(config):
  """Refuses, before anything is compiled, what cannot work together.

  Raises:
    ValueError: an option out of range, or two that exclude each other.
  """
  options = config.guide
  if options.mode not in MODES:
    raise ValueError(f'Expected guide.mode among {MODES}, got '
                     f'{options.mode!r}. Correct it.')
  _check_buffer(config)
  if options.mode == 'off':
    return
  for name, low, high in (
      ('', options.lower, options.upper),
      ('hint_', options.hint_lower, options.hint_upper)):
    if not 0 <= low <= high <= 1:
      raise ValueError(
          f'Expected 0 <= guide.{name}lower <= guide.{name}upper <= 1, got '
          f'{low} and {high}. Correct them.')
  if options.context not in ('plain', 'hinted'):
    raise ValueError(
        "Expected guide.context 'plain' (Guide) or 'hinted' (train where "
        f'it was sampled), got {options.context!r}. Correct it.')
  if config.loss.name not in ('guide', 'guide_ppo'):
    raise ValueError(
        f"Expected the loss 'guide' or 'guide_ppo' with guide.mode="
        f'{options.mode!r}, got {config.loss.name!r}, which does not know '
        'hinted answers apart. Set config.loss, or guide.mode=\'off\'.')
  if config.dynamic_sampling:
    raise ValueError('Expected dynamic_sampling=False with guide.mode, whose '
                     'bounds drop groups already, got True. Turn one off.')
  if config.correction.name != 'none' and uses_hints(config):
    raise ValueError(
        "Expected correction.name='none' with hints: their answers differ from "
        f'the policy on purpose. Got {config.correction.name!r}.')
  if config.routing_replay == 'rollout' and uses_hints(config):
    raise ValueError(
        "Expected no routing_replay='rollout' with hints: routes of the hinted "
        "prompt are not those of the prompt. Use 'recompute' or 'off'.")
  if options.mode == 'balanced' and config.rollout.samples_per_prompt % 2:
    raise ValueError(
        "Expected an even rollout.samples_per_prompt for guide.mode='balanced'"
        f', got {config.rollout.samples_per_prompt}.')


def _check_buffer(config):
  """Groups of an earlier step need a loss that knows their own policy."""
  if not config.guide.buffer:
    return
  for name, value, wanted in (
      ('guide.mode', config.guide.mode, MODES[1:]),
      ('correction.name', config.correction.name, ('none',)),
      ('routing_replay', config.routing_replay, ('off', 'recompute'))):
    if value not in wanted:
      raise ValueError(
          f'Expected {name} among {list(wanted)} with guide.buffer=True, got '
          f'{value!r}: a group that waited has the probabilities of an earlier '
          'policy, and no routes. Change it, or set guide.buffer=False.')


def uses_hints(config) -> bool:
  """Whether records need a hint."""
  return config.guide.mode in ('replace', 'mixin', 'balanced')


def hinted_record(record: sources.Record) -> sources.Record:
  """The record under its hinted prompt.

  Raises:
    ValueError: it has none.
  """
  hint = sources.hint_prompt(record)
  if not hint:
    raise ValueError(
        f'Expected a hint_prompt in the record {sources.describe(record)}, got '
        'none. Write one for every line (experiments.write_hints does), or set '
        "guide.mode='filter'.")
  return dict(record, prompt=hint)


def groups(config, draw: responses.Draw, records
           ) -> tuple[responses.Graded, responses.Graded, dict[str, float]]:
  """Samples a step's groups, some of them with a hint.

  Args:
    config: its `guide` section is described above.
    draw: of the policy and the key of this step.
    records: one for each prompt.

  Returns:
    What to train on, under hint-free prompts; what was sampled without a hint,
    for the metrics; and counts of the hints, for `rates`.
  """
  options, size = config.guide, config.rollout.samples_per_prompt
  if options.mode == 'balanced':
    plain = draw(records, size // 2, 0)
    hinted = _hinted(config, draw, records, size // 2)
    every_P = np.ones(len(records), bool)
    joined = _merged(
        lambda x, y: np.concatenate([x, y], axis=1), plain, hinted)
    return joined, plain, _report(every_P, hinted, every_P)
  plain = draw(records, size, 0)
  accuracy_P = group_accuracy(plain)
  keep_P = (accuracy_P >= options.lower) & (accuracy_P <= options.upper)
  failed_P = accuracy_P <= options.threshold
  if options.mode == 'filter' or not failed_P.any():
    failed_P = np.zeros_like(keep_P)
    return responses.take(plain, keep_P), plain, _report(
        failed_P, None, failed_P)
  failed = responses.take(plain, failed_P)
  hinted = _hinted(config, draw, failed.records, size)
  accuracy_F = group_accuracy(hinted)
  rescued_F = ((accuracy_F >= options.hint_lower)
               & (accuracy_F <= options.hint_upper))
  report = _report(failed_P, hinted, rescued_F)
  if options.mode == 'mixin':
    success_PG = hinted.correct_PG & hinted.valid_PG
    hinted = _merged(lambda x, y: np.where(success_PG.reshape(
        success_PG.shape + (1,) * (x.ndim - 2)), x, y), hinted, failed)
  # One group of a prompt: the hinted, where that is kept.
  keep_P[np.flatnonzero(failed_P)[rescued_F]] = False
  joined = responses.join([responses.take(plain, keep_P),
                           responses.take(hinted, rescued_F)])
  return joined, plain, report


def group_accuracy(graded: responses.Graded) -> np.ndarray:
  """Of each group, among the samples that could be graded; NaN of none."""
  count_P = graded.valid_PG.sum(axis=1)
  right_P = (graded.correct_PG & graded.valid_PG).sum(axis=1)
  return np.where(count_P > 0, right_P / np.maximum(count_P, 1), np.nan)


def _hinted(config, draw, records, size) -> responses.Graded:
  """Groups under the hint, put under the prompts without it."""
  hinted = draw([hinted_record(record) for record in records], size, 1)
  if config.guide.context == 'hinted':
    return hinted
  plain = draw.prompts(records)
  return dataclasses.replace(
      hinted, records=tuple(records),
      rollout=dataclasses.replace(hinted.rollout, prompts=plain,
                                  experts_PGSLX=None),
      guided_PG=np.ones_like(hinted.valid_PG))


def _merged(merge, one, other) -> responses.Graded:
  """A group out of two groups for each prompt, by a merge of arrays."""
  index = np.arange(one.valid_PG.size).reshape(one.valid_PG.shape)
  order = merge(index, index + one.valid_PG.size).ravel()
  flat = lambda name: tuple(
      (getattr(one, name) + getattr(other, name))[i] for i in order)
  arrays = lambda x, y, names: {
      name: merge(getattr(x, name), getattr(y, name)) for name in names}
  return responses.Graded(
      records=one.records, texts=flat('texts'), results=flat('results'),
      rollout=Rollout(prompts=one.rollout.prompts, **arrays(
          one.rollout, other.rollout, _ARRAYS)),
      **arrays(one, other, [*_FLAGS, 'recorded_PG']))


def _report(failed_P, hinted, rescued_F) -> dict[str, float]:
  """Counts of a draw, of which `rates` makes the metrics."""
  report = {'asked_groups': failed_P.size, 'failed_groups': failed_P.sum(),
            'rescued_groups': rescued_F.sum()}
  if hinted is None:
    return report
  accuracy_F = group_accuracy(hinted)
  known_F = ~np.isnan(accuracy_F)
  return report | {
      'hinted_groups': known_F.sum(),
      'hinted_accuracies': accuracy_F[known_F].sum(),
      'all_right_groups': (accuracy_F == 1).sum(),
      'all_wrong_groups': (accuracy_F == 0).sum(),
      'hint_tokens': hinted.rollout.length_PG.sum(),
      'hint_ungradable': (~hinted.valid_PG).sum()} | {
          f'hint_verdict_{status}': count
          for status, count in responses.verdicts(hinted).items()}


# Metric -> which count over which.
_RATES = {
    'hint_trigger_rate': ('failed_groups', 'asked_groups'),
    'hint_rescue_rate': ('rescued_groups', 'failed_groups'),
    'hint_accuracy': ('hinted_accuracies', 'hinted_groups'),
    'hint_all_right': ('all_right_groups', 'hinted_groups'),
    'hint_all_wrong': ('all_wrong_groups', 'hinted_groups'),
    'once_failed_accuracy': ('once_failed_accuracies', 'once_failed_groups')}


def rates(reports) -> dict[str, float]:
  """Metrics of a step's draws; verdicts under a hint are counted apart."""
  total = collections.Counter()
  for report in reports:
    total.update(report)
  return {name: float(total[part] / total[whole])
          for name, (part, whole) in _RATES.items() if total[whole]} | {
              name: float(count) for name, count in total.items()
              if name.startswith('hint_') or name == 'rescued_groups'}


@dataclasses.dataclass
class Memory:
  """What a run with hints carries from step to step."""
  surplus: responses.Graded | None = None  # groups beyond the last step
  triggered: set[str] = dataclasses.field(default_factory=set)  # ids, ever

  def note(self, plain: responses.Graded, threshold: float) -> dict[str, float]:
    """Accuracies without a hint of prompts that once failed; adds new ones."""
    accuracy_P = group_accuracy(plain)
    ids = [record['id'] for record in plain.records]
    again = [a for i, a in zip(ids, accuracy_P, strict=True)
             if i in self.triggered and not np.isnan(a)]
    self.triggered |= {i for i, a in zip(ids, accuracy_P, strict=True)
                       if a <= threshold}
    return {'once_failed_accuracies': sum(again),
            'once_failed_groups': len(again)}

  def keep(self, surplus: responses.Graded | None):
    """Holds groups for the next step, to which they are off-policy."""
    self.surplus = surplus and dataclasses.replace(
        surplus, recorded_PG=np.ones_like(surplus.valid_PG))

  def get_state(self) -> dict:
    """As JSON can hold it."""
    return {'surplus': to_json(self.surplus),
            'triggered': sorted(self.triggered)}

  def set_state(self, state: dict):
    """Continues from a saved state."""
    self.surplus = from_json(state['surplus'])
    self.triggered = set(state['triggered'])


def to_json(graded: responses.Graded | None):
  """A buffer as JSON can hold it; float32 survives unchanged."""
  if graded is None:
    return None
  roll = graded.rollout
  return {
      'records': list(graded.records), 'texts': list(graded.texts),
      'results': [list(dataclasses.astuple(r)) for r in graded.results],
      'prompts': [prompt.tolist() for prompt in roll.prompts],
      **{name: getattr(roll, name).tolist() for name in _ARRAYS},
      **{name: getattr(graded, name).tolist() for name in _FLAGS}}


def from_json(kept) -> responses.Graded | None:
  """The buffer again; its samples are of an earlier policy."""
  if kept is None:
    return None
  arrays = {name: np.array(kept[name], dtype)
            for name, dtype in (_ARRAYS | _FLAGS).items()}
  return responses.Graded(
      records=tuple(kept['records']), texts=tuple(kept['texts']),
      results=tuple(RewardResult(*r) for r in kept['results']),
      rollout=Rollout(
          prompts=tuple(np.array(p, np.int32) for p in kept['prompts']),
          **{name: arrays[name] for name in _ARRAYS}),
      recorded_PG=np.ones_like(arrays['valid_PG']),
      **{name: arrays[name] for name in _FLAGS})
