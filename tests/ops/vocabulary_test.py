"""Blocks, chunks and shards of the head against whole logits in float64."""
import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax import sharding
from rljax.ops import logprobs
from rljax.ops import sampling
from rljax.ops import vocabulary
from tests import toys
from tests.ops import dense

NAMES = ('logp', 'entropy', 'kl', 'ref_kl')
ODD = dict(lengths=((5, 6), (12,), (4, 3, 3)), row_length=13)
EVEN = dict(lengths=((5, 6), (12,), (), (4, 3, 3)) * 2, row_length=12)


def example(vocab_size=37, width=8, seed=0, dtype=jnp.float32, rows=None):
  """Heads of a policy and a reference, rows, and a weight for every result."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  tokens_BT, _, segment_BT = toys.rows(
      **rows or ODD, vocab_size=vocab_size)
  shape = tokens_BT.shape
  heads = [vocabulary.Projection(jnp.asarray(draw(*shape, width), dtype),
                                 jnp.asarray(draw(width, vocab_size)))
           for _ in range(2)]
  return heads, tokens_BT, segment_BT, {name: draw(*shape) for name in NAMES}


def arrays(head):
  """What the oracle takes; the product is of the hidden states' type."""
  return jax.tree.map(
      lambda x: np.asarray(x.astype(head.hidden_BTD.dtype), np.float64),
      [x for x in (head.hidden_BTD, head.kernel_DV) if x is not None])


@functools.partial(jax.jit, static_argnames=('block', 'truncated'))
def value_and_grads(policy, given, tokens_BT, segment_BT, reference=None,
                    params=None, **options):
  def loss(policy):
    out = logprobs.score(policy, tokens_BT, segment_BT, params,
                         reference=reference, **options)
    found = dict(logp=out.logp_BT, entropy=out.entropy_BT)
    if out.kl_BT is not None:
      found |= dict(kl=out.kl_BT, ref_kl=out.ref_kl_BT)
    return sum(jnp.sum(given[name] * x) for name, x in found.items()), found

  with jax.numpy_dtype_promotion('strict'):
    grads, found = jax.grad(loss, has_aux=True)(policy)
  return found, grads


def compare(heads, tokens_BT, segment_BT, given, *, has_reference=True,
            atol=2e-5, block=(5, 7), **sampled):
  """Values and gradients of ours and the oracle's are the same."""
  policy, reference = heads
  got, grads = value_and_grads(
      policy, given, tokens_BT, segment_BT,
      reference if has_reference else None,
      sampling.make_params(**sampled) if sampled else None, block=block)
  want, want_grads = dense.value_and_grads(
      arrays(policy), given, tokens_BT, segment_BT,
      arrays(reference) if has_reference else None, **sampled)
  assert got.keys() == want.keys()
  for name, x_BT in want.items():
    assert np.abs(x_BT).max() > 0.5, name
    np.testing.assert_allclose(got[name], x_BT, atol=atol, err_msg=name)
  mine = [x for x in (grads.hidden_BTD, grads.kernel_DV) if x is not None]
  for got, want in zip(mine, want_grads, strict=True):
    np.testing.assert_allclose(np.asarray(got, np.float64), want,
                               atol=atol * np.abs(want).max())


class BlockTest(parameterized.TestCase):

  @parameterized.named_parameters(
      ('one block', (1_000, 1_000)), ('neither divides', (5, 7)),
      ('tokens in chunks', (8, 1_000)), ('ids in blocks', (1_000, 10)),
      ('one token, one id', (1, 1)))
  def test_equals_whole_logits(self, block):
    compare(*example(), block=block)

  @parameterized.parameters(
      dict(temperature=0.6), dict(temperature=3.0), dict(top_k=4),
      dict(top_p=0.7), dict(min_p=0.2), dict(top_k=1),
      dict(temperature=1.7, top_k=9, top_p=0.8, min_p=0.1))
  def test_equals_whole_logits_as_sampled(self, **sampled):
    compare(*example(), **sampled)

  def test_without_a_reference_there_is_no_divergence(self):
    heads, *rest = example()
    compare(heads, *rest, has_reference=False)
    self.assertIsNone(logprobs.score(heads[0], *rest[:2]).kl_BT)

  def test_logits_instead_of_a_kernel(self):
    heads, *rest = example()
    logits = [vocabulary.Projection(jnp.einsum(
        'btd,dv->btv', head.hidden_BTD, head.kernel_DV)) for head in heads]
    compare(logits, *rest)
    compare(logits, *rest, temperature=0.8, top_p=0.6)

  def test_bfloat16_is_summed_in_float32(self):
    # Values: products of bfloat16 are exact in float32. Gradients: 8 bits.
    heads, tokens_BT, segment_BT, given = example(dtype=jnp.bfloat16)
    got, grads = value_and_grads(heads[0], given, tokens_BT, segment_BT)
    want, want_grads = dense.value_and_grads(
        arrays(heads[0]), given, tokens_BT, segment_BT)
    for name, x_BT in want.items():
      np.testing.assert_allclose(got[name], x_BT, atol=2e-5)
    self.assertEqual(grads.hidden_BTD.dtype, jnp.bfloat16)
    self.assertEqual(grads.kernel_DV.dtype, jnp.float32)
    for x, y in zip(jax.tree.leaves(grads), want_grads, strict=True):
      np.testing.assert_allclose(np.asarray(x, np.float64), y,
                                 atol=0.02 * np.abs(y).max())

  @parameterized.product(share=(0.0, 0.3, 1.0), block=((5, 7), (1_000, 9)))
  def test_tokens_that_nobody_asks_for(self, share, block):
    # Values and gradients are those of all tokens, with 0 in the other places:
    # as if no loss had looked there.
    (policy, reference), tokens_BT, segment_BT, given = example()
    asked_BT = np.random.default_rng(1).random(tokens_BT.shape) < share
    options = dict(reference=reference, block=block)
    params = sampling.make_params(temperature=0.8, top_p=0.7)
    got, grads = value_and_grads(policy, given, tokens_BT, segment_BT,
                                 params=params, asked_BT=asked_BT, **options)
    want, want_grads = value_and_grads(
        policy, {name: x_BT * asked_BT for name, x_BT in given.items()},
        tokens_BT, segment_BT, params=params, **options)
    for name, x_BT in want.items():
      np.testing.assert_allclose(got[name], np.where(asked_BT, x_BT, 0),
                                 atol=1e-6, err_msg=name)
    for x, y in zip(jax.tree.leaves(grads), jax.tree.leaves(want_grads),
                    strict=True):
      np.testing.assert_allclose(x, y, atol=1e-5)

  def test_tokens_that_nobody_asks_for_are_not_looked_at(self):
    (policy, _), tokens_BT, segment_BT, given = example()
    asked_BT = np.arange(tokens_BT.shape[1])[None] % 3 == 1
    asked_BT = np.broadcast_to(asked_BT, tokens_BT.shape)
    # Position t - 1 predicts token t: all that is not needed is spoilt.
    needed_BT = np.roll(asked_BT & (segment_BT > 0), -1, axis=1)
    spoilt = policy.replace(hidden_BTD=jnp.where(
        needed_BT[..., None], policy.hidden_BTD, jnp.nan))
    want, _ = value_and_grads(policy, given, tokens_BT, segment_BT,
                              asked_BT=asked_BT)
    got, grads = value_and_grads(spoilt, given, tokens_BT, segment_BT,
                                 asked_BT=asked_BT)
    np.testing.assert_array_equal(got['logp'], want['logp'])
    self.assertTrue(np.isfinite(grads.kernel_DV).all())
    seen, _ = value_and_grads(spoilt, given, tokens_BT, segment_BT)
    self.assertTrue(np.isnan(seen['logp']).any())

  @parameterized.parameters(-1e30, -1e38, -np.inf)
  def test_impossible_ids(self, lowest):
    # Whole blocks of them, first and last, in policy and reference; the drawn
    # tokens and a few others are possible.
    heads, tokens_BT, *rest = example()
    tokens_BT = 14 + tokens_BT % 9
    impossible_V = (np.arange(37) < 14) | (np.arange(37) > 28)
    logits = [vocabulary.Projection(jnp.where(
        impossible_V[None, None], lowest,
        jnp.einsum('btd,dv->btv', head.hidden_BTD, head.kernel_DV)))
              for head in heads]
    compare(logits, tokens_BT, *rest)
    compare(logits, tokens_BT, *rest, top_k=3)

  def test_a_wrong_oracle_would_be_seen(self):
    heads, *rest = example()
    for wrong in (dict(temperature=0.99), dict(top_k=36)):
      with self.assertRaises(AssertionError):
        policy = arrays(heads[0])
        got, _ = value_and_grads(heads[0], rest[2], *rest[:2])
        want, _ = dense.value_and_grads(policy, rest[2], *rest[:2], **wrong)
        np.testing.assert_allclose(got['logp'], want['logp'], atol=2e-5)

  def test_the_reference_gets_no_gradient(self):
    (policy, reference), tokens_BT, segment_BT, _ = example()
    for name in ('kl_BT', 'ref_kl_BT'):
      grads = jax.grad(lambda reference: jnp.sum(getattr(logprobs.score(
          policy, tokens_BT, segment_BT, reference=reference), name)))(
              reference)
      for x in jax.tree.leaves(grads):
        np.testing.assert_array_equal(x, 0)

  def test_the_divergences_are_two_and_zero_of_itself(self):
    (policy, reference), *rest = example()
    out = logprobs.score(policy, *rest[:2], reference=reference)
    there = logprobs.score(reference, *rest[:2], reference=policy)
    np.testing.assert_allclose(out.ref_kl_BT, there.kl_BT, atol=2e-5)
    self.assertGreater(np.abs(out.ref_kl_BT - out.kl_BT).max(), 0.5)
    same = logprobs.score(policy, *rest[:2], reference=policy)
    for x_BT in (same.kl_BT, same.ref_kl_BT):
      np.testing.assert_allclose(x_BT, 0, atol=1e-6)

  def test_gradient_of_the_reverse_direction_by_finite_differences(self):
    # The slope along a random direction, of float32 sums: to two digits.
    (policy, reference), tokens_BT, segment_BT, given = example()
    run = jax.jit(lambda kernel_DV: jnp.sum(given['ref_kl'] * logprobs.score(
        policy.replace(kernel_DV=kernel_DV), tokens_BT, segment_BT,
        reference=reference, block=(5, 7)).ref_kl_BT))
    step_DV = np.random.default_rng(1).normal(
        size=policy.kernel_DV.shape).astype(np.float32)
    slope = (run(policy.kernel_DV + 1e-2 * step_DV)
             - run(policy.kernel_DV - 1e-2 * step_DV)) / 2e-2
    want = jnp.sum(jax.grad(run)(policy.kernel_DV) * step_DV)
    np.testing.assert_allclose(slope, want, rtol=1e-2)


class MeshTest(parameterized.TestCase):

  @parameterized.named_parameters(
      ('all', dict(fsdp=2, expert=2, tensor=2)),
      ('tensor', dict(data=2, tensor=4)), ('fsdp', dict(fsdp=8)),
      ('expert', dict(data=2, expert=2, tensor=2)),
      ('embed over two', dict(data=4, fsdp=2),
       dict(embed=('data', 'fsdp'), vocab=())))
  def test_any_mesh_equals_whole_logits(self, mesh, rules=None):
    rules = sharding.make_rules(rules)
    with sharding.use(sharding.make_mesh(**{'data': 1} | mesh), rules):
      compare(*example(vocab_size=40, rows=EVEN))
      compare(*example(vocab_size=40, rows=EVEN), temperature=0.7, top_k=9,
              top_p=0.8, min_p=0.05)

  @parameterized.parameters(dict(fsdp=2, expert=2, tensor=2), dict(fsdp=8))
  def test_rows_that_the_mesh_does_not_divide(self, **mesh):
    # Three rows of 13: every device scores all of them.
    with sharding.use(sharding.make_mesh(**{'data': 1} | mesh)):
      compare(*example(vocab_size=40))

  def test_logits_that_are_split(self):
    heads, *rest = example(vocab_size=40, rows=EVEN)
    logits = [vocabulary.Projection(jnp.einsum(
        'btd,dv->btv', head.hidden_BTD, head.kernel_DV)) for head in heads]
    with sharding.use(sharding.make_mesh(data=2, tensor=4)):
      compare(logits, *rest, top_p=0.7)

  def test_equal_logits_are_cut_by_id_across_shards(self):
    # All 40 ids alike: top-k keeps ids 0 to 24, two and a half shards.
    logits_BTV = jnp.zeros((1, 40, 40))
    tokens_BT = np.arange(40, dtype=np.int32)[None]
    params = sampling.make_params(top_k=25)
    with sharding.use(sharding.make_mesh(data=2, tensor=4)):
      out = jax.jit(logprobs.score)(vocabulary.Projection(logits_BTV),
                                    tokens_BT, np.ones((1, 40), np.int32),
                                    params)
    # A drawn token from beyond makes 26.
    np.testing.assert_allclose(out.logp_BT[0, 1:25], -np.log(25), rtol=1e-6)
    np.testing.assert_allclose(out.logp_BT[0, 25:], -np.log(26), rtol=1e-6)

  def test_a_vocabulary_that_does_not_divide_is_refused(self):
    (policy, _), tokens_BT, segment_BT, _ = example(vocab_size=37)
    with sharding.use(sharding.make_mesh(data=2, tensor=4)):
      with self.assertRaisesRegex(ValueError, '4 devices.*got 37.*config.mesh'):
        logprobs.score(policy, tokens_BT, segment_BT)


if __name__ == '__main__':
  absltest.main()
