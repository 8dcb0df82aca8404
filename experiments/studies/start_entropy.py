r"""How long RL lasts before its reward is gone, from starts of other entropy.

  python -m experiments.studies.start_entropy \
      --workdir=runs/studies/start_entropy

Starts are checkpoints of one distillation. The learning rate is three times
that of the other studies, at which most runs lose what they can.
Collapse is the first step at which the mean reward of five steps has fallen to
half of the best such mean before it; a run without it counts as all of its
steps (so a difference between such runs is understated).

Reference: Ring-lite (arXiv 2506.14731), §4.3.
"""
import numpy as np

from experiments.studies import compare
from experiments.studies import mini
from experiments.studies import outcome

_WINDOW = 5  # steps
_COLLAPSED = 0.5  # of the best


def smooth(done: compare.Run) -> np.ndarray:
  """Mean reward of each window of steps."""
  reward = np.array([line['reward'] for line in done.lines], np.float64)
  width = min(_WINDOW, reward.size)
  return np.convolve(reward, np.full(width, 1 / width), 'valid')


def steps_to_collapse(done: compare.Run) -> float:
  """The first step that ends a collapsed window; all of them without one."""
  reward = smooth(done)
  best = np.maximum.accumulate(reward)
  below = np.flatnonzero(reward <= _COLLAPSED * best)
  last = len(done.lines)
  return float(below[0] + last - reward.size if below.size else last)


def make(smoke: bool = False) -> compare.Study:
  starts = (2, 4) if smoke else (500, 600, 700, 800)
  first, last = f'step {starts[0]}', f'step {starts[-1]}'
  return mini.study(
      name='start_entropy', smoke=smoke, num_steps=60,
      question='Does RL from a start of lower entropy collapse sooner, and '
               'does it end lower?',
      arms={f'step {step}': [{'init.step': step,
                              'regularize.entropy_coef': 0.0}]
            for step in starts},
      metrics={
          'entropy of the start': lambda done: (
              done.start['entropy']['estimate']),
          'steps to collapse': steps_to_collapse,
          'best reward of five steps': lambda done: float(smooth(done).max()),
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
      learning_rates=(1e-3,),
      notes='A later checkpoint of a distillation has less entropy and more '
            'accuracy at once: the two are not told apart here. The entropy '
            'bonus is off in all arms. The start is one for all seeds, so its '
            'own numbers have no spread. What collapses here collapses '
            'because its steps are too large, not as in the paper after '
            'hundreds of small ones.')


if __name__ == '__main__':
  compare.main(make)
