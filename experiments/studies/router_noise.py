r"""A sampler whose experts are chosen differently, and what mends that.

  python -m experiments.studies.router_noise --workdir=runs/studies/router_noise

In every step the sampler's router weights get fresh noise, three quarters as
large as the weights: it stands for the kernels and the precision of a serving
engine, in which a mixture of experts chooses other experts for the same token.
Arms: nothing done about it; the ratio truncated (TIS) or masked (IcePop) token
by token; routes replayed from the sampler (R3) or from the policy before the
update (R2).

Reference: Ring-1T (arXiv 2510.18855) for IcePop; arXiv 2510.11370 for R3.
"""
import jax
import jax.numpy as jnp

from experiments.studies import compare
from experiments.studies import mini
from experiments.studies import outcome

_NOISE = 0.75  # of the root mean square of a router's weights


def disturb(params, key):
  """The parameters with noise on every router's weights."""
  def one(path, x):
    names = [getattr(part, 'key', '') for part in path]
    if 'router' not in names:
      return x
    label = sum(ord(letter) for name in names for letter in str(name))
    noise = jax.random.normal(jax.random.fold_in(key, label), x.shape, x.dtype)
    return x + _NOISE * jnp.sqrt(jnp.mean(jnp.square(x))) * noise
  return jax.tree_util.tree_map_with_path(one, params)


def make(smoke: bool = False) -> compare.Study:
  arms = {
      'nothing': [{}],
      'tis': [{'correction': dict(name='tis', level='token', cap=2.0)}],
      'icepop': [{'correction': dict(name='icepop', level='token', low=0.5,
                                     high=5.0)}],
      'r2': [{'routing_replay': 'recompute'}],
      'r3': [{'routing_replay': 'rollout'}]}
  mended = [arm for arm in arms if arm != 'nothing']
  return mini.study(
      name='router_noise', smoke=smoke, num_steps=30,
      question='Does it help RL to correct for, or to replay, the experts of a '
               'sampler that routes differently?',
      arms=arms, disturb=disturb,
      metrics={
          'accuracy gained': compare.gain,
          'reward at the end': compare.final('reward'),
          'tokens off by a factor of two': compare.mean('mismatch_twofold'),
          'gradient norm, variation': compare.variation('grad_norm')},
      claims=[
          *(outcome.Claim(f'{arm} gains more than nothing', 'accuracy gained',
                          arm, 'nothing', 1) for arm in mended),
          outcome.Claim('R3 brings the trainer closer to the sampler',
                        'tokens off by a factor of two', 'r3', 'nothing', -1)],
      notes='The noise is far larger than what kernels cause, so that thirty '
            'steps can show something. Accuracy is that of the policy without '
            'noise. R2 is nothing, to the bit, where a rollout has one update: '
            'it replays what the router chooses anyway.')


if __name__ == '__main__':
  compare.main(make)
