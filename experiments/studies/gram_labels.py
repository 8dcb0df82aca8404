r"""GRAM against Bradley-Terry where labels are few and some of them wrong.

  python -m experiments.studies.gram_labels --workdir=runs/studies/gram_labels

A response is better that holds the wanted letter more often; one label in ten
is wrong, and there are few. Arms: a Bradley-Terry head, from random parameters
or from those of stage 1; GRAM with and without stage 1 (both responses written,
without labels), and with less, as much and more smoothing than there is noise.
Pairs of longer texts than any in training are out of distribution.

Every arm has the same number of steps and the same rates to choose from, by the
loss on held-out pairs of a seed that is not used again.

Reference: GRAM (arXiv 2506.14175).
"""
from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import time
from typing import NamedTuple

import jax
import numpy as np

from experiments.studies import once
from experiments.studies import outcome
from experiments.studies import toy_judges
from rljax import losses
from rljax import models
from rljax.data import judge_prompts
from rljax.evaluation import calibration
from rljax.models import reward as reward_nets
from rljax.training import reward as training

NOISE = 0.1           # of the labels
_MORE = 0.3           # more smoothing than noise
_TUNING_SEED = 100


@dataclasses.dataclass(frozen=True)
class Arm:
  """What is trained on the labels, and from where."""
  form: str                 # scores or judge
  wrong_label_mass: float
  stage_1: bool
  noise: float = NOISE


ARMS = {
    'bradley-terry': Arm('scores', 0.0, False),
    'bradley-terry after stage 1': Arm('scores', 0.0, True),
    'gram': Arm('judge', NOISE, True),
    'gram without stage 1': Arm('judge', NOISE, False),
    'gram without smoothing': Arm('judge', 0.0, True),
    'gram with more smoothing': Arm('judge', _MORE, True)}


class Sizes(NamedTuple):
  """How much of everything."""
  seeds: Sequence[int] = (0, 1, 2, 3, 4)
  labels: int = 256
  unlabeled: int = 2_048
  held_out: int = 400
  steps: int = 250
  stage_1_steps: int = 300
  batch: int = 32
  rates: Sequence[float] = (1e-3, 3e-3)
  stage_1_rate: float = 3e-3


SMOKE = Sizes((0, 1), 32, 32, 16, 2, 2, 8, (1e-3, 3e-3))


def plan(sizes: Sizes) -> outcome.Plan:
  """What is asked, and what is claimed before anything is run."""
  take = lambda name: lambda found: found[name]
  claim = lambda text, metric, than, sign: outcome.Claim(
      text, metric, 'gram', than, sign)
  return outcome.Plan(
      name='gram_labels', seeds=sizes.seeds, arms=ARMS,
      question='With few labels, of which a tenth is wrong: is GRAM more '
               'accurate than Bradley-Terry, what does writing responses '
               'first do for it, and does smoothing by the rate of the noise '
               'calibrate it?',
      metrics={name: take(name) for name in (
          'accuracy', 'accuracy, longer texts', 'nll', 'ece', 'gap',
          'gap at the optimum', 'gap on training pairs')},
      claims=[
          claim('GRAM is more accurate', 'accuracy', 'bradley-terry', 1),
          claim('GRAM is more accurate, longer texts',
                'accuracy, longer texts', 'bradley-terry', 1),
          claim('GRAM is more accurate, both after stage 1', 'accuracy',
                'bradley-terry after stage 1', 1),
          claim('stage 1 makes GRAM more accurate', 'accuracy',
                'gram without stage 1', 1),
          claim('stage 1 makes GRAM more accurate, longer texts',
                'accuracy, longer texts', 'gram without stage 1', 1),
          claim('smoothing by the noise lowers the loss', 'nll',
                'gram without smoothing', -1),
          claim('smoothing by the noise lowers the calibration error', 'ece',
                'gram without smoothing', -1),
          claim('more smoothing than noise raises the calibration error', 'ece',
                'gram with more smoothing', -1),
          claim('smoothing narrows the gap', 'gap on training pairs',
                'gram without smoothing', -1),
          claim('more of it narrows the gap further', 'gap on training pairs',
                'gram with more smoothing', 1)],
      notes=f'{sizes.labels} labelled pairs, {sizes.unlabeled} without labels, '
            f'{sizes.steps} steps of {sizes.batch} pairs. Accuracy is against '
            'the truth, loss and calibration error against labels as noisy as '
            'those of training. Every arm chooses between the same rates. '
            + _note())


def _note() -> str:
  at = lambda mass: (f'{expected_gap(NOISE, mass):.2f} at ε = {mass:g}, with a '
                     f'calibration error of {miscalibration(NOISE, mass):.2f}')
  return (
      'The gap is the mean |Δ| of the label logits; on held-out pairs, of the '
      'chance that both orders give together. ε smooths what the labels say, '
      f'and a share η = {NOISE} of them is wrong: the expected loss is least '
      'where the better response has P = (1-η)(1-ε) + ηε, and the gap there is '
      f'{at(0.0)}; {at(NOISE)}; {at(_MORE)}. Labels that are memorised pull '
      f'towards log((1-ε)/ε) instead, {expected_gap(0.0, NOISE):.2f} and '
      f'{expected_gap(0.0, _MORE):.2f}, and without bound at ε = 0. This note '
      'once gave these for what the loss wants of new pairs, and the claim '
      'about the calibration error was made in that belief: at its optimum, '
      'smoothing by the noise is calibrated worse than none, and can only mend '
      'what memorising spoils. `gram_gap` asks on other seeds whether the gaps '
      'are those.')


def optimum(noise: float, mass: float) -> float:
  """Chance of the better response where the expected loss is least.

  Args:
    noise: η, the share of labels that are wrong.
    mass: ε, what the loss puts on the other label.
  """
  return (1 - noise) * (1 - mass) + noise * mass


def expected_gap(noise: float, mass: float) -> float:
  """Δ there: log((1-ε)/ε) if no label is wrong."""
  chance = optimum(noise, mass)
  return float(np.log(chance / (1 - chance)))


def miscalibration(noise: float, mass: float) -> float:
  """By how much that chance is off, against labels as noisy."""
  return abs(optimum(noise, mass) - (1 - noise))


def run(smoke: bool, workdir: str) -> dict:
  """All arms; each is a file in the workdir, and is not run again."""
  sizes = SMOKE if smoke else Sizes()
  begin = time.perf_counter()
  study = plan(sizes)
  found = all_arms(ARMS, sizes, [_TUNING_SEED, *sizes.seeds], workdir)
  runs, settings = {}, {}
  for name, arm in ARMS.items():
    by_rate = found[name]
    best = min(sizes.rates, key=lambda rate: by_rate[rate][0]['nll'])
    runs[name] = by_rate[best][1:]
    settings[name] = dict(dataclasses.asdict(arm), learning_rate=best)
  return outcome.results(study, runs, settings) | {
      'seconds': time.perf_counter() - begin}


def all_arms(arms, sizes, seeds, workdir) -> dict:
  """arm -> rate -> what each seed is found to do."""
  made = lambda name, what, make: once.made(
      workdir, name, (sizes, seeds, toy_judges.MODEL, what), make)
  start = made('start', '', lambda: toy_judges.random_start(seeds))
  stage_1 = made('stage 1', '',
                 lambda: toy_judges.write_both(sizes, seeds, start))
  return {name: made(name, arm, functools.partial(
      one_arm, arm, sizes, seeds, stage_1 if arm.stage_1 else start))
          for name, arm in arms.items()}


def one_arm(arm, sizes, seeds, params_S) -> dict:
  """rate -> what each seed is found to do; all of them side by side."""
  toy, stacked, repeated = (
      toy_judges.toy, toy_judges.stacked, toy_judges.repeated)
  model = models.create(**toy_judges.MODEL)
  if arm.form == 'scores':
    params_S = jax.vmap(lambda params, key: reward_nets.from_language_model(
        params, 1, key))(params_S, stacked(
            [jax.random.key(seed) for seed in seeds]))
    forward = training.make_head_forward(reward_nets.RewardModel(model.config))
    name = 'bradley_terry'
  else:
    forward = training.make_label_forward(
        model, judge_prompts.label_ids(toy_judges.Words()))
    name = 'gram'
  loss_fn = training.compose(forward, losses.get(
      'reward', name, wrong_label_mass=arm.wrong_label_mass).loss)
  labelled = [toy(sizes.labels, [seed, 1], flip=arm.noise) for seed in seeds]
  data_S = stacked([toy_judges.lists(arm.form, r) for r in labelled])
  times = len(sizes.rates)
  params_R = toy_judges.train(
      loss_fn, repeated(params_S, times), repeated(data_S, times),
      np.repeat(sizes.rates, len(seeds)), sizes.steps, sizes.batch)
  tests = [toy(sizes.held_out, [seed, 2]) for seed in seeds]
  longer = [toy(sizes.held_out, [seed, 3], length=9) for seed in seeds]
  score = jax.jit(jax.vmap(lambda p, b: forward(p, b)[0]))
  margin = lambda some: toy_judges.margins(arm.form, score, params_R,
                                           some * times)
  gap_R = np.abs(np.diff(score(params_R, repeated(data_S, times))[
      :, :, 0, :, 0], axis=-1)).mean(axis=(1, 2))
  clean, far = margin(tests), margin(longer)
  found = [measured(arm, clean[r], far[r], gap_R[r], seeds[r % len(seeds)])
           for r in range(len(gap_R))]
  return {rate: found[i * len(seeds):(i + 1) * len(seeds)]
          for i, rate in enumerate(sizes.rates)}


def measured(arm, margin_I, far_I, gap, seed) -> dict[str, float]:
  """Of margins of the truly better response."""
  rng = np.random.default_rng([seed, 4])
  noisy_I = np.where(rng.random(len(margin_I)) < arm.noise, -margin_I,
                     margin_I)
  difference_I, better_I = calibration.in_drawn_order(noisy_I, seed)
  return {
      'accuracy': float(np.mean(margin_I > 0)),
      'accuracy, longer texts': float(np.mean(far_I > 0)),
      'nll': float(calibration.nll(difference_I, better_I).mean()),
      'ece': calibration.ece(1 / (1 + np.exp(-difference_I)), better_I),
      'gap': float(np.abs(margin_I).mean()),
      'gap at the optimum': expected_gap(arm.noise, arm.wrong_label_mass),
      'gap on training pairs': float(gap)}


if __name__ == '__main__':
  outcome.main(run)
