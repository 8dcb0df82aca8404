"""C3PO's selection: which responses, and which of their tokens, enter a step.

  take y_1, y_2, ... until  Σ_{j<N} |y_j| < Φ <= Σ_{j<=N} |y_j|,
  then cut the tokens of y_N beyond Φ, so that |Ψ| = Φ

The order must know nothing of the lengths. In random order a response is taken
or not by the lengths *before* it, so long and short ones have equal chances;
shortest first, or first finished first, would train on short responses only.
The cut costs late tokens of long responses a little (at most about longest / Φ
of their chance); `selection='ring_window'` lays all tokens on a ring and takes
Φ consecutive ones from a uniform start, so each has the chance Φ / Σ|y_j|.

Reference: Ring-lite (arXiv 2506.14731), eqs. 2-3, figure 3.

Differs from the paper:

               paper                official code   ours
  order        figure: by prompts   not public      random over responses; also
                                                    group_major, sequential
  cut          figure: exact        not public      exact; also whole responses
  Σ|y_j| < Φ   assumed away         not public      keep_phi (still divide by Φ)
                                                    or error; `carry` has the
                                                    parts to wait or draw more
  Φ            step or rank unsaid  not public      `budget_scope`
  left over    dropped              not public      dropped; or `select_many`
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rljax.packing.selection import Selection

_CHOICES = {
    'order': ('random', 'group_major', 'sequential'),
    'cut': ('token', 'response'),
    'underflow': ('keep_phi', 'error'),
    'budget_scope': ('global', 'per_data_rank'),
    'selection': ('prefix', 'ring_window'),
}


def select(
    lengths_R: np.ndarray,
    *,
    token_budget: int,
    seed: int | Sequence[int],
    order: str = 'random',
    cut: str = 'token',
    underflow: str = 'keep_phi',
    group_size: int | None = None,
    budget_scope: str = 'global',
    num_ranks: int = 1,
    selection: str = 'prefix',
    max_response_length: int | None = None,
    drop_zero_adv_groups: bool = False,
    advantage_R: np.ndarray | None = None,
) -> Selection:
  """Selects the tokens of one optimiser step.

  Args:
    lengths_R: response tokens, in flat order; 0 marks a masked sample, which is
      never selected.
    token_budget: Φ, of the step or of each rank as `budget_scope` says.
    seed: of the order and the window; same arguments, same selection.
    order: 'random', 'group_major' (random prompts, responses in place) or
      'sequential' (as given: only for lengths whose order is random already).
    cut: 'token' cuts the crossing response to exactly Φ; 'response' keeps it.
    underflow: with fewer than Φ tokens, 'keep_phi' takes all of them and still
      divides by Φ; 'error' raises.
    group_size: samples per prompt; needed where groups matter.
    budget_scope: 'per_data_rank' gives each of `num_ranks` contiguous shares
      its own Φ; the step's budget is then Φ · num_ranks.
    num_ranks: number of shares under 'per_data_rank'.
    selection: 'prefix' is eq. 3; 'ring_window' keeps every token equally often.
    max_response_length: if given, budgets that cannot be right are refused.
    drop_zero_adv_groups: leave out groups whose advantages are all 0.
    advantage_R: needed by `drop_zero_adv_groups` only.
  """
  _check_choices(order=order, cut=cut, underflow=underflow,
                 budget_scope=budget_scope, selection=selection)
  length_R = _checked_lengths(lengths_R)
  num_shares = num_ranks if budget_scope == 'per_data_rank' else 1
  _check_counts(length_R.size, token_budget, num_shares,
                group_size if order == 'group_major' else 1)
  if max_response_length is not None:
    check_budget(token_budget, length_R.size // num_shares, max_response_length)
  if selection == 'ring_window' and cut != 'token':
    raise ValueError(
        "Expected cut='token' with selection='ring_window' (a window has "
        f"exactly Φ tokens), got cut={cut!r}. Whole responses need 'prefix'.")
  open_R = length_R
  if drop_zero_adv_groups:
    open_R = np.where(
        _has_signal(advantage_R, group_size, length_R.size), length_R, 0)

  share = length_R.size // num_shares
  start_R, stop_R = np.zeros_like(length_R), np.zeros_like(length_R)
  crossing_R, orders = np.zeros(length_R.shape, bool), []
  for rank in range(num_shares):
    # A stream for each share, so that ranks do not repeat one permutation.
    stream = [*np.atleast_1d(seed).tolist(), *[rank] * (num_shares > 1)]
    rng = np.random.default_rng(stream)
    order_S = rank * share + _ordering(rng, order, share, group_size)
    start_R[order_S], stop_R[order_S], crossing_R[order_S] = (
        _prefix(open_R[order_S], token_budget, cut == 'token')
        if selection == 'prefix'
        else _window(open_R[order_S], token_budget, rng))
    orders.append(order_S)
    available = int(open_R[order_S].sum())
    if underflow == 'error' and available < token_budget:
      raise ValueError(
          f'Expected at least token_budget={token_budget} response tokens in '
          f'share {rank} of {num_shares}, got {available}. Sample more prompts '
          "(packing.needs_more), lower token_budget, or use "
          "underflow='keep_phi'.")
  return Selection(
      start_R=start_R, stop_R=stop_R, length_R=length_R, crossing_R=crossing_R,
      order_R=np.concatenate(orders), token_budget=token_budget * num_shares)


def select_many(
    lengths_R: np.ndarray,
    *,
    num_budgets: int,
    seed: int | Sequence[int],
    **options,
) -> list[Selection]:
  """Up to `num_budgets` selections without a common response: several steps.

  Each draws from the responses that no earlier one touched, in a fresh order;
  the list ends early when none is left. `options` are those of `select`.
  """
  if num_budgets < 1:
    raise ValueError(
        f'Expected num_budgets >= 1, got {num_budgets}. Use 1 for one '
        'optimiser step per rollout.')
  if options.get('selection') == 'ring_window':
    raise ValueError(
        "Expected selection='prefix' for several budgets, got 'ring_window': "
        'what the first window leaves of a response would be lost to the next. '
        'Use one budget per rollout or the prefix selection.')
  open_R, found = _checked_lengths(lengths_R), []
  while len(found) < num_budgets and (open_R.any() or not found):
    stream = [*np.atleast_1d(seed).tolist(), len(found)]
    found.append(select(open_R, seed=stream, **options))
    open_R = np.where(found[-1].kept_R > 0, 0, open_R)
  return found


def check_budget(
    token_budget: int, num_responses: int, max_response_length: int
) -> None:
  """Refuses, at start-up, budgets that no rollout of this size can suit."""
  if token_budget < max_response_length:
    raise ValueError(
        'Expected token_budget >= max_response_length, so that a step holds at '
        f'least one response, got {token_budget} < {max_response_length}. '
        'Raise token_budget or shorten the responses.')
  if token_budget > num_responses * max_response_length:
    raise ValueError(
        'Expected token_budget <= responses * max_response_length = '
        f'{num_responses} * {max_response_length}, got {token_budget}: no '
        'rollout could ever fill it. Lower token_budget or sample more.')


def _prefix(length_S, budget, exact):
  """(start, stop, crossing) of the greedy pass over lengths in its order."""
  ends_S = np.cumsum(length_S, dtype=np.int64)
  # The smallest N with Σ_{j<=N} >= Φ; all of them if there is none.
  size = min(int(np.searchsorted(ends_S, budget)) + 1, length_S.size)
  stop_S = np.where(np.arange(length_S.size) < size, length_S, 0)
  excess = int(stop_S.sum(dtype=np.int64)) - budget
  crossing_S = np.zeros(length_S.shape, bool)
  if excess > 0:
    crossing_S[size - 1] = True
    stop_S[size - 1] -= excess * exact
  return np.zeros_like(stop_S), stop_S, crossing_S


def _window(length_S, budget, rng):
  """(start, stop, crossing) of a window on the ring of all tokens."""
  ends_S = np.cumsum(length_S, dtype=np.int64)
  begins_S, total = ends_S - length_S, int(ends_S[-1])
  left = int(rng.integers(max(total, 1)))
  right = left + min(budget, total)  # may pass the end of the ring
  start_S = np.clip(left - begins_S, 0, length_S)
  stop_S = np.clip(right - begins_S, 0, length_S)
  head_S = np.clip(right - total - begins_S, 0, length_S)  # past the end
  kept_S = stop_S - start_S + head_S
  whole_S = kept_S == length_S
  # Only the response that the window begins in can be hit twice; then its stop
  # is the end of the head, which lies before its start.
  start_S = np.where(whole_S | (stop_S == start_S), 0, start_S)
  stop_S = np.where(head_S > 0, head_S, stop_S)
  stop_S = np.where(whole_S, length_S, np.where(kept_S > 0, stop_S, 0))
  return start_S, stop_S, (kept_S > 0) & ~whole_S


def _ordering(rng, order, size, group_size):
  if order == 'random':
    return rng.permutation(size)
  if order == 'sequential':
    return np.arange(size)
  groups_P = rng.permutation(size // group_size)
  return (groups_P[:, None] * group_size + np.arange(group_size)).reshape(-1)


def _has_signal(advantage_R, group_size, num_responses):
  """bool_R: some advantage of the response's group is not 0."""
  if advantage_R is None or group_size is None:
    raise ValueError(
        'Expected advantage_R and group_size with drop_zero_adv_groups=True, '
        f'got advantage_R={"None" if advantage_R is None else "an array"}, '
        f'group_size={group_size}. Pass both, or turn the filter off.')
  advantage_R = np.asarray(advantage_R)
  if advantage_R.shape != (num_responses,) or num_responses % group_size:
    raise ValueError(
        f'Expected {num_responses} advantages in groups of {group_size}, got '
        f'shape {advantage_R.shape}. Flatten advantage_PG of this rollout.')
  live_P = np.any(advantage_R.reshape(-1, group_size) != 0, axis=1)
  return np.repeat(live_P, group_size)


def _check_choices(**chosen):
  for name, value in chosen.items():
    if value not in _CHOICES[name]:
      hint = ''
      if name == 'underflow' and value in ('resample', 'carry_over'):
        hint = (' Drawing more and waiting are done by the loop, before it '
                'selects: packing.needs_more says how many tokens are missing.')
      raise ValueError(
          f'Expected {name} in {_CHOICES[name]}, got {value!r}.{hint}')


def _checked_lengths(lengths_R):
  lengths_R = np.asarray(lengths_R)
  if (lengths_R.ndim != 1 or not lengths_R.size
      or not np.issubdtype(lengths_R.dtype, np.integer)):
    raise ValueError(
        'Expected a non-empty vector of integer lengths, got shape '
        f'{lengths_R.shape} of {lengths_R.dtype}. Flatten length_PG first.')
  if lengths_R.min() < 0:
    raise ValueError(
        f'Expected lengths >= 0, got {lengths_R.min()} at index '
        f'{lengths_R.argmin()}. Use 0 for a sample to leave out.')
  return lengths_R.astype(np.int32)


def _check_counts(num_responses, token_budget, num_shares, group_size):
  if token_budget < 1:
    raise ValueError(
        f'Expected token_budget >= 1, got {token_budget}. Set it to the number '
        'of response tokens that an optimiser step trains on.')
  if num_shares < 1 or num_responses % num_shares:
    raise ValueError(
        f'Expected num_ranks to divide the {num_responses} responses, got '
        f'{num_shares}. Change the prompts per step or the number of ranks.')
  if not group_size or (num_responses // num_shares) % group_size:
    raise ValueError(
        "Expected group_size with order='group_major', dividing the "
        f'{num_responses // num_shares} responses of a share, got '
        f'{group_size}. Pass the samples per prompt.')
