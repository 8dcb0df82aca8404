"""A reward model on held-out comparisons: accuracy, calibration, statistics."""
from __future__ import annotations

import pathlib

import numpy as np

from experiments.reward import reward_model_forms
from experiments.reward import trained_reward
from rljax.agents import pair_judge
from rljax.data import candidates
from rljax.evaluation import calibration
from rljax.evaluation import intervals
from rljax.evaluation import plots
from rljax.evaluation import report
from rljax.rewards import model_based

# Pairs: two to fit a temperature on, and two to measure.
LEAST = 4


def measure(config, job, form: reward_model_forms.Form, params, records,
            parts: int) -> tuple[dict, list[pathlib.Path]]:
  """Sections of the report and plots; of a head, also stores its statistics.

  Args:
    config: of the run.
    job: with the folder.
    form: its compiled score function is used; nothing else is compiled.
    params: to measure.
    records: held out; a list stands for one pair of it, drawn by the seed.
    parts: micro-batches.
  """
  if config.form == 'pretraining':
    return {'held_out': nll(config, form, params, records)}, []
  ask = trained_reward.asked(config, job, form.score, params, parts)
  pairs = [_drawn_pair(record, [config.seed, i])
           for i, record in enumerate(records)]
  if config.form == 'judge':
    margin_I = judge_margins(ask, pairs)
  else:
    score_I2 = scores(ask, pairs)
    margin_I = score_I2[:, 0] - score_I2[:, 1]
  if config.form == 'scores' and np.isfinite(margin_I).sum() >= LEAST:
    statistics = model_based.measure(
        score_I2.ravel(), 'held-out responses of its training run',
        config.num_steps)
    report.write_json(job.workdir / model_based.FILE,
                      report.plain(statistics))
  return summary(margin_I, config.seed, job.workdir / 'plots')


def scores(ask: trained_reward.Scorer, pairs) -> np.ndarray:
  """score_I2 of the better and the worse response."""
  flat = [(pair.prompt, response) for pair in pairs
          for response in (pair.first, pair.second)]
  return ask(*zip(*flat, strict=True)).reshape(-1, 2)


def judge_margins(judge: pair_judge.PairJudge, pairs) -> np.ndarray:
  """Log-odds of the better response, averaged over both orders."""
  return calibration.logit(pair_judge.scores(judge, pairs)[:, 0])


def summary(margin_I: np.ndarray, seed: int,
            folder: pathlib.Path) -> tuple[dict, list[pathlib.Path]]:
  """Accuracy, in which a tie is wrong, and calibration, with intervals.

  Of fewer than LEAST pairs that could be scored, nothing but their number: a
  run that has come to its end gets its report. It has no calibration if the
  pairs to fit a temperature on are all ties.
  """
  known_I = np.isfinite(margin_I)
  margin_I = margin_I[known_I]
  counts = {'pairs': int(known_I.sum()), 'not_scored': int((~known_I).sum())}
  if counts['pairs'] < LEAST:
    return {'held_out': counts}, []
  found = {'held_out': counts | {
      'accuracy': intervals.bootstrap(margin_I > 0, seed=seed),
      'margin': intervals.bootstrap(margin_I, seed=seed)}}
  halves = calibration.before_and_after(margin_I, seed=seed)
  if halves is None:
    return found, []
  parts = dict(zip(('as it is', 'with a temperature'),
                   map(report.plain, halves), strict=True))
  found['calibration'] = [
      {'of': name} | {key: value for key, value in part.items()
                      if key != 'bins'} for name, part in parts.items()]
  return found, [plots.reliability(
      {name: part['bins'] for name, part in parts.items()}, folder)]


def _drawn_pair(record, seed) -> pair_judge.Pair:
  """The better response first."""
  responses, _ = candidates.ranked(record)
  rng = np.random.default_rng(seed)
  better, worse = sorted(rng.choice(len(responses), 2, replace=False))
  return pair_judge.Pair(record['prompt'], responses[better], responses[worse])


def nll(config, form, params, records) -> dict:
  """Nats per token of what is written, by pair of responses.

  Of fewer than two that fit a row nothing but their number, as in `summary`.
  """
  examples, _ = candidates.all_of(records, form.make)
  counts = {'pairs': len(examples), 'not_scored': len(records) - len(examples)}
  if len(examples) < 2:
    return counts
  found, size = [], config.data.lists_per_step
  for begin in range(0, len(examples), size):
    batch = form.batch(examples[begin:begin + size])
    logp_BT = np.asarray(form.score(params, batch)[0])
    for segment in range(1, len(examples[begin:begin + size]) + 1):
      inside_BT = (batch.segment_BT == segment) & (batch.weight_BT > 0)
      found.append(-logp_BT[inside_BT].mean())
  return counts | {'nll': intervals.bootstrap(found, seed=config.seed)}
