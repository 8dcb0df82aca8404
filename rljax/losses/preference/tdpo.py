"""DPO that holds the divergence of both responses in balance, token by token.

  L = -log σ(β (ρ_w - ρ_l - δ)),  K = Σ_t KL(π_ref(·|s_t) ‖ π(·|s_t))

  form 1  δ = K_l - K_w
  form 2  δ = α (K_l - sg(K_w)): the divergence of chosen responses is left free

K is over the whole vocabulary, and has a gradient: the reference runs beside
the policy in the update (`training.forward.compose`).

Reference: TDPO (arXiv 2404.11999), eqs. 15 and 16; rewards are reported as in
its code, β (ρ + K).
"""
import jax

from rljax.ops import pairs
from rljax.types import PreferenceBatch

READS = ('ref_logp_BT', 'ref_kl_BT')


def loss(
    logp_BT: jax.Array,
    batch: PreferenceBatch,
    *,
    beta: float = 0.1,
    form: int = 2,
    alpha: float = 0.5,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over rows.

  Args:
    logp_BT: log π of every token.
    batch: holds the reference's, and its divergence.
    beta: β.
    form: 1 or 2.
    alpha: α, of form 2.

  Raises:
    ValueError: an unknown form, no reference, or no divergence.
  """
  if form not in (1, 2):
    raise ValueError(f'Expected form 1 or 2, got {form!r}. Correct '
                     'config.loss.')
  if batch.ref_kl_BT is None:
    raise ValueError(
        'Expected the divergence from a reference in ref_kl_BT, got none. Give '
        'the parameters of one to the update, or take dpo.')
  rho = pairs.log_ratio_sums(logp_BT, batch)
  kl = pairs.sums(batch.ref_kl_BT, batch)
  if form == 1:
    excess_BP = kl.margin_BP
  else:
    excess_BP = alpha * (jax.lax.stop_gradient(kl.chosen_BP) - kl.rejected_BP)
  loss_BP = -jax.nn.log_sigmoid(beta * (rho.margin_BP + excess_BP))
  return pairs.outcome(
      batch, loss_BP, rho.map(lambda x_BP, k_BP: beta * (x_BP + k_BP), kl),
      ref_kl_chosen=kl.chosen_BP, ref_kl_rejected=kl.rejected_BP)
