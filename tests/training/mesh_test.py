"""Every objective and every kind of model takes the same step on a mesh.

And what the devices exchange for it: parameters layer by layer, never all.
"""
import re
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax.sharding import PartitionSpec
import numpy as np

from rljax import losses
from rljax import sharding
from rljax.models import attention
from rljax.models import expert_parallel
from rljax.models import transformer
from rljax.training import forward
from rljax.training import program
from rljax.training import state
from rljax.training import update
from tests import toys
from tests.training import steps

MESHES = (
    dict(data=2, fsdp=2, expert=2), dict(data=1, fsdp=2, expert=2, tensor=2),
    dict(data=2, context=2, tensor=2),
    dict(data=1, fsdp=2, context=2, expert=2))
VARIANTS = {
    'dense': dict(variant='tiny_dense'),
    'yarn': dict(variant='tiny_yarn'),
    'shared experts': dict(variant='tiny_wide'),
    'tied': dict(variant='tiny', tied_head=True, norm_head=False),
    'biased': dict(variant='tiny', router_bias=True, qkv_bias=True),
    'in chunks': dict(variant='tiny', query_chunk=10),
    'recomputed': dict(variant='tiny', remat='full')}


def batch_for(name, step):
  """The step of `steps` with holes, and what an objective wants besides."""
  batch = step.batch
  hole_BT = batch.position_BT % 5 == 4
  batch = batch.replace(
      weight_BT=np.where(hole_BT, 0, batch.weight_BT).astype(np.float32),
      # Id 0, which pads rows elsewhere, as a token that was generated.
      tokens_BT=np.where(batch.position_BT % 6 == 5, 0, batch.tokens_BT))
  if name.startswith('guide'):
    rows = batch.tokens_BT.shape[0]
    batch = batch.replace(
        guided_BT=np.arange(rows)[:, None] % 2 == (batch.segment_BT > 0),
        gamma_B=np.full(rows, 0.7, np.float32))
  return batch


def loss_of(name, model):
  objective = losses.get('policy', name)
  return forward.compose(forward.make_forward(model), objective.loss,
                         entropy_coef=0.05, balance_coef=0.2, z_coef=0.05)


def prepared(step, loss, mesh, rules=None, **options):
  """The update of plain SGD on a mesh, and the state it begins with."""
  begin, shardings = state.init_state(
      step.model, steps.SGD, jax.random.key(0), mesh, rules,
      params=step.params)
  return begin, update.make_update_fn(
      loss, steps.SGD, state_sharding=shardings,
      batch_sharding=sharding.batch(mesh), **options)


def on_mesh(step, batch, loss, mesh, rules=None, **options):
  """New parameters and metrics after a step of plain SGD on a mesh."""
  with sharding.use(mesh, rules):
    begin, run = prepared(step, loss, mesh, rules, **options)
    end, metrics = run(begin, batch, state.named_keys(0, 'update')['update'])
  return end.params, metrics


class SameStepTest(parameterized.TestCase):

  def check(self, step, batch, loss, sizes, layout=None, **options):
    want, want_metrics = steps.take(
        update.make_update_fn(loss, steps.SGD), step, batch)
    if layout is not None:
      batch = steps.lay_out(batch, layout)
    got, metrics = on_mesh(step, batch, loss, sharding.make_mesh(**sizes),
                           **options)
    toys.assert_trees_close(got, want, atol=2e-5, rtol=0)
    toys.assert_trees_close(metrics, want_metrics, atol=2e-5, rtol=1e-5)
    moved = jax.tree.map(
        lambda x, y: np.max(np.abs(np.asarray(x) - np.asarray(y))),
        want, step.params)
    self.assertGreater(max(jax.tree.leaves(moved)), 1e-3)

  @parameterized.parameters(*enumerate(losses.names('policy')))
  def test_every_objective(self, number, name):
    # A response a row on one device; packed, with empty rows, in micro-batches
    # on eight.
    step = steps.example()
    self.check(step, batch_for(name, step), loss_of(name, step.model),
               MESHES[number % len(MESHES)], steps.WITH_EMPTY_ROWS,
               num_microbatches=2)

  @parameterized.parameters(*enumerate(VARIANTS))
  def test_every_kind_of_model(self, number, name):
    step = steps.example(**VARIANTS[name])
    sizes = MESHES[(number + 2) % len(MESHES)]
    self.check(step, step.batch, steps.loss_fn(step.model), sizes)

  def test_rows_that_the_context_axis_does_not_divide_are_refused(self):
    step = steps.example()
    mesh = sharding.make_mesh(data=1, context=8)
    batch = jax.tree.map(lambda x: x[:, :36] if x.shape[1:] == (40,) else x,
                         step.batch)
    with self.assertRaisesRegex(ValueError, '8 devices.*got 36 tokens'):
      on_mesh(step, batch, steps.loss_fn(step.model), mesh)

  def test_a_context_axis_that_is_ignored_would_be_seen(self):
    step = steps.example()
    mesh = sharding.make_mesh(data=1, context=4, devices=jax.devices()[:4])
    texts = []
    for rules in (None, sharding.make_rules({'act_length': ()})):
      with sharding.use(mesh, rules):
        run = jax.jit(lambda p, b: forward.make_forward(step.model)(
            p, b).logp_BT)
        texts.append(program.memory(run.lower(
            step.params, step.batch).compile())['temporary'])
    self.assertLess(texts[0], 0.5 * texts[1])


class SplitRowsTest(parameterized.TestCase):
  """Sequences that lie on two devices; the rows of `example` end before."""

  def got_and_want(self, sizes, overrides=None):
    step = steps.example()
    packed = steps.lay_out(step.batch, steps.WITH_EMPTY_ROWS)
    part = steps.ROW_LENGTH // sizes['context']
    at_border_BP = packed.position_BT[:, part::part]
    self.assertTrue((at_border_BP > 0).any())
    loss = steps.loss_fn(step.model)
    want, _ = steps.sgd_step(step, step.batch)
    got, _ = on_mesh(step, packed, loss, sharding.make_mesh(**sizes),
                     sharding.make_rules(overrides))
    return got, want

  @parameterized.parameters(
      (dict(data=2, fsdp=2, context=2),),
      (dict(data=2, context=4),),
      # Fewer key heads than the devices that share out the queries.
      (dict(data=1, context=2, tensor=4),
       dict(kv_heads=(), act_kv_heads=())))
  def test_packed_sequences_cross_devices(self, sizes, overrides=None):
    toys.assert_trees_close(*self.got_and_want(sizes, overrides), atol=2e-5,
                            rtol=0)

  def test_a_part_that_takes_itself_for_the_first_would_be_seen(self):
    causal = attention._causal_attention
    wrong = lambda *inputs: causal(*inputs[:-1], 0)
    with mock.patch.object(attention, '_causal_attention', wrong):
      got, want = self.got_and_want(dict(data=2, context=4))
    self.assertGreater(toys.largest_difference(got, want), 1e-3)


class ExchangedOverContextTest(parameterized.TestCase):

  def gathered(self, **overrides):
    """Shapes of the gathers that hold whole rows."""
    step = steps.example(**overrides)
    mesh = sharding.make_mesh(data=2, context=4)
    with sharding.use(mesh):
      begin, run = prepared(step, steps.loss_fn(step.model), mesh)
      text = run.lower(begin, step.batch, jax.random.key(0)).compile().as_text()
    shapes = [tuple(map(int, sizes.split(','))) for sizes in re.findall(
        r'= \(?\w+\[([\d,]+)\][^=]*? all-gather(?:-start)?\(', text)]
    return {shape for shape in shapes if steps.ROW_LENGTH in shape}

  @parameterized.parameters(
      dict(variant='tiny_dense'), dict(num_experts=6), dict(query_chunk=2))
  def test_keys_and_values_alone_are_gathered(self, **overrides):
    # 4 of 8 rows; 2 key heads of width 8, half as wide as the
    # model. The other is the segments.
    self.assertEqual(self.gathered(**overrides), {(4, 40, 2, 8), (4, 40)})

  def test_a_router_that_gathers_all_tokens_would_be_seen(self):
    with mock.patch.object(expert_parallel, 'top_k', jax.lax.top_k):
      self.assertIn((8, 40, 6), self.gathered(num_experts=6))


class ExchangedTest(absltest.TestCase):

  def largest_gather(self, change=lambda params: params):
    """Bytes of the largest gather, of a layer's or a table's parameters."""
    step = steps.example(num_layers=4, model_dim=64, expert_dim=64)
    mesh = sharding.make_mesh(data=2, fsdp=4)
    inner = steps.loss_fn(step.model)
    loss = lambda params, batch, key: inner(change(params), batch, key)
    with sharding.use(mesh):
      begin, run = prepared(step, loss, mesh)
      text = run.lower(begin, step.batch, jax.random.key(0)).compile().as_text()
    shapes = transformer.abstract_params(step.model)
    sizes = {jax.tree_util.keystr(path): leaf.size * 4
             for path, leaf in jax.tree_util.tree_leaves_with_path(
                 sharding.unbox(shapes))}
    one = max(size // 4 if 'layers' in name else size
              for name, size in sizes.items())
    return program.collectives(text)['all-gather']['largest'], one

  def test_parameters_are_gathered_layer_by_layer(self):
    found, one = self.largest_gather()
    self.assertGreater(found, 0)
    self.assertLessEqual(found, one)

  def test_a_gather_of_all_layers_would_be_seen(self):
    whole = lambda params: jax.tree.map(
        lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), params)
    found, one = self.largest_gather(whole)
    self.assertGreater(found, one)


if __name__ == '__main__':
  absltest.main()
