r"""Right answers and right reasoning, before and after RL for right answers.

  python -m experiments.studies.cot --workdir=runs/studies/cot

The problems are solved step by step, and a program works each step out
again. `start` takes as many steps as `RL`, at the rate 0: the same rollouts,
judged alike, of a policy that does not change. The advantages of sound and of
unsound reasoning are those that the update was given: the theorem says that
those of the sound are positive on average.

Reference: CoT-Pass@K (arXiv 2506.14245), figures 2 to 5 and theorem 1.
"""
from experiments.studies import compare
from experiments.studies import mini
from experiments.studies import outcome

_KS = (1, 2, 4, 8, 16)


def at(metric: str, k: int):
  """A point of a curve over k, after training."""
  return lambda done: next(point['estimate'] for point in
                           done.end['reasoning'][0][metric]
                           if point['k'] == k)


def make(smoke: bool = False) -> compare.Study:
  ks = _KS[:3] if smoke else _KS
  curves = {f'{name}@{k}': at(f'{metric}_at_k', k)
            for metric, name in (('pass', 'Pass'), ('cot_pass', 'CoT-Pass'))
            for k in ks}
  study = mini.study(
      name='cot', smoke=smoke, num_steps=30,
      question='Does RL with rewards for answers alone improve the reasoning '
               'too, for all K?',
      arms={'start': [{'optimizer.learning_rate': 0.0}], 'RL': [{}]},
      metrics=curves if smoke else curves | {
          'P(CC|CA)': lambda done: done.end['reasoning'][0]['reasoning_right'],
          'advantage of sound reasoning': compare.mean('advantage_of_sound'),
          'advantage of unsound reasoning': compare.mean(
              'advantage_of_unsound')},
      # The policy of `smoke` is never right: the rest is not defined there.
      claims=[
          *(outcome.Claim(f'RL raises {name}', name, 'RL', 'start', 1)
            for name in curves)] + ([] if smoke else [
          outcome.Claim('RL raises the share of right reasoning among right '
                        'answers', 'P(CC|CA)', 'RL', 'start', 1),
          *(outcome.Claim(f'{kind} reasoning has {what} advantages, {arm}',
                          f'advantage of {kind} reasoning', arm, None, sign)
            for arm in ('start', 'RL') for kind, what, sign in (
                ('sound', 'positive', 1), ('unsound', 'negative', -1)))]),
      notes='All arms are measured on the same held-out problems. The policy '
            'was distilled on sound solutions, so that right answers come '
            'with right reasoning more often than in the paper. The arm '
            '"start" is one policy under all seeds: only its rollouts differ.')
  study.policy.judge.name = study.evaluation.judge.name = 'program'
  study.evaluation.evaluation.ks = ks
  study.evaluation.evaluation.num_samples = ks[-1]
  return study


if __name__ == '__main__':
  compare.main(make)
