r"""How long RL lasts before entropy is gone, from starts of different entropy.

  python -m experiments.studies.start_entropy \
      --workdir=runs/studies/start_entropy

Starts are checkpoints of one distillation. Collapse is the first step whose
sampled tokens have less than 0.1 nats on average; a run without it counts as
all of its steps (so a difference between such runs is understated).

Reference: Ring-lite (arXiv 2506.14731), §4.3.
"""
import numpy as np

from experiments.studies import compare
from experiments.studies import mini
from experiments.studies import outcome

_COLLAPSED = 0.1  # nats per token


def steps_to_collapse(done: compare.Run) -> float:
  """Steps before the first one below; all of them if there is none."""
  entropy = np.array([line['entropy'] for line in done.lines])
  below = np.flatnonzero(entropy < _COLLAPSED)
  return float(below[0] if below.size else entropy.size)


def make(smoke: bool = False) -> compare.Study:
  starts = (2, 4) if smoke else (100, 200, 300, 400)
  first, last = f'step {starts[0]}', f'step {starts[-1]}'
  return mini.study(
      name='start_entropy', smoke=smoke, num_steps=30,
      question='Does RL from a start of lower entropy collapse sooner, and '
               'does it end lower?',
      arms={f'step {step}': [{'init.step': step,
                              'regularize.entropy_coef': 0.0}]
            for step in starts},
      metrics={
          'entropy of the start': lambda done: (
              done.start['entropy']['estimate']),
          'steps to collapse': steps_to_collapse,
          'entropy at the end': compare.final('entropy'),
          'accuracy of the start': lambda done: (
              done.start['accuracy']['estimate']),
          'accuracy gained': compare.gain,
          'accuracy': compare.accuracy},
      claims=[
          outcome.Claim('RL from the lowest entropy collapses sooner than from '
                        'the highest', 'steps to collapse', last, first, -1),
          outcome.Claim('RL from the lowest entropy gains less than from the '
                        'highest', 'accuracy gained', last, first, -1),
          outcome.Claim('RL from the lowest entropy ends lower than from the '
                        'highest', 'accuracy', last, first, -1)],
      notes='A later checkpoint of a distillation has less entropy and more '
            'accuracy at once: the two are not told apart here. The entropy '
            'bonus is off in all arms. The start is one for all seeds, so its '
            'own numbers have no spread.')


if __name__ == '__main__':
  compare.main(make)
