"""What a compiled program costs, against sums made by hand."""
import functools

from absl.testing import absltest
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from rljax import sharding
from rljax.training import program


def compile_on_mesh(function, *arguments, specs, out):
  mesh = sharding.make_mesh(data=4, tensor=2)
  place = lambda spec: NamedSharding(mesh, spec)
  return jax.jit(
      function, in_shardings=tuple(map(place, specs)),
      out_shardings=place(out)).lower(*arguments).compile()


class CollectivesTest(absltest.TestCase):

  def test_nothing_is_exchanged_on_one_device(self):
    text = jax.jit(jnp.sin).lower(jnp.zeros(8)).compile().as_text()
    self.assertEqual(program.collectives(text), {})

  def test_a_contraction_over_the_data_axis_is_an_all_reduce(self):
    x, y = jnp.zeros((16, 32)), jnp.zeros((32, 24))
    compiled = compile_on_mesh(
        jnp.dot, x, y, specs=(P(None, 'data'), P('data')), out=P())
    found = program.collectives(compiled.as_text())
    self.assertEqual(list(found), ['all-reduce'])
    self.assertEqual(found['all-reduce'],
                     dict(count=1, bytes=16 * 24 * 4, largest=16 * 24 * 4))

  def test_a_loop_counts_each_time_round(self):
    def function(x, w):
      body = lambda carry, w: (jnp.tanh(carry @ w @ w.T), None)
      return jax.lax.scan(body, x, w)[0]

    x, w = jnp.zeros((16, 32)), jnp.zeros((7, 32, 64))
    found = {}
    for layers in (7, 3):
      compiled = compile_on_mesh(
          function, x, w[:layers], specs=(P(), P(None, None, 'tensor')),
          out=P())
      found[layers] = program.collectives(compiled.as_text())['all-reduce']
    self.assertEqual(found[7]['count'], 7)
    self.assertEqual(found[3]['count'], 3)
    self.assertEqual(found[7]['bytes'], 7 * 16 * 32 * 4)
    self.assertEqual(found[7]['largest'], 16 * 32 * 4)

  def test_refuses_text_that_is_no_program(self):
    with self.assertRaisesRegex(ValueError, 'without an ENTRY'):
      program.collectives('hello')


class MemoryTest(absltest.TestCase):

  def test_arguments_are_those_of_one_device(self):
    x = jnp.zeros((64, 32))
    compiled = compile_on_mesh(jnp.sin, x, specs=(P('data'),), out=P('data'))
    self.assertEqual(program.memory(compiled)['arguments'], 64 * 32 * 4 // 4)

  def test_a_donated_argument_is_no_output(self):
    x = jnp.zeros((64, 32))
    kept = jax.jit(jnp.sin).lower(x).compile()
    donated = jax.jit(jnp.sin, donate_argnums=0).lower(x).compile()
    self.assertEqual(program.memory(kept)['output'], 64 * 32 * 4)
    self.assertEqual(program.memory(donated)['output'], 0)


class ProductFlopsTest(absltest.TestCase):

  def test_a_product_by_hand(self):
    # 2 · 5 · 7 · 3
    self.assertEqual(program.product_flops(
        jnp.dot, jnp.zeros((5, 3)), jnp.zeros((3, 7))), 210)

  def test_gradients_loops_and_remat(self):
    def loss(w, x):
      layer = jax.checkpoint(lambda x, w: jnp.tanh(x @ w))
      return jax.lax.scan(lambda x, w: (layer(x, w), None), x, w)[0].sum()

    w, x = jnp.zeros((4, 8, 8)), jnp.zeros((3, 8))
    # 4 layers; forward, forward again under remat, and two products backward.
    self.assertEqual(program.product_flops(jax.grad(loss), w, x),
                     4 * 4 * 2 * 3 * 8 * 8)

  def test_the_dearer_branch_counts(self):
    function = functools.partial(
        jax.lax.cond, True, lambda x: x @ x @ x, lambda x: x @ x)
    self.assertEqual(program.product_flops(function, jnp.zeros((4, 4))), 256)

  def test_grouped_products_count_each_row_once(self):
    x, w = jnp.zeros((6, 4)), jnp.zeros((3, 4, 5))
    sizes = np.array([1, 2, 3], np.int32)
    self.assertEqual(program.product_flops(jax.lax.ragged_dot, x, w, sizes),
                     2 * 6 * 4 * 5)


if __name__ == '__main__':
  absltest.main()
