"""Direct preference optimisation, with its conservative and its robust form.

  L = -log σ(m),  m = β (ρ_w - ρ_l) - a (|w| - |l|)

  conservative  -(1-ε) log σ(m) - ε log σ(-m): a share ε of labels is wrong
  robust        (-(1-ε) log σ(m) + ε log σ(-m)) / (1 - 2ε): unbiased under such
                noise, and not bounded below

`length` says how ρ sums log-ratios: 'sum' as published; 'mean' over the tokens
of a response; a number α weighs the tokens beyond the length of the shorter
response by α (length-desensitised). `nll_coef` adds -a log π(w) / |w|.
`divergence` takes another one than KL(π ‖ π_ref) from the reference: ρ becomes
f'(e^ρ), but for a constant.

Step-DPO is this loss on other pairs (`data.preference`, form 'steps', and
`data.ends=False`): the prompt holds the steps that are right, a response is the
next one, right or wrong, without a token that ends the text.

Reference: DPO (arXiv 2305.18290), eq. 7; robust: arXiv 2403.00409; α: LD-DPO
(arXiv 2409.06411); a: R-DPO (arXiv 2403.19159); divergences: f-DPO (arXiv
2309.16240), table 1; Step-DPO (arXiv 2406.18629), eq. 2, with β 0.4.
"""
import jax
import jax.numpy as jnp

from rljax.ops import comparisons
from rljax.ops import pairs
from rljax.types import PreferenceBatch

READS = ('ref_logp_BT',)

_LARGEST = 80.0  # e to this is a float32


def loss(
    logp_BT: jax.Array,
    batch: PreferenceBatch,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    robust: bool = False,
    length: str | float = 'sum',
    length_penalty: float = 0.0,
    nll_coef: float = 0.0,
    divergence: str | float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss and its metrics, all additive over rows.

  Args:
    logp_BT: log π of every token.
    batch: holds the reference's.
    beta: β.
    label_smoothing: ε, below 1/2 if robust.
    robust: the unbiased form.
    length: 'sum', 'mean', or the weight α in [0, 1] of tokens beyond the
      shorter response.
    length_penalty: a, outside of β.
    nll_coef: of the chosen response's mean negative log-likelihood.
    divergence: 'js', or the α in [0, 1] of (1 - e^{-αρ}) / α, where 0 is the
      reverse divergence of DPO and 1 the forward one.

  Raises:
    ValueError: a number out of its range, or no reference.
  """
  if not 0 <= label_smoothing < (0.5 if robust else 1):
    raise ValueError(
        f'Expected label_smoothing in [0, {0.5 if robust else 1}), got '
        f'{label_smoothing}. Correct config.loss.')
  ratio_BT = pairs.log_ratios(logp_BT, batch)
  rho = _summed(ratio_BT, batch, length).map(_slope(divergence))
  longer_BP = pairs.lengths(batch, logp_BT.dtype).margin_BP
  margin_BP = beta * rho.margin_BP - length_penalty * longer_BP
  if robust:
    loss_BP = ((1 - label_smoothing) * comparisons.nll(margin_BP)
               - label_smoothing * comparisons.nll(-margin_BP)) / (
                   1 - 2 * label_smoothing)
  else:
    loss_BP = comparisons.nll(margin_BP, wrong_mass=label_smoothing)
  if nll_coef:
    loss_BP -= nll_coef * pairs.means(logp_BT, batch).chosen_BP
  return pairs.outcome(batch, loss_BP, rho.scaled(beta))


def _slope(divergence):
  """ρ -> f'(e^ρ), its constant left out."""
  if divergence == 'js':
    return jax.nn.log_sigmoid
  if isinstance(divergence, str) or not 0 <= divergence <= 1:
    raise ValueError(f"Expected divergence to be 'js' or a number in [0, 1], "
                     f'got {divergence!r}. Correct config.loss.')
  if not divergence:
    return lambda rho_BP: rho_BP
  return lambda rho_BP: -jnp.expm1(
      jnp.minimum(-divergence * rho_BP, _LARGEST)) / divergence


def _summed(ratio_BT, batch, length) -> pairs.Sides:
  if length == 'sum':
    return pairs.sums(ratio_BT, batch)
  if length == 'mean':
    return pairs.means(ratio_BT, batch)
  if isinstance(length, str) or not 0 <= length <= 1:
    raise ValueError(f"Expected length to be 'sum', 'mean' or a number in "
                     f'[0, 1], got {length!r}. Correct config.loss.')
  tokens = pairs.lengths(batch, jnp.int32)
  shorter_BP = jnp.minimum(tokens.chosen_BP, tokens.rejected_BP)
  pair_BT = jnp.maximum(batch.pair_BT - 1, 0)
  beyond_BT = pairs.place_in_response(batch) >= jnp.take_along_axis(
      shorter_BP, pair_BT, axis=1)
  return pairs.sums(jnp.where(beyond_BT, length, 1.0) * ratio_BT, batch)
