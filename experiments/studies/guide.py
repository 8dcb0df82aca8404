r"""Hints for prompts that fail, against none and against other prompts.

  python -m experiments.studies.guide --workdir=runs/studies/guide

Half of the problems are sums of two-digit numbers, to which the start hardly
ever answers right, and with the first step of the solution as a hint more
often; the other half are sums of one-digit numbers, which leave Filter-GRPO
something to train on. Arms: GRPO; Filter-GRPO, which draws other prompts for
groups all right or all wrong; Guide, with its other denominators (the policy
without the hint; 1) and its other shapings.

Reference: Guide (arXiv 2506.13923).
"""
import numpy as np

from configs import common
from experiments.studies import compare
from experiments.studies import mini
from experiments.studies import outcome

_PROMPT, _RESPONSE = 64, 64
_ROW = 128


def configs(smoke: bool):
  """Configs of start, policy and measurement."""
  source = common.reasoning_gym(
      (('basic_arithmetic', 1), ('basic_arithmetic', 2)),
      train_size=60 if smoke else 600, held_out=8 if smoke else 40,
      hint_steps=1)
  arg = 'smoke' if smoke else ''
  sft = compare.load('configs/supervised/sft_tiny.py', arg or 'hinted')
  policy = compare.load('configs/policy/guide_tiny.py', arg)
  evaluation = compare.load('configs/evaluation/mini.py', arg)
  for config in (sft, policy, evaluation):
    config.data.update(source=source, max_prompt_length=_PROMPT)
    if not smoke:
      config.model = mini.MODEL
  for config in (policy, evaluation):
    config.rollout.update(max_prompt_length=_PROMPT, max_new_tokens=_RESPONSE)
  sft.num_steps = 4 if smoke else 600
  sft.optimizer = common.muon(sft.num_steps)
  sft.checkpoint = dict(every=2 if smoke else 100, keep=None)
  sft.data.update(hinted_share=0.9, examples_per_step=8 if smoke else 32)
  sft.packing = common.rows(_ROW, num_rows=8 if smoke else 32,
                            rows_per_device=1 if smoke else 8)
  policy.num_steps = 3 if smoke else 30
  policy.data.prompts_per_step = 4 if smoke else 8
  policy.packing.update(common.rows(_ROW, num_rows=32 if smoke else 64,
                                    rows_per_device=1 if smoke else 8))
  policy.packing.select.token_budget = 1_024 if smoke else 4_096
  policy.max_draws = 1 if smoke else 2
  policy.checkpoint = dict(every=1_000, keep=1)
  evaluation.rollout.num_slots = 8 if smoke else 128
  evaluation.evaluation.update(
      problems_per_domain=4 if smoke else 80, num_samples=4, ks=(1, 2, 4))
  return sft, policy, evaluation


def gained(digits: int):
  """Accuracy gained on the sums of numbers with so many digits."""
  def right(found) -> float:
    return float(np.mean([
        problem['correct'] / problem['graded'] for problem in found['problems']
        if problem['id'].startswith(f'basic_arithmetic-{digits}-')]))
  return lambda done: right(done.end) - right(done.start)


def sampled(done: compare.Run) -> float:
  """Tokens of a step, those under hints included."""
  tokens = [line['sampled_tokens'] + (
      line['draws'] * line['hint_tokens'] if 'hint_tokens' in line else 0.0)
            for line in done.lines]
  return float(np.mean(tokens))


def make(smoke: bool = False) -> compare.Study:
  sft, policy, evaluation = configs(smoke)
  shaped = lambda name, gamma=1.0: {'loss': dict(
      name='guide', clip_eps=0.2, kl_coef=0.0, shaping=name, gamma=gamma,
      guided_clip=0.0)}
  return compare.Study(
      name='guide', sft=sft, policy=policy, evaluation=evaluation,
      question='Do hints for failed prompts help on problems that are hardly '
               'ever solved without, and what of Guide does it?',
      arms={
          'grpo': [{'guide.mode': 'off'}],
          'filter': [{'guide.mode': 'filter'}],
          'guide': [{}],
          'denominator without hint': [{'guide.denominator': 'plain'}],
          'denominator 1': [{'guide.denominator': 'one'}],
          'identity': [shaped('identity')],
          'power': [shaped('power', 0.5)]},
      metrics={
          'gained on two digits': gained(2),
          'gained on one digit': gained(1),
          'accuracy': compare.accuracy,
          'reward at the end': compare.final('reward'),
          'gradient norm, variation': compare.variation('grad_norm'),
          'tokens sampled per step': sampled},
      claims=[
          *(outcome.Claim(f'Guide gains more than {arm} where the start fails',
                          'gained on two digits', 'guide', arm, 1)
            for arm in ('grpo', 'filter', 'denominator without hint',
                        'denominator 1', 'identity', 'power'))],
      seeds=(0, 1) if smoke else (0, 1, 2, 3, 4),
      learning_rates=(3e-4,),
      notes='Accuracy is without any hint. All arms use one learning rate, '
            'that of the other studies, tried with Guide under another seed. '
            'Filter and Guide draw prompts until a step is full, twice at '
            'most: what they sample is counted, and is more than with GRPO, so '
            'that Guide has more compute. No arm learns the sums of two digits '
            'in thirty steps: of hints for what the start cannot do, the study '
            'says no more than that. '
            'The time is that of two processes side by side, added up. '
            + mini.BUSY)


if __name__ == '__main__':
  compare.main(make)
