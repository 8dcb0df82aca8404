r"""How sure GRAM ends up, by the smoothing and by the labels that are wrong.

  python -m experiments.studies.gram_gap --workdir=runs/studies/gram_gap

Smoothing alone draws Δ to log((1-ε)/ε). Where a share η of the labels is wrong,
both add up, and the expected loss is least at

  log(P / (1-P)),  P = (1-η)(1-ε) + ηε

The judges of `gram_labels` after stage 1, on other seeds, at the rate that all
of its arms chose. The same pairs in all arms: wrong labels are turned round.

Reference: GRAM (arXiv 2506.14175).
"""
from __future__ import annotations

from collections.abc import Callable
import dataclasses
import time

from experiments.studies import gram_labels
from experiments.studies import outcome

_NEAR = 0.2   # of the optimum; from 1.52 to log(9) it is 0.45
_RATE = 1e-3
_NOISE = gram_labels.NOISE

ARMS = {f'{name}, ε {mass:g}': gram_labels.Arm('judge', mass, True, noise)
        for name, noise, mass in (
            ('right labels', 0.0, 0.1), ('right labels', 0.0, 0.3),
            ('a tenth wrong', _NOISE, 0.0), ('a tenth wrong', _NOISE, 0.1),
            ('a tenth wrong', _NOISE, 0.3))}
SIZES = gram_labels.Sizes(seeds=tuple(range(5, 15)), rates=(_RATE,))


def plan(sizes: gram_labels.Sizes) -> outcome.Plan:
  """What is asked, and what is claimed before anything is run."""
  take = lambda name: lambda found: found[name]
  smoothed = [arm for arm in ARMS if ARMS[arm].wrong_label_mass]
  wrong, right = 'a tenth wrong, ε 0.1', 'right labels, ε 0.1'
  return outcome.Plan(
      name='gram_gap', seeds=sizes.seeds, arms=ARMS,
      question='Is the gap between the label logits on new pairs the one at '
               'which the expected loss is least, with labels that are all '
               'right and with a tenth of them wrong?',
      metrics={name: take(name) for name in (
          'gap at the optimum', 'gap', 'gap on training pairs', 'accuracy',
          'ece')} | {'off': off('gap'),
                     'off on training pairs': off('gap on training pairs')},
      claims=[
          *(outcome.Claim(f'the gap is within {_NEAR:.0%} of the optimum, '
                          f'{arm}', 'off', arm, None, 0, _NEAR)
            for arm in smoothed),
          outcome.Claim('wrong labels narrow the gap at the same ε', 'gap',
                        wrong, right, -1),
          outcome.Claim('without smoothing it is beyond the optimum',
                        'off', 'a tenth wrong, ε 0', None, 1),
          outcome.Claim('with it, it is on pairs that were trained on',
                        'off on training pairs', wrong, None, 1)],
      notes=f'{sizes.labels} labelled pairs, {sizes.steps} steps of '
            f'{sizes.batch} pairs, after stage 1; one rate, untuned. The gap '
            'is the mean |Δ|; on new pairs, of the chance that both orders '
            'give together. Off is the gap over that at the optimum, less 1. '
            f'The {_NEAR:.0%} and the claims were written down before anything '
            'was run: with a tenth of the labels wrong and ε 0.1, log((1-ε)/ε) '
            'would be 45 % off. Accuracy is against the truth, calibration '
            'error against labels as noisy as those of training: at the '
            'optimum it is ' + ', '.join(
                f'{gram_labels.miscalibration(a.noise, a.wrong_label_mass):.2f}'
                for a in ARMS.values()) + ' in the order of the arms.')


def off(name: str) -> Callable[[dict], float]:
  """By which share a gap is wider than at the optimum."""
  return lambda found: found[name] / found['gap at the optimum'] - 1


def run(smoke: bool, workdir: str) -> dict:
  """All arms; each is a file in the workdir, and is not run again."""
  sizes = (gram_labels.SMOKE if smoke else SIZES)._replace(rates=(_RATE,))
  begin = time.perf_counter()
  found = gram_labels.all_arms(ARMS, sizes, list(sizes.seeds), workdir)
  return outcome.results(
      plan(sizes), {arm: by_rate[_RATE] for arm, by_rate in found.items()},
      {name: dict(dataclasses.asdict(arm), learning_rate=_RATE)
       for name, arm in ARMS.items()}) | {
           'seconds': time.perf_counter() - begin}


if __name__ == '__main__':
  outcome.main(run)
