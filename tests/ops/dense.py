"""What `ops.logprobs` must agree with: whole logits, float64, autodiff."""
import jax
import jax.numpy as jnp
import numpy as np


def value_and_grads(policy, given, tokens_BT, segment_BT, reference=None,
                    temperature=1.0, **cut):
  """Scores, and gradients of the sum of each weighted by `given`.

  Args:
    policy: hidden_BTD and kernel_DV, float64; without the kernel, logits_BTV.
    given: weights of logp, entropy and, with a reference, kl and ref_kl, each
      [B, T].
    tokens_BT: NumPy, as is segment_BT.
    reference: like policy.
    temperature: above 0.
    **cut: top_k, top_p, min_p.
  """
  z_BTV = _logits(np, policy)[:, :-1] / temperature
  inside_BTV = np.array([
      [support(z_BTV[b, t], tokens_BT[b, t + 1], **cut)
       for t in range(z_BTV.shape[1])] for b in range(len(z_BTV))])

  def loss(policy):
    found = _scores(policy, tokens_BT, segment_BT, reference, temperature,
                    inside_BTV)
    return sum(jnp.sum(given[name] * x) for name, x in found.items()), found

  with jax.enable_x64(True), jax.numpy_rank_promotion('allow'):
    grads, found = jax.grad(loss, has_aux=True)(
        jax.tree.map(jnp.asarray, policy))
  return found, grads


def _scores(policy, tokens_BT, segment_BT, reference, temperature, inside_BTV):
  """logp, entropy, kl and ref_kl, [B, T] at the tokens' own positions."""
  z_BTV = _logits(jnp, policy)[:, :-1] / temperature
  log_p_BTV = jax.nn.log_softmax(z_BTV)
  p_BTV = jnp.exp(log_p_BTV)
  kept_BTV = jnp.where(inside_BTV, z_BTV, -jnp.inf)
  drawn_BT = jnp.take_along_axis(z_BTV, tokens_BT[:, 1:, None], -1)[..., 0]
  mean = lambda x_BTV, p_BTV=p_BTV: jnp.sum(
      jnp.where(p_BTV > 0, p_BTV * jnp.where(p_BTV > 0, x_BTV, 0), 0), -1)
  found = dict(logp=drawn_BT - jax.nn.logsumexp(kept_BTV, axis=-1),
               entropy=-mean(log_p_BTV))
  if reference is not None:
    log_q_BTV = jax.nn.log_softmax(
        _logits(jnp, reference)[:, :-1] / temperature)
    found['kl'] = mean(log_p_BTV - log_q_BTV)
    found['ref_kl'] = mean(log_q_BTV - log_p_BTV, jnp.exp(log_q_BTV))
  counts_BT = segment_BT[:, 1:] == segment_BT[:, :-1]
  counts_BT &= segment_BT[:, 1:] > 0
  return {name: jnp.pad(jnp.where(counts_BT, x_BT, 0), ((0, 0), (1, 0)))
          for name, x_BT in found.items()}


def support(z_V, drawn, top_k=0, top_p=1.0, min_p=0.0) -> np.ndarray:
  """By sorting: what the three rules leave, and the drawn token; bool."""
  order = np.argsort(-z_V, kind='stable')
  p = np.exp(z_V[order] - z_V.max())
  if top_k:
    p[top_k:] = 0
  if top_p < 1:
    p /= p.sum()
    p[np.searchsorted(np.cumsum(p), top_p) + 1:] = 0
  p[p < min_p * p[0]] = 0
  inside_V = np.zeros(len(z_V), bool)
  inside_V[order[p > 0]] = True
  inside_V[drawn] = True
  return inside_V


def _logits(np, head):
  return head[0] if len(head) == 1 else np.einsum('btd,dv->btv', *head)
