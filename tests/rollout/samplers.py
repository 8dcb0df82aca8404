"""Samplers of small models, compiled once for all tests of this folder."""
import jax
import numpy as np

from rljax import rollout
from rljax.ops import logprobs
from tests import toys

KEY = jax.random.key(7)
# Eight of 272 ids: responses end after about 34 tokens, at very different ones.
STOP_IDS = tuple(range(32, 40))
_SAMPLERS = {}
_APPLY = {}


def make(variant='tiny', num_slots=4, max_new_tokens=24, **options):
  """A model, its parameters and a sampler; compiled once for all tests."""
  model, params = toys.model_and_params(variant)
  name = (variant, num_slots, max_new_tokens, tuple(sorted(options.items())))
  if name not in _SAMPLERS:
    settings = dict(max_prompt_length=12, stop_ids=STOP_IDS) | options
    _SAMPLERS[name] = rollout.make_sampler(
        model, num_slots=num_slots, max_new_tokens=max_new_tokens, **settings)
  return model, params, _SAMPLERS[name]


def prompts(count, seed=0, longest=12):
  """Random token ids of random lengths, id 0 among them."""
  rng = np.random.default_rng(seed)
  return [rng.integers(0, 272, rng.integers(1, longest + 1)).tolist()
          for _ in range(count)]


def forward(variant, model, params, found, p, g, temperature=1.0):
  """Of a response, without a cache: logp_T, entropy_T, logits_TV, experts_LSX.

  The experts are those of all positions of prompt and response.
  """
  if variant not in _APPLY:

    def score(params, tokens_BT, position_BT, segment_BT, temperature):
      out = model.apply({'params': params}, tokens_BT, position_BT, segment_BT)
      return *logprobs.token_logprobs(out.logits_BTV, tokens_BT, segment_BT,
                                      temperature), out.logits_BTV, (
          out.router.experts_LBTX)

    _APPLY[variant] = jax.jit(score)
  prompt, length = found.prompts[p], found.length_PG[p, g]
  row = np.zeros((1, 40), np.int32)
  end = len(prompt) + length
  row[0, :end] = np.concatenate([prompt, found.tokens_PGT[p, g, :length]])
  index_BT = np.arange(40, dtype=np.int32)[None]
  logp_BT, entropy_BT, logits_BTV, experts_LBTX = _APPLY[variant](
      params, row, index_BT, (index_BT < end).astype(np.int32),
      np.float32(temperature))
  inside = slice(len(prompt), end)
  before = slice(len(prompt) - 1, end - 1)
  return (logp_BT[0, inside], entropy_BT[0, inside], logits_BTV[0, before],
          experts_LBTX[:, 0, :end])


def assert_same(a, b, exact=True):
  """Two rollouts are the same, to the bit or up to rounding."""
  for name in ('tokens_PGT', 'length_PG', 'stopped_PG'):
    np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)
  for name in ('logp_PGT', 'entropy_PGT'):
    if exact:
      np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)
    else:
      np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-5)
