import math
import types

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax import sharding
from rljax.models import transformer
from rljax.ops import corrections
from rljax.ops import sampling
from rljax.ops import vocabulary
from rljax.training import batch as batches
from rljax.training import forward
from rljax.types import RouterStats
from tests import toys
from tests.training import steps


def inputs(lengths=((5, 4), (11,), (), (7, 5)), seed=0):
  """Rows of 12 with every token's share."""
  tokens_BT, position_BT, segment_BT = toys.rows(lengths, 12, seed)
  real_BT = (segment_BT > 0).astype(np.float32)
  return batches.ModelInputs(tokens_BT, position_BT, segment_BT,
                             real_BT / max(real_BT.sum(), 1))


class FixedModel:
  """A stand-in of which logits and statistics are known."""

  def __init__(self, logits_BTV):
    self.logits_BTV = logits_BTV

  def apply(self, variables, tokens_BT, position_BT, segment_BT, share_BT):
    # One layer, two experts: mean probability (1/4, 3/4), load (2, 0), z = 9.
    rows = RouterStats(jnp.array([[0.25, 0.75]]), jnp.array([[2., 0.]]),
                       jnp.array([9.]), jnp.array([0.5]), None)
    return transformer.ModelOutput(vocabulary.Projection(
        variables['params'] * self.logits_BTV), rows, None)


class ComposeTest(parameterized.TestCase):

  def run_loss(self, load_BLE=None, **coefs):
    # Two ids at odds 1:3, then 1:1; the token after position 0 is id 1.
    # log p = log 3/4; H = 1/4 log 4 + 3/4 log 4/3. Weight 1/2 on that token.
    model = FixedModel(jnp.log(jnp.array([[[1., 3.], [1., 1.]]])))
    step = steps.example().batch
    batch = step.replace(
        tokens_BT=np.array([[0, 1]], np.int32),
        position_BT=np.array([[0, 1]], np.int32),
        segment_BT=np.ones((1, 2), np.int32),
        weight_BT=np.array([[0, 0.5]], np.float32), load_BLE=load_BLE)
    objective = lambda logp_BT, batch: (
        -jnp.sum(batch.weight_BT * logp_BT), {'mine': jnp.float32(1)})
    loss_fn = forward.compose(forward.make_forward(model), objective, **coefs)
    loss, metrics = loss_fn(jnp.float32(1), batch, jax.random.key(0))
    return float(loss), metrics

  def test_terms_add_with_their_signs(self):
    # Objective -0.5 log 3/4. Entropy bonus -0.1 · 0.5 · H. Balance
    # 2 · 1/4 + 0 · 3/4 = 0.5, times 0.2. z: 9 times 0.01.
    nll = -0.5 * math.log(3 / 4)
    entropy = 0.5 * (math.log(4) / 4 + 3 * math.log(4 / 3) / 4)
    loss, metrics = self.run_loss(entropy_coef=0.1, balance_coef=0.2,
                                  z_coef=0.01)
    self.assertAlmostEqual(loss, nll - 0.1 * entropy + 0.1 + 0.09, places=5)
    self.assertAlmostEqual(float(metrics['entropy']), entropy, places=6)
    self.assertAlmostEqual(float(metrics['router_balance']), 0.5, places=6)
    self.assertAlmostEqual(float(metrics['router_entropy']), 0.5, places=6)
    self.assertEqual(metrics['mine'], 1)

  def test_without_coefficients_the_objective_is_left(self):
    loss, _ = self.run_loss()
    self.assertAlmostEqual(loss, -0.5 * math.log(3 / 4), places=6)

  def test_a_given_load_is_used(self):
    # Load (0, 4) on probabilities (1/4, 3/4): balance 3.
    loss, metrics = self.run_loss(np.array([[[0., 4.]]], np.float32),
                                  balance_coef=1.0)
    self.assertAlmostEqual(float(metrics['router_balance']), 3, places=6)
    self.assertAlmostEqual(loss, -0.5 * math.log(3 / 4) + 3, places=5)


class ScoreTest(parameterized.TestCase):

  def test_temperature_divides_the_logits(self):
    logits_BTV = jnp.log(jnp.array([[[1., 9.], [1., 1.]]]))
    run = forward.make_forward(FixedModel(logits_BTV),
                               sampling.make_params(temperature=2.0))
    batch = batches.ModelInputs(np.array([[0, 1]], np.int32), None,
                                np.ones((1, 2), np.int32), None)
    scores = run(jnp.float32(1), batch)  # odds 1:9 become 1:3
    np.testing.assert_allclose(scores.logp_BT, [[0, math.log(3 / 4)]],
                               rtol=1e-5)

  @parameterized.parameters(2, 4)
  def test_micro_batches_give_the_same_scores_and_load(self, n):
    model, params = toys.model_and_params('tiny')
    run = forward.make_forward(model)
    want = forward.make_score_fn(run)(params, inputs())
    got = forward.make_score_fn(run, num_microbatches=n)(params, inputs())
    for a, b in zip(got, want, strict=True):
      np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(want[2].mean(axis=1), 1, rtol=1e-5)
    direct = jax.jit(run)(params, inputs())
    np.testing.assert_allclose(want[0], direct.logp_BT, atol=1e-5)
    np.testing.assert_allclose(want[1], direct.entropy_BT, atol=1e-5)

  def test_eight_devices_give_the_same_scores(self):
    model, params = toys.model_and_params('tiny')
    rows = inputs(((5, 4), (11,), (), (7, 5)) * 2)
    want = forward.make_score_fn(forward.make_forward(model))(params, rows)
    mesh = sharding.make_mesh()
    with sharding.use(mesh):
      score = forward.make_score_fn(forward.make_forward(model),
                                    batch_sharding=sharding.batch(mesh))
      got = score(params, rows)
    for a, b in zip(got, want, strict=True):
      np.testing.assert_allclose(a, b, atol=1e-5)


class BatchTest(absltest.TestCase):

  def test_a_supervised_batch_gets_the_load_of_the_step_in_all_rows(self):
    step = steps.example()
    score = lambda params, batch: (
        None, None, jnp.array([[1.5, 0.5], [2., 0.]]) + params)
    batch = step.batch.replace(load_BLE=None)
    out = batches.with_load(batch, score, 0.0)
    self.assertEqual(out.load_BLE.shape, (8, 2, 2))
    np.testing.assert_array_equal(out.load_BLE[7], [[1.5, 0.5], [2, 0]])

  def test_the_ratio_of_a_first_update_is_one(self):
    # Old log-probabilities come from the same parameters as the loss's.
    step = steps.example()
    score = forward.make_score_fn(forward.make_forward(step.model))
    # What `policy_batch` reads of packed rows.
    rows = types.SimpleNamespace(
        tokens_BT=step.batch.tokens_BT, position_BT=step.batch.position_BT,
        segment_BT=step.batch.segment_BT, experts_BTLX=None,
        advantage_BT=step.batch.advantage_BT,
        response_BT=step.batch.weight_BT > 0)
    batch = batches.policy_batch(rows, step.batch.weight_BT,
                                 step.batch.share_BT, score, step.params)
    self.assertIsNone(batch.ref_logp_BT)
    scores = jax.jit(forward.make_forward(step.model))(step.params, batch)
    np.testing.assert_allclose(scores.logp_BT, batch.old_logp_BT, atol=1e-5)
    np.testing.assert_allclose(batch.load_BLE, step.batch.load_BLE, rtol=1e-5)
    other = batches.policy_batch(
        rows, step.batch.weight_BT, step.batch.share_BT, score, step.params,
        jax.tree.map(lambda x: 0.9 * x, step.params))
    self.assertGreater(
        float(np.abs(other.ref_logp_BT - other.old_logp_BT).max()), 0.1)

  def test_the_bonus_of_the_step_takes_the_place_of_the_config(self):
    step = steps.example()
    weight_BT = step.batch.weight_BT
    silent = lambda logp_BT, batch: (jnp.zeros(()), {})
    loss = lambda coef, batch: float(forward.compose(
        forward.make_forward(step.model), silent, entropy_coef=coef)(
            step.params, batch, None)[0])
    steered = step.batch.replace(
        entropy_coef_B=np.full(len(weight_BT), 0.3, np.float32))
    self.assertEqual(loss(0.1, steered), loss(0.3, step.batch))
    self.assertNotEqual(loss(0.1, steered), loss(0.1, step.batch))

  def test_corrections_scale_advantages_and_nothing_else(self):
    # Trainer over sampler: 1/2 on all tokens, then within the bounds, then 4.
    step = steps.example()
    inside_BT = step.batch.weight_BT > 0
    def at(ratio, **options):
      rows = step.batch.replace(
          old_logp_BT=None).__dict__ | dict(mask_BT=inside_BT)
      rows = types.SimpleNamespace(**rows | dict(
          sampled_logp_BT=step.batch.old_logp_BT - np.log(ratio)))
      return batches.corrected(
          step.batch, rows, corrections.get(**options))
    half, report = at(0.5, name='tis')
    np.testing.assert_allclose(
        half.advantage_BT, 0.5 * step.batch.advantage_BT, rtol=1e-4)
    np.testing.assert_array_equal(half.weight_BT, step.batch.weight_BT)
    self.assertAlmostEqual(float(report['corrected_mean']), 0.5, places=4)
    none, report = at(4.0, name='mis')
    np.testing.assert_array_equal(none.advantage_BT, 0.0)
    self.assertEqual(float(report['corrected_away']), 1.0)
    same, _ = at(4.0, name='none')
    np.testing.assert_array_equal(same.advantage_BT, step.batch.advantage_BT)


if __name__ == '__main__':
  absltest.main()
