r"""C3PO and what it is made of, against GRPO, Dr. GRPO and DAPO.

  python -m experiments.studies.objectives --workdir=runs/studies/objectives

C3PO changes two things about GRPO: a step trains on exactly Φ tokens (budget),
and every token weighs 1/Φ, whatever the length of its response (normalisation).
The paper has no ablation of the two: here each stands alone as well. Without a
budget, Φ is the most tokens that a step can have, a constant too.

Reference: Ring-lite (arXiv 2506.14731), §3.2 and figure 4.
"""
from experiments.studies import compare
from experiments.studies import mini
from experiments.studies import outcome

_KL = 1e-3


def make(smoke: bool = False) -> compare.Study:
  everything = mini.without_budget(smoke)
  loss = lambda name, **options: {'loss': dict(
      name=name, kl_coef=_KL, **(options or dict(clip_eps=0.2)))}
  claim = lambda text, metric, than, sign: outcome.Claim(
      text, metric, 'c3po', than, sign)
  others = ('grpo', 'dr grpo', 'dapo', 'normalisation alone', 'budget alone')
  return mini.study(
      name='objectives', smoke=smoke, num_steps=30,
      question='Does C3PO vary less from step to step than other objectives '
               'when the lengths of responses vary, and which half of it does '
               'that?',
      arms={
          'c3po': [{}],
          'grpo': [everything | loss('grpo')],
          'dr grpo': [everything | loss('dr_grpo') | {
              'advantage': 'group_centered'}],
          'dapo': [everything | loss('dapo', clip_low=0.2, clip_high=0.28)],
          'normalisation alone': [everything],
          'budget alone': [loss('grpo')]},
      metrics={
          'gradient norm, variation': compare.variation('grad_norm'),
          'update seconds, variation': compare.variation('update_seconds'),
          'tokens trained per step': compare.mean('selected_tokens'),
          'tokens per step, variation': compare.variation('selected_tokens'),
          'reward at the end': compare.final('reward'),
          'accuracy gained': compare.gain},
      claims=[
          *(claim(f'the gradient norm of C3PO varies less than that of {name}',
                  'gradient norm, variation', name, -1) for name in others),
          *(claim(f'the time of an update varies less than with {name}',
                  'update seconds, variation', name, -1)
            for name in ('grpo', 'dr grpo', 'dapo')),
          *(claim(f'C3PO gains more accuracy than {name}', 'accuracy gained',
                  name, 1) for name in others)],
      learning_rates=(1e-4, 3e-4),
      notes='All arms sample the same number of responses in a step. Arms '
            'without a budget train on more tokens of them: their updates '
            'cost more. DAPO is its loss alone, without dynamic sampling. '
            'The tokens of a step vary by a twentieth here, which is little.')


if __name__ == '__main__':
  compare.main(make)
