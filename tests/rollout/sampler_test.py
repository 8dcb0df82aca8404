"""The sampler as a whole: what it draws, what it costs, what it refuses."""
import zlib

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax import rollout
from rljax import sharding
from rljax.models import transformer
from rljax.ops import logprobs
from rljax.training import metrics
from tests import toys

KEY = jax.random.key(7)
# Eight of 272 ids: responses end after about 34 tokens, at very different ones.
STOP_IDS = tuple(range(32, 40))
COMPILED = ('init_slots', 'prefill', 'decode', 'harvest')
_SAMPLERS = {}
_APPLY = {}


def sampler_of(variant='tiny', num_slots=4, max_new_tokens=24, **options):
  """A model, its parameters and a sampler; compiled once for all tests."""
  model, params = toys.model_and_params(variant)
  name = (variant, num_slots, max_new_tokens, tuple(sorted(options.items())))
  if name not in _SAMPLERS:
    settings = dict(max_prompt_length=12, stop_ids=STOP_IDS) | options
    _SAMPLERS[name] = rollout.make_sampler(
        model, num_slots=num_slots, max_new_tokens=max_new_tokens, **settings)
  return model, params, _SAMPLERS[name]


def make_prompts(count, seed=0, longest=12):
  rng = np.random.default_rng(seed)
  return [rng.integers(0, 272, rng.integers(1, longest + 1)).tolist()
          for _ in range(count)]


def full_forward(variant, model, params, found, p, g, temperature=1.0):
  """Log-probabilities and entropies of a response, without a cache."""
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
          experts_LBTX[:, 0, before])


def assert_same(a, b, exact=True):
  """Two rollouts are the same, to the bit or up to rounding."""
  for name in ('tokens_PGT', 'length_PG', 'stopped_PG'):
    np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)
  for name in ('logp_PGT', 'entropy_PGT'):
    if exact:
      np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)
    else:
      np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-5)


class ParityTest(parameterized.TestCase):

  @parameterized.parameters('tiny', 'tiny_wide', 'tiny_yarn')
  def test_cached_decoding_equals_the_full_forward_after_refills(
      self, variant):
    model, params, sample = sampler_of(variant)
    found, counts = sample.counted(params, make_prompts(7), KEY,
                                   samples_per_prompt=3, temperature=0.8)
    self.assertGreater(counts.prefill_calls, 4)  # 21 responses, 4 slots
    self.assertGreater(len(np.unique(found.length_PG)), 5)
    for p in range(7):
      for g in range(3):
        logp, entropy, _, _ = full_forward(variant, model, params, found, p, g,
                                           temperature=0.8)
        length = found.length_PG[p, g]
        np.testing.assert_allclose(found.logp_PGT[p, g, :length], logp,
                                   atol=1e-5)
        np.testing.assert_allclose(found.entropy_PGT[p, g, :length], entropy,
                                   atol=1e-5)

  def test_the_check_notices_a_wrong_prompt(self):
    model, params, sample = sampler_of()
    found = sample(params, make_prompts(2), KEY, samples_per_prompt=1)
    found.prompts[0][-1] ^= 1
    logp, *_ = full_forward('tiny', model, params, found, 0, 0)
    self.assertGreater(np.abs(
        logp - found.logp_PGT[0, 0, :found.length_PG[0, 0]]).max(), 1e-2)

  def test_temperature_zero_is_the_greedy_full_forward(self):
    model, params, sample = sampler_of()
    found = sample(params, make_prompts(5), KEY, samples_per_prompt=2,
                   temperature=0.0)
    for p in range(5):
      length = found.length_PG[p, 0]
      _, _, logits_TV, _ = full_forward('tiny', model, params, found, p, 0)
      np.testing.assert_array_equal(found.tokens_PGT[p, 0, :length],
                                    jnp.argmax(logits_TV, axis=-1))
      np.testing.assert_array_equal(found.tokens_PGT[p, 0],
                                    found.tokens_PGT[p, 1])
    np.testing.assert_array_equal(found.logp_PGT, 0.0)

  def test_truncation_reports_its_own_distribution(self):
    model, params, sample = sampler_of()
    found = sample(params, make_prompts(3), KEY, samples_per_prompt=2, top_k=5)
    for p in range(3):
      length = found.length_PG[p, 0]
      _, entropy, logits_TV, _ = full_forward('tiny', model, params, found, p,
                                              0)
      top_TX, ids_TX = jax.lax.top_k(logits_TV, 5)
      tokens_T = found.tokens_PGT[p, 0, :length]
      chosen_TX = np.asarray(ids_TX) == tokens_T[:, None]
      np.testing.assert_array_equal(chosen_TX.sum(axis=1), 1)
      np.testing.assert_allclose(
          found.logp_PGT[p, 0, :length],
          np.asarray(jax.nn.log_softmax(top_TX))[chosen_TX], atol=1e-5)
      np.testing.assert_allclose(found.entropy_PGT[p, 0, :length], entropy,
                                 atol=1e-5)

  def test_recorded_experts_are_those_the_token_was_predicted_with(self):
    model, params, sample = sampler_of('tiny_wide', record_experts=True)
    _, _, without = sampler_of('tiny_wide')
    arguments = params, make_prompts(3), KEY
    found = sample(*arguments, samples_per_prompt=2)
    assert_same(found, without(*arguments, samples_per_prompt=2))
    self.assertEqual(found.experts_PGTLX.dtype, np.int16)
    self.assertEqual(found.experts_PGTLX.shape, (3, 2, 24, 3, 4))
    for p in range(3):
      *_, experts_LTX = full_forward('tiny_wide', model, params, found, p, 1)
      length = found.length_PG[p, 1]
      np.testing.assert_array_equal(
          np.sort(found.experts_PGTLX[p, 1, :length], axis=-1),
          np.sort(np.asarray(experts_LTX).swapaxes(0, 1), axis=-1))


class StopTest(absltest.TestCase):

  def test_a_response_ends_with_its_first_stop_token_or_at_the_limit(self):
    _, params, sample = sampler_of()
    found = sample(params, make_prompts(20), KEY, samples_per_prompt=4)
    for p, g in np.ndindex(found.length_PG.shape):
      length = found.length_PG[p, g]
      stops = np.isin(found.tokens_PGT[p, g, :length], STOP_IDS)
      self.assertFalse(stops[:-1].any())
      self.assertEqual(stops[-1], found.stopped_PG[p, g])
      self.assertTrue(stops[-1] or length == 24)
      np.testing.assert_array_equal(found.tokens_PGT[p, g, length:], 0)
      np.testing.assert_array_equal(found.logp_PGT[p, g, length:], 0)
    self.assertGreater(found.stopped_PG.sum(), 5)
    self.assertGreater((~found.stopped_PG).sum(), 5)

  def test_a_stop_token_at_the_limit_counts_as_stopped(self):
    _, params, sample = sampler_of()
    found = sample(params, make_prompts(60), KEY, samples_per_prompt=8,
                   max_new_tokens=1)
    np.testing.assert_array_equal(found.length_PG, 1)
    np.testing.assert_array_equal(
        found.stopped_PG, np.isin(found.tokens_PGT[..., 0], STOP_IDS))
    self.assertGreater(found.stopped_PG.sum(), 0)

  def test_a_lower_limit_cuts_the_same_responses_shorter(self):
    _, params, sample = sampler_of()
    whole = sample(params, make_prompts(5), KEY, samples_per_prompt=2)
    short = sample(params, make_prompts(5), KEY, samples_per_prompt=2,
                   max_new_tokens=6)
    np.testing.assert_array_equal(short.length_PG,
                                  np.minimum(whole.length_PG, 6))
    np.testing.assert_array_equal(short.tokens_PGT[..., :6],
                                  whole.tokens_PGT[..., :6])

  def test_token_zero_is_an_ordinary_token(self):
    # One direction of the last hidden state decides between 0 and the rest.
    # The parity would break if a 0 of prompt or response passed for padding.
    model, params = toys.model_and_params('tiny')
    kernel_DV = params['head']['kernel']
    sign_V = jnp.where(jnp.arange(272) == 0, 1.0, -1.0)
    params = params | {
        'head': {'kernel': kernel_DV[:, :1] * sign_V[None]},
        'final_norm': {'scale': 8 * params['final_norm']['scale']}}
    _, _, sample = sampler_of()
    found = sample(params, [[0, 0, 5, 0], [0]], KEY, samples_per_prompt=6)
    inside = np.arange(24) < found.length_PG[..., None]
    zeros_PG = ((found.tokens_PGT == 0) & inside).sum(axis=-1)
    self.assertGreater(zeros_PG.sum(), 10)
    for p, g in np.ndindex(found.length_PG.shape):
      logp, *_ = full_forward('tiny', model, params, found, p, g)
      np.testing.assert_allclose(
          found.logp_PGT[p, g, :found.length_PG[p, g]], logp, atol=1e-5)


class IndependenceTest(parameterized.TestCase):

  def test_the_order_of_the_prompts_does_not_matter(self):
    _, params, sample = sampler_of()
    prompts = make_prompts(9)
    order = np.random.default_rng(0).permutation(9)
    whole = sample(params, prompts, KEY, samples_per_prompt=3)
    other = sample(params, [prompts[i] for i in order], KEY,
                   samples_per_prompt=3)
    for name in ('tokens_PGT', 'logp_PGT', 'entropy_PGT', 'length_PG'):
      np.testing.assert_array_equal(getattr(other, name),
                                    getattr(whole, name)[order])

  def test_neighbours_and_refills_do_not_matter(self):
    _, params, sample = sampler_of()
    prompts = make_prompts(9)
    whole = sample(params, prompts, KEY, samples_per_prompt=3)
    for p in (0, 4, 8):
      alone = sample(params, [prompts[p]], KEY, samples_per_prompt=3)
      np.testing.assert_array_equal(alone.tokens_PGT[0], whole.tokens_PGT[p])
      np.testing.assert_array_equal(alone.logp_PGT[0], whole.logp_PGT[p])

  @parameterized.parameters(
      dict(refill_at=4), dict(decode_steps=3), dict(num_prefill=3))
  def test_when_slots_are_refilled_does_not_matter(self, **options):
    _, params, sample = sampler_of()
    _, _, other = sampler_of(**options)
    arguments = params, make_prompts(9), KEY
    assert_same(sample(*arguments, samples_per_prompt=3),
                other(*arguments, samples_per_prompt=3))

  @parameterized.parameters(1, 7, 32)
  def test_the_number_of_slots_changes_rounding_only(self, num_slots):
    _, params, sample = sampler_of()
    _, _, other = sampler_of(num_slots=num_slots)
    arguments = params, make_prompts(9), KEY
    assert_same(sample(*arguments, samples_per_prompt=3),
                other(*arguments, samples_per_prompt=3), exact=False)

  def test_fewer_samples_are_the_first_of_more(self):
    _, params, sample = sampler_of()
    three = sample(params, make_prompts(4), KEY, samples_per_prompt=3)
    two = sample(params, make_prompts(4), KEY, samples_per_prompt=2)
    np.testing.assert_array_equal(two.tokens_PGT, three.tokens_PGT[:, :2])

  def test_a_prompt_that_occurs_twice_gets_new_samples(self):
    _, params, sample = sampler_of()
    first, second = make_prompts(2)
    twice = sample(params, [first, second, first], KEY, samples_per_prompt=2)
    four = sample(params, [first], KEY, samples_per_prompt=4)
    np.testing.assert_array_equal(twice.tokens_PGT[0], four.tokens_PGT[0, :2])
    np.testing.assert_array_equal(twice.tokens_PGT[2], four.tokens_PGT[0, 2:])
    self.assertFalse(np.array_equal(twice.tokens_PGT[0], twice.tokens_PGT[2]))

  def test_another_key_prompt_or_sample_draws_other_tokens(self):
    _, params, sample = sampler_of()
    prompts = make_prompts(2)
    found = sample(params, prompts, KEY, samples_per_prompt=2)
    other = sample(params, prompts, jax.random.key(8), samples_per_prompt=2)
    rows = [*found.tokens_PGT.reshape(-1, 24), *other.tokens_PGT.reshape(
        -1, 24)]
    self.assertLen({row.tobytes() for row in rows}, 8)

  def test_keys_come_from_prompt_and_sample_index_as_documented(self):
    # With all logits equal the first token is the argmax of the noise alone.
    _, params = toys.model_and_params('tiny')
    params = params | {
        'head': {'kernel': jnp.zeros_like(params['head']['kernel'])}}
    _, _, sample = sampler_of()
    prompt = [3, 1, 4]
    found = sample(params, [prompt], KEY, samples_per_prompt=2)
    prompt_hash = zlib.crc32(np.array(prompt, '<i4').tobytes())
    for g in range(2):
      key = jax.random.fold_in(jax.random.fold_in(KEY, prompt_hash), g)
      for t in range(2):
        noise_V = jax.random.gumbel(jax.random.fold_in(key, t), (272,))
        self.assertEqual(found.tokens_PGT[0, g, t], jnp.argmax(noise_V))
    self.assertGreaterEqual(found.length_PG.min(), 2)


class CostTest(absltest.TestCase):

  def test_everything_compiles_once(self):
    model, params = toys.model_and_params('tiny')
    with metrics.CompilationCounter() as counter:
      sample = rollout.make_sampler(
          model, num_slots=4, max_prompt_length=12, max_new_tokens=24,
          stop_ids=STOP_IDS)
      for call, options in enumerate((
          dict(), dict(temperature=0.0), dict(temperature=1), dict(top_k=5),
          dict(top_p=0.9), dict(min_p=0.1), dict(max_new_tokens=3),
          dict(samples_per_prompt=5))):
        prompts = make_prompts(1 + 3 * call, seed=call, longest=1 + call)
        sample(params, prompts, jax.random.key(call),
               **dict(samples_per_prompt=2) | options)
    self.assertEqual({name: counter.counts[name] for name in COMPILED},
                     dict.fromkeys(COMPILED, 1))

  def test_slots_do_not_wait_for_the_longest(self):
    # One token in 11 ends a response, so lengths are spread; lock-step batches
    # of eight would each run to the longest of their eight.
    _, params, sample = sampler_of(num_slots=8, max_new_tokens=64, refill_at=1,
                                   stop_ids=tuple(range(24)))
    found, counts = sample.counted(params, make_prompts(30), KEY,
                                   samples_per_prompt=8)
    lengths_JB = found.length_PG.reshape(-1, 8)
    lock_step = int(lengths_JB.max(axis=1).sum())
    needed = lengths_JB.sum() / 8
    self.assertGreater(lock_step, 2 * needed)
    # At the end slots are free for want of work, never longer than one answer.
    self.assertLess(counts.decode_steps, needed + found.length_PG.max())
    self.assertLess(counts.decode_steps, 0.6 * lock_step)
    self.assertEqual(counts.tokens, found.length_PG.sum())
    self.assertGreater(counts.occupancy, 0.85)

  def test_samples_of_a_prompt_share_its_prefill(self):
    _, params, sample = sampler_of(num_slots=32)
    _, counts = sample.counted(params, make_prompts(4), KEY,
                               samples_per_prompt=8)
    self.assertEqual(counts.prefilled, 4)


class MeshTest(absltest.TestCase):

  def test_eight_devices_draw_what_one_does(self):
    model, params, sample = sampler_of(num_slots=8)
    mesh = sharding.make_mesh(data=2, fsdp=2, expert=2)
    placed = jax.device_put(params, sharding.tree_sharding(
        mesh, transformer.abstract_params(model)))
    with sharding.use(mesh), metrics.CompilationCounter() as counter:
      split = rollout.make_sampler(
          model, mesh, num_slots=8, max_prompt_length=12, max_new_tokens=24,
          stop_ids=STOP_IDS)
      cache = split.functions.init().cache.k_LBSKH
      found = split(placed, make_prompts(6), KEY, samples_per_prompt=3)
      split(placed, make_prompts(2), KEY, samples_per_prompt=1, top_k=5)
    self.assertEqual(cache.addressable_shards[0].data.shape[1], 2)
    self.assertEqual({name: counter.counts[name] for name in COMPILED},
                     dict.fromkeys(COMPILED, 1))
    assert_same(found, sample(params, make_prompts(6), KEY,
                              samples_per_prompt=3), exact=False)

  def test_slots_that_the_mesh_does_not_divide_are_refused(self):
    model, _ = toys.model_and_params('tiny')
    for sizes in (dict(num_slots=12), dict(num_slots=16, num_prefill=3)):
      with self.assertRaisesRegex(ValueError, 'multiple of the 8 shares'):
        rollout.make_sampler(model, sharding.make_mesh(), **sizes,
                             max_prompt_length=12, max_new_tokens=24)


class ErrorTest(parameterized.TestCase):

  @parameterized.parameters(
      ([], 'at least one prompt, got none'),
      ([[1], []], 'prompt 1 to be a list of at least one'),
      ([[1.5]], 'prompt 0 .*float64'),
      ([[1], [2] * 13], 'at most 12 tokens, got 13 in prompt 1'),
      ([[1], [2, 272]], r'0\.\.271, got 272 in prompt 1'),
      ([[-1]], 'got -1 in prompt 0'))
  def test_prompts_that_cannot_be_served(self, prompts, message):
    _, params, sample = sampler_of()
    with self.assertRaisesRegex(ValueError, message):
      sample(params, prompts, KEY, samples_per_prompt=1)

  @parameterized.parameters(
      (dict(samples_per_prompt=0), 'samples_per_prompt >= 1, got 0'),
      (dict(max_new_tokens=25), r'in 1\.\.24, .*got 25'),
      (dict(max_new_tokens=0), 'got 0'),
      (dict(temperature=-1.0), 'temperature'))
  def test_options_that_cannot_be_served(self, options, message):
    _, params, sample = sampler_of()
    with self.assertRaisesRegex(ValueError, message):
      sample(params, [[1]], KEY, **dict(samples_per_prompt=1) | options)

  @parameterized.parameters(
      (dict(num_slots=0), 'num_slots >= 1, got 0'),
      (dict(refill_at=5), 'refill_at <= num_slots = 4, got 5'),
      (dict(stop_ids=(3, 272)), 'stop ids .*got 272'))
  def test_sizes_that_do_not_suit_each_other(self, options, message):
    model, _ = toys.model_and_params('tiny')
    with self.assertRaisesRegex(ValueError, message):
      rollout.make_sampler(model, **dict(
          num_slots=4, max_prompt_length=12, max_new_tokens=24) | options)

  def test_parameters_that_are_not_finite_are_reported(self):
    _, params, sample = sampler_of()
    broken = jax.tree.map(lambda x: x * np.float32('nan'), params)
    with self.assertRaisesRegex(ValueError, 'finite.*earlier checkpoint'):
      sample(broken, [[1]], KEY, samples_per_prompt=1)


if __name__ == '__main__':
  absltest.main()
