from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax.losses.policy import dapo
from rljax.losses.policy import reinforce
from tests.losses.policy import batches


class ReinforceTest(parameterized.TestCase):

  @parameterized.named_parameters(('eager', lambda f: f), ('jit', jax.jit))
  def test_hand_computed(self, transform):
    # -(1/2) (1 · -1 + -2 · -3) = -(1/2) · 5; the third token has no weight.
    batch = batches.make_batch([[0.5, 0.5, 0]], [[1, -2, 7]])
    loss, metrics = transform(reinforce.loss)(
        jnp.array([[-1.0, -3.0, 99.0]]), batch)
    np.testing.assert_allclose(loss, -2.5)
    np.testing.assert_allclose(metrics['surrogate'], 2.5)

  def test_gradient_equals_dapo_at_the_policy_that_sampled(self):
    # ∇ρ A = A ∇log π at ρ = 1.
    logp_BT = jnp.array([[-1.0, -0.3, -2.0], [-0.1, -5.0, -1.0]])
    batch = batches.make_batch([[0.2, 0.2, 0], [0.2, 0.2, 0.2]],
                               [[1, -1, 2], [0.5, -3, 1]], logp_BT)
    grad = lambda loss: jax.grad(lambda x: loss(x, batch)[0])(logp_BT)
    np.testing.assert_allclose(
        grad(reinforce.loss), grad(dapo.loss), rtol=1e-6)

  def test_gradient_ignores_how_far_the_policy_has_moved(self):
    # Its reason to exist, and its limit: off the policy, only DAPO clips.
    logp_BT = jnp.array([[0.0, -2.0]])
    batch = batches.make_batch([[0.5, 0.5]], [[1, -1]], -1.0)
    grad = lambda loss: jax.grad(lambda x: loss(x, batch)[0])(logp_BT)
    np.testing.assert_allclose(grad(reinforce.loss), [[-0.5, 0.5]])
    np.testing.assert_allclose(grad(dapo.loss), [[0.0, 0.0]])

  def test_penalty_pulls_towards_the_reference(self):
    # At A = 0: ∂/∂logp of β w k3 = β w (1 - ρ), ρ = π_ref / π = 2 and 1/2.
    logp_BT = jnp.log(jnp.array([[0.25, 0.5]]))
    batch = batches.make_batch([[0.5, 0.5]], 0.0, logp_BT,
                               np.log([[0.5, 0.25]]))
    grad_BT = jax.grad(
        lambda x: reinforce.loss(x, batch, kl_coef=0.1)[0])(logp_BT)
    np.testing.assert_allclose(grad_BT, [[-0.05, 0.025]], rtol=1e-5)


if __name__ == '__main__':
  absltest.main()
