r"""Math first and then code and science, against all domains at once.

  python -m experiments.studies.curriculum --workdir=runs/studies/curriculum

All arms take the same number of steps with as many responses in each. The
optimiser starts afresh in a second stage, as in the paper's two runs.

Reference: Ring-lite (arXiv 2506.14731), §3.4 and figure 5.
"""
from experiments.studies import compare
from experiments.studies import mini
from experiments.studies import outcome


def make(smoke: bool = False) -> compare.Study:
  first, second = (2, 3) if smoke else (10, 20)
  math = {'data.domains': ('math',)}
  rest = {'data.domains': ('code', 'science')}
  steps = lambda count: {'num_steps': count}
  domain = lambda name: lambda done: (
      done.end['by_domain'][name]['estimate']
      - done.start['by_domain'][name]['estimate'])
  return mini.study(
      name='curriculum', smoke=smoke, num_steps=first + second,
      sizes=dict(domains=None, prompts=16, token_budget=3_072),
      question='Is it better to train on math first and on code and science '
               'afterwards than on all together?',
      arms={
          'mixed': [steps(first + second)],
          'math first': [math | steps(first), rest | steps(second)],
          'math last': [rest | steps(second), math | steps(first)],
          'mixed, begun twice': [steps(first), steps(second)]},
      metrics={
          'accuracy gained': compare.gain,
          'gained in math': domain('math'),
          'gained in code': domain('code'),
          'gained in science': domain('science'),
          'entropy': compare.entropy},
      claims=[
          outcome.Claim('math first gains more than mixed', 'accuracy gained',
                        'math first', 'mixed', 1),
          outcome.Claim('math first gains more than mixed with a fresh '
                        'optimiser at the same step', 'accuracy gained',
                        'math first', 'mixed, begun twice', 1),
          outcome.Claim('math first gains more than math last',
                        'accuracy gained', 'math first', 'math last', 1),
          outcome.Claim('math first loses math against mixed',
                        'gained in math', 'math first', 'mixed', -1)],
      notes='The second stage of an arm begins from the end of the first. '
            '"Mixed, begun twice" has the fresh optimiser of the staged arms '
            'without their order.')


if __name__ == '__main__':
  compare.main(make)
