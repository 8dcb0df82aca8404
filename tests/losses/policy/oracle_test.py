"""Every policy loss and its gradient on a packed step, against float64.

The oracle knows responses, not rows: it loops over them as the papers write the
sums. The path under test selects, packs, weighs and sums; its gradient is held
against central differences of the oracle.
"""
import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax import losses
from rljax import packing
from rljax.types import PolicyBatch
from rljax.types import Rollout

MAX_LENGTH = 7
GAMMA = 0.7  # of Guide's shaping


def make_step(seed, token_budget):
  """A rollout with its log-probabilities, advantages and selection."""
  rng = np.random.default_rng(seed)
  shape_PG = (3, 4)
  shape_PGT = (*shape_PG, MAX_LENGTH)
  rollout = Rollout(
      prompts=tuple(rng.integers(0, 9, n).astype(np.int32) for n in (1, 4, 2)),
      tokens_PGT=rng.integers(0, 3, shape_PGT).astype(np.int32),
      logp_PGT=np.zeros(shape_PGT, np.float32),
      entropy_PGT=np.zeros(shape_PGT, np.float32),
      length_PG=rng.integers(0, MAX_LENGTH + 1, shape_PG).astype(np.int32),
      stopped_PG=np.ones(shape_PG, bool))
  advantage_R = rng.normal(size=12).astype(np.float32)
  logp = {k: -rng.exponential(size=(12, MAX_LENGTH))
          for k in ('new', 'old', 'ref')}
  selection = packing.select(
      rollout.length_PG.reshape(-1), token_budget=token_budget, seed=seed)
  return rollout, advantage_R, logp, selection


def oracle(name, logp, step, low, high, kl_coef):
  """The loss from loops over the responses and their tokens in the loss.

  Args:
    name: of the loss.
    logp: of all tokens by policy; 'sampled from' is what no gradient reaches.
    step: advantage_R, kept_RT, guided_R and the token budget.
    low: of the band of ratios.
    high: likewise.
    kl_coef: of the penalty.
  """
  advantage_R, kept_RT, guided_R, token_budget = step
  num_responses, total = 0, 0.0
  for r, kept_T in enumerate(kept_RT):
    inside = np.flatnonzero(kept_T)
    if not inside.size:
      continue
    num_responses += 1
    inner = 0.0
    geometric = np.exp(np.mean(
        [logp['new'][r, t] - logp['old'][r, t] for t in inside]))
    for t in inside:
      new, old, ref = (logp[k][r, t] for k in ('new', 'old', 'ref'))
      ratio, advantage = np.exp(new - old), float(advantage_R[r])
      ratio = geometric if name == 'gspo' else ratio
      gain = min(ratio * advantage, np.clip(ratio, low, high) * advantage)
      if name == 'reinforce':
        gain = advantage * new
      if name == 'cispo':
        fixed = np.exp(logp['sampled from'][r, t] - old)
        gain = np.clip(fixed, low, high) * advantage * new
      if name in ('guide', 'guide_ppo') and guided_R[r]:
        gain = ratio / (ratio + GAMMA) * advantage
      inner += gain - kl_coef * (np.exp(ref - new) - (ref - new) - 1)
    by_response = name in ('grpo', 'gspo', 'guide')
    total += inner / inside.size if by_response else inner
  divisor = dict.fromkeys(losses.names('policy'), kept_RT.sum()) | {
      'grpo': num_responses,
      'gspo': num_responses,
      'guide': num_responses,
      'dr_grpo': num_responses * MAX_LENGTH,
      'c3po': token_budget}
  return -total / divisor[name]


def differences(function, logp, kept_RT, size=1e-6):
  """Central differences by the policy's own log-probabilities."""
  grad_RT = np.zeros(kept_RT.shape)
  for index in zip(*np.nonzero(kept_RT), strict=True):
    step = np.zeros(kept_RT.shape)
    step[index] = size
    grad_RT[index] = (function(logp | {'new': logp['new'] + step})
                      - function(logp | {'new': logp['new'] - step})
                      ) / (2 * size)
  return grad_RT


class OracleTest(parameterized.TestCase):

  @parameterized.product(
      name=losses.names('policy'),
      token_budget=[20, 1000],  # cut, and not filled
      holes=[False, True])      # inside of responses
  def test_packed_step_equals_the_formula(self, name, token_budget, holes):
    rollout, advantage_R, logp, selection = make_step(3, token_budget)
    rows = packing.pack(
        rollout, advantage_R, selection, num_rows=8, row_length=16,
        num_microbatches=2, max_response_length=MAX_LENGTH)
    low, high = {'dapo': (0.2, 0.28), 'gspo': (3e-4, 4e-4),
                 'cispo': (1.0, 0.2)}.get(name, (0.2, 0.2))
    objective = losses.get('policy', name, kl_coef=0.1)

    r_BT = np.maximum(rows.segment_BT - 1, 0)
    prompt_R = np.repeat([len(p) for p in rollout.prompts], 4)
    t_BT = np.maximum(rows.position_BT - prompt_R[r_BT], 0)
    kept_RT = np.arange(MAX_LENGTH) < selection.kept_R[:, None]
    if holes:
      kept_RT &= np.arange(MAX_LENGTH) % 3 != 1
      rows = rows.replace(
          mask_BT=rows.mask_BT & kept_RT[r_BT, t_BT],
          num_responses=np.int32(kept_RT.any(axis=1).sum()))
    spread = lambda x_RT: jnp.asarray(
        np.where(rows.mask_BT, x_RT[r_BT, t_BT], 200.0), jnp.float32)
    guided_R = np.arange(12) % 3 == 0
    batch = PolicyBatch(
        tokens_BT=rows.tokens_BT, position_BT=rows.position_BT,
        segment_BT=rows.segment_BT, weight_BT=objective.token_weights(rows),
        share_BT=packing.policy_shares(rows.segment_BT),
        advantage_BT=jnp.asarray(rows.advantage_BT),
        old_logp_BT=spread(logp['old']), ref_logp_BT=spread(logp['ref']),
        load_BLE=None, guided_BT=jnp.asarray(guided_R[r_BT]),
        gamma_B=jnp.full(8, GAMMA, jnp.float32))
    value_and_grad = jax.jit(jax.value_and_grad(objective.loss, has_aux=True))
    (loss, _), grad_BT = value_and_grad(spread(logp['new']), batch)

    logp |= {'sampled from': logp['new']}
    formula = functools.partial(
        oracle, name, step=(advantage_R, kept_RT, guided_R, token_budget),
        low=1 - low, high=1 + high, kl_coef=0.1)
    expected = formula(logp)
    self.assertGreater(abs(expected), 1e-3)
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=2e-7)
    grad_RT = np.zeros(kept_RT.shape)
    grad_RT[r_BT[rows.mask_BT], t_BT[rows.mask_BT]] = grad_BT[rows.mask_BT]
    np.testing.assert_allclose(
        grad_RT, differences(formula, logp, kept_RT), rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(grad_BT)[~rows.mask_BT], 0.0)


if __name__ == '__main__':
  absltest.main()
