"""Continuous batching: a fixed number of slots, refilled as responses end.

A response that ends frees its slot for the next one in the queue, so nobody
waits for the longest. What a sample is does not depend on any of this:

  key of a sample = fold_in(fold_in(key, crc32(prompt tokens)), sample index)

A prompt that occurs again in the same call continues the numbering, so that
its samples are new ones. Slots, neighbours, the order of the prompts and the
number of slots change nothing but rounding: with as many slots the tokens are
the same to the last one, and with another number a matrix product of another
shape may round differently, which moves a draw only at a near tie.
"""
from __future__ import annotations

import collections
import dataclasses
from typing import Callable
from typing import NamedTuple
import zlib

import jax
import numpy as np

from rljax import processes
from rljax import sharding
from rljax.models import lora
from rljax.ops import sampling
from rljax.rollout import decode
from rljax.types import Rollout


@dataclasses.dataclass(frozen=True)
class Counts:
  """What a call has cost."""
  decode_steps: int     # model calls of one token per slot
  decode_calls: int
  prefill_calls: int
  prefilled: int        # prompts, those prefilled twice included
  tokens: int           # response tokens
  occupancy: float      # share of slots active in the average decode step


class _Request(NamedTuple):
  prompt: int  # index in the call
  group: int   # index among the samples of this prompt in this call
  sample: int  # index that its key is made from


def make_sampler(
    model,
    mesh=None,
    *,
    num_slots: int,
    max_prompt_length: int,
    max_new_tokens: int,
    stop_ids=(),
    num_prefill: int | None = None,
    refill_at: int | None = None,
    decode_steps: int = 128,
    record_experts: bool = False,
    gathered_params: bool = False,
) -> Callable[..., Rollout]:
  """Builds `sample(params, prompts, key, *, samples_per_prompt, ...)`.

  Args:
    model: called with a cache; see `models.attention`.
    mesh: slots are split over its data axes; None for one device.
    num_slots: responses in the making at a time.
    max_prompt_length: tokens.
    max_new_tokens: tokens of a response at most, the stop token included.
    stop_ids: a response ends after any of these, which is part of it.
    num_prefill: prompts prefilled per call; by default a 16th of the slots,
      rounded up to what the mesh divides.
    refill_at: free slots worth a refill while prompts wait; by default an
      eighth of the slots.
    decode_steps: tokens after which a decode call returns at the latest.
    record_experts: keep the experts chosen for every token, for a replay.
    gathered_params: the parameters come as `sharding.rollout_rules(...,
      gathered=True)` splits them: no token waits for a gather.

  Returns:
    A function. Its attribute `counted` takes the same arguments and returns
    (Rollout, Counts); `functions` holds the compiled pieces.

  Raises:
    ValueError: sizes that do not suit each other, the model or the mesh.
  """
  ways = 1 if mesh is None else sharding.slot_ways(mesh)
  if num_prefill is None:
    num_prefill = -(-max(num_slots // 16, 1) // ways) * ways
  if refill_at is None:
    refill_at = max(num_slots // 8, 1)
  stop_ids = tuple(int(token) for token in stop_ids)
  limits = _Limits(num_slots, num_prefill, refill_at, max_prompt_length,
                   max_new_tokens, model.config.vocab_size)
  _check_sizes(limits, decode_steps, stop_ids, ways)
  functions = decode.make_functions(
      model, mesh, num_slots=num_slots, max_prompt_length=max_prompt_length,
      max_new_tokens=max_new_tokens, stop_ids=stop_ids,
      decode_steps=decode_steps, record_experts=record_experts,
      gathered_params=gathered_params)

  merge = jax.jit(lora.merge)

  def counted(params, prompts, key: jax.Array, *, samples_per_prompt: int,
              temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
              min_p: float = 0.0, max_new_tokens: int | None = None):
    """As `sample`, with what it cost."""
    limit = limits.max_new_tokens if max_new_tokens is None else max_new_tokens
    _check_call(limits, samples_per_prompt, limit)
    prompts = _check_prompts(limits, prompts)
    sampling_params = sampling.make_params(temperature, top_k, top_p, min_p)
    if isinstance(params, lora.Adapted):  # once, not for every token
      params = merge(params)
    return _generate(functions, limits, params, prompts, key,
                     samples_per_prompt, sampling_params, limit)

  def sample(params, prompts, key: jax.Array, **options) -> Rollout:
    """Samples responses.

    Args:
      params: of the model; with adapters, they are merged for this call.
      prompts: sequences of token ids.
      key: consumed.
      **options: samples_per_prompt; temperature=1.0 (0 is greedy), top_k=0,
        top_p=1.0, min_p=0.0 (these are off); max_new_tokens, if it shall be
        lower. None of them compiles anything anew.

    Raises:
      ValueError: prompts or options that cannot be served.
    """
    return counted(params, prompts, key, **options)[0]

  sample.counted = counted
  sample.functions = functions
  sample.num_prefill = num_prefill
  return sample


class _Limits(NamedTuple):
  num_slots: int
  num_prefill: int
  refill_at: int
  max_prompt_length: int
  max_new_tokens: int
  vocab_size: int


def _generate(functions, limits: _Limits, params, prompts, key, num_samples,
              sampling_params, limit):
  """The host's loop: refill, decode, harvest, until the queue is empty."""
  queue = _requests(prompts, num_samples)
  hashes = [_hash(prompt) for prompt in prompts]
  out = _empty(len(prompts), num_samples, limits.max_new_tokens)
  slots: list[_Request | None] = [None] * limits.num_slots
  state = functions.init()
  calls = collections.Counter()
  while queue or any(slots):
    while queue and not all(slots):
      refill, rows = _take(queue, slots, prompts, hashes, limits, limit)
      state = functions.prefill(params, state, refill, key)
      calls.update(prefill=1, prefilled=rows)
    # The last ones in the queue wait for as many slots as there are of them.
    wanted = min(limits.refill_at, len(queue))
    floor = np.int32(limits.num_slots - wanted if wanted else 0)
    state, active_B = functions.decode(params, state, sampling_params, floor)
    calls.update(decode=1)
    active_B = np.asarray(active_B)
    ended = [b for b, request in enumerate(slots)
             if request is not None and not active_B[b]]
    _collect(functions, state, ended, slots, out, limits.refill_at)
  rollout = Rollout(prompts=prompts, **out)
  tokens, steps = int(rollout.length_PG.sum()), int(state.num_steps)
  return rollout, Counts(
      decode_steps=steps, decode_calls=calls['decode'],
      prefill_calls=calls['prefill'], prefilled=calls['prefilled'],
      tokens=tokens, occupancy=tokens / (steps * limits.num_slots))


def _requests(prompts, num_samples: int) -> collections.deque[_Request]:
  """One request per sample; equal prompts share one numbering."""
  seen = collections.Counter()
  queue = collections.deque()
  for p, prompt in enumerate(prompts):
    name = prompt.tobytes()
    queue.extend(_Request(p, g, seen[name] + g) for g in range(num_samples))
    seen[name] += num_samples
  return queue


def _hash(prompt: np.ndarray) -> int:
  return zlib.crc32(prompt.astype('<i4').tobytes())


def _take(queue, slots, prompts, hashes, limits: _Limits, limit: int):
  """Moves requests into free slots while their prompts fit one prefill."""
  num_slots, num_rows = limits.num_slots, limits.num_prefill
  refill = decode.Refill(
      tokens_PT=np.zeros((num_rows, limits.max_prompt_length), np.int32),
      prompt_length_P=np.zeros(num_rows, np.int32),
      source_B=np.full(num_slots, -1, np.int32),
      hash_B=np.zeros(num_slots, np.uint32),
      sample_B=np.zeros(num_slots, np.int32), limit=np.int32(limit))
  row_of = {}
  for b in (b for b, request in enumerate(slots) if request is None):
    if not queue or (queue[0].prompt not in row_of
                     and len(row_of) == num_rows):
      break
    request = slots[b] = queue.popleft()
    prompt = prompts[request.prompt]
    row = row_of.setdefault(request.prompt, len(row_of))
    refill.tokens_PT[row, :len(prompt)] = prompt
    refill.prompt_length_P[row] = len(prompt)
    refill.source_B[b] = row
    refill.hash_B[b] = hashes[request.prompt]
    refill.sample_B[b] = request.sample
  return refill, len(row_of)


def _collect(functions, state, ended: list[int], slots, out, chunk: int):
  """Reads ended responses, `chunk` slots at a time, and frees their slots."""
  for start in range(0, len(ended), chunk):
    part = ended[start:start + chunk]
    slot_R = np.full(chunk, part[0], np.int32)
    slot_R[:len(part)] = part
    found = jax.device_get(processes.settle(functions.harvest(state, slot_R)))
    for r, b in enumerate(part):
      request, length = slots[b], int(found.length_R[r])
      at = request.prompt, request.group
      if not np.all(np.isfinite(found.logp_RT[r, :length])):
        raise ValueError(
            f'Expected finite log-probabilities, got others in a response to '
            f'prompt {request.prompt}. The parameters are not finite or too '
            'large: go back to an earlier checkpoint.')
      out['length_PG'][at] = length
      out['stopped_PG'][at] = found.stopped_R[r]
      out['tokens_PGT'][at][:length] = found.tokens_RT[r, :length]
      out['logp_PGT'][at][:length] = found.logp_RT[r, :length]
      out['entropy_PGT'][at][:length] = found.entropy_RT[r, :length]
      if found.experts_RSLX is not None:
        experts = out.setdefault('experts_PGSLX', np.empty(
            (*out['length_PG'].shape, *found.experts_RSLX.shape[1:]),
            found.experts_RSLX.dtype))
        experts[at] = found.experts_RSLX[r]
      slots[b] = None


def _empty(num_prompts: int, num_samples: int, length: int) -> dict:
  shape = (num_prompts, num_samples)
  return dict(
      tokens_PGT=np.zeros((*shape, length), np.int32),
      logp_PGT=np.zeros((*shape, length), np.float32),
      entropy_PGT=np.zeros((*shape, length), np.float32),
      length_PG=np.zeros(shape, np.int32), stopped_PG=np.zeros(shape, bool))


def _check_sizes(limits: _Limits, decode_steps, stop_ids, ways):
  sizes = dict(limits._asdict(), decode_steps=decode_steps)
  for name, size in sizes.items():
    if size < 1:
      raise ValueError(f'Expected {name} >= 1, got {size}. Raise it.')
  if limits.refill_at > limits.num_slots:
    raise ValueError(
        f'Expected refill_at <= num_slots = {limits.num_slots}, got '
        f'{limits.refill_at}: so many slots are never free. Lower it.')
  for name in ('num_slots', 'num_prefill'):
    if sizes[name] % ways:
      raise ValueError(
          f'Expected {name} to be a multiple of the {ways} shares that the '
          f'mesh makes of a batch, got {sizes[name]}. Round it, or change '
          'config.mesh.')
  for token in stop_ids:
    if not 0 <= token < limits.vocab_size:
      raise ValueError(
          f'Expected stop ids in 0..{limits.vocab_size - 1}, got {token}. Use '
          "the tokenizer that the model's vocabulary was made for.")


def _check_call(limits: _Limits, num_samples: int, limit: int):
  if num_samples < 1:
    raise ValueError(f'Expected samples_per_prompt >= 1, got {num_samples}.')
  if not 1 <= limit <= limits.max_new_tokens:
    raise ValueError(
        f'Expected max_new_tokens in 1..{limits.max_new_tokens}, the limit '
        f'that the sampler was built for, got {limit}. Build it with more.')


def _check_prompts(limits: _Limits, prompts) -> tuple[np.ndarray, ...]:
  """The prompts as int32 arrays, if every one can be served."""
  if not len(prompts):
    raise ValueError('Expected at least one prompt, got none. Check the data '
                     'set and its filters.')
  longest, vocab = limits.max_prompt_length, limits.vocab_size
  checked = []
  for index, prompt in enumerate(prompts):
    prompt = np.asarray(prompt)
    if prompt.ndim != 1 or not np.issubdtype(prompt.dtype, np.integer) or (
        not len(prompt)):
      raise ValueError(
          f'Expected prompt {index} to be a list of at least one token id, got '
          f'{prompt.dtype}{list(prompt.shape)}. Begin prompts with a template '
          'or a start token.')
    if len(prompt) > longest:
      raise ValueError(
          f'Expected prompts of at most {longest} tokens, got {len(prompt)} in '
          f'prompt {index}. Raise max_prompt_length or filter the data.')
    if prompt.min() < 0 or prompt.max() >= vocab:
      bad = prompt[(prompt < 0) | (prompt >= vocab)][0]
      raise ValueError(
          f'Expected token ids in 0..{vocab - 1}, got {bad} in prompt {index}. '
          "Use the tokenizer that the model's vocabulary was made for.")
    checked.append(prompt.astype(np.int32))
  return tuple(checked)
