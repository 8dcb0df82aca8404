"""Adapters: what they are at the start, in use, merged, and left out."""
from absl.testing import absltest
from absl.testing import parameterized
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rljax import models
from rljax.models import lora
from rljax.models import transformer
from tests import toys

VARIANTS = ('tiny', 'tiny_dense')


def model_and_params(variant='tiny', trained=True, **options):
  """A model with adapters; with some of a run behind them if `trained`."""
  model, params = toys.model_and_params(variant)
  options = dict(rank=2, alpha=8.0) | options
  adapted = lora.create(params, jax.random.key(1), **options)
  if not trained:
    return model, params, adapted
  rng = np.random.default_rng(2)
  return model, params, adapted.replace(trained=jax.tree.map(
      lambda x: jnp.asarray(0.2 * rng.normal(size=x.shape), x.dtype),
      adapted.trained))


def logits(model, params):
  tokens_BT, position_BT, segment_BT = toys.rows([[9, 5], [12]], 14)
  return jax.jit(lambda params: model.apply(
      lora.variables(params), tokens_BT, position_BT,
      segment_BT).logits_BTV)(params)


def kernels(params):
  """'layers/attention/query' -> array, of the kernels that can be adapted."""
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf
          for path, leaf in jax.tree_util.tree_leaves_with_path(params)
          if path[-1].key in lora.TARGETS}


def as_matrices(name, kernel):
  """Batch of matrices, from what is summed over to what is produced."""
  if name.endswith('out'):
    return kernel.reshape(-1, kernel.shape[-3] * kernel.shape[-2],
                          kernel.shape[-1])
  if name.endswith('gate_up'):
    return jnp.moveaxis(kernel, -2, 0).reshape(
        -1, kernel.shape[-3], kernel.shape[-1])
  if name.endswith('down'):
    return kernel.reshape(-1, *kernel.shape[-2:])
  return kernel.reshape(-1, kernel.shape[-3],
                        kernel.shape[-2] * kernel.shape[-1])


class AdaptedTest(parameterized.TestCase):

  @parameterized.parameters(*VARIANTS)
  def test_at_the_start_nothing_has_changed(self, variant):
    model, params, adapted = model_and_params(variant, trained=False)
    np.testing.assert_array_equal(logits(model, adapted), logits(model, params))
    jax.tree.map(np.testing.assert_array_equal, lora.merge(adapted), params)
    self.assertGreater(min(float(jnp.std(x)) for path, x in
                           jax.tree_util.tree_leaves_with_path(adapted.trained)
                           if path[-1].key == 'a'), 0.01)

  @parameterized.parameters(*VARIANTS)
  def test_a_is_uniform_within_one_over_the_root_of_its_inputs(self, variant):
    _, params, adapted = model_and_params(variant, trained=False, rank=64)
    inputs = {name: as_matrices(name, kernel).shape[-2]
              for name, kernel in kernels(params).items()}
    for name, a in zip(*_flat(adapted.trained['lora']), strict=True):
      if name.endswith('/b'):
        continue
      bound = inputs[name.removesuffix('/a')] ** -0.5
      self.assertLessEqual(np.abs(a).max(), bound, name)
      np.testing.assert_allclose(np.std(a), bound / 3 ** 0.5, rtol=0.1,
                                 err_msg=name)

  @parameterized.product(variant=VARIANTS, rank_stabilized=(False, True))
  def test_merged_is_unmerged(self, variant, rank_stabilized):
    model, params, adapted = model_and_params(
        variant, rank_stabilized=rank_stabilized)
    found = logits(model, adapted)
    np.testing.assert_allclose(found, logits(model, lora.merge(adapted)),
                               atol=2e-4)
    self.assertGreater(np.abs(found - logits(model, params)).max(), 0.1)

  @parameterized.parameters((False, 4.0), (True, 8 / np.sqrt(2)))
  def test_a_kernel_by_hand(self, rank_stabilized, scale):
    # Head 1, channel 0 of the query of layer 1; gate and up of expert 2.
    _, params, adapted = model_and_params(rank_stabilized=rank_stabilized)
    merged, pairs = lora.merge(adapted), adapted.trained['lora']['layers']
    pair = pairs['attention']['query']
    np.testing.assert_allclose(
        merged['layers']['attention']['query'][1, :, 1, 0],
        params['layers']['attention']['query'][1, :, 1, 0]
        + scale * pair['a'][1] @ pair['b'][1, :, 1, 0], atol=1e-5)
    pair = pairs['moe']['gate_up']
    for half in range(2):
      np.testing.assert_allclose(
          merged['layers']['moe']['gate_up'][0, 2, :, half],
          params['layers']['moe']['gate_up'][0, 2, :, half]
          + scale * pair['a'][0, 2, :, half] @ pair['b'][0, 2, :, half],
          atol=1e-5)

  @parameterized.parameters(*VARIANTS)
  def test_every_kernel_moves_and_by_no_more_than_the_rank(self, variant):
    _, params, adapted = model_and_params(variant)
    merged = lora.merge(adapted)
    before, after = kernels(params), kernels(merged)
    self.assertLen(before, 8 if variant == 'tiny' else 6)
    for name, kernel in before.items():
      change = as_matrices(name, after[name] - kernel)
      ranks = np.linalg.matrix_rank(change, tol=1e-3)
      np.testing.assert_array_equal(ranks, 2, name)
    rest = lambda tree: {
        k: v for k, v in zip(*_flat(tree), strict=True) if k not in before}
    jax.tree.map(np.testing.assert_array_equal, rest(merged), rest(params))

  def test_experts_have_adapters_of_their_own(self):
    # One expert's adapters move the output, in gate_up and in down alike.
    model, _, adapted = model_and_params()
    whole = logits(model, adapted)
    for name in ('gate_up', 'down'):
      for expert in range(model.config.num_experts):
        pairs = adapted.trained['lora']['layers']['moe'][name]
        b = pairs['b'].at[:, expert].set(0)
        self.assertGreater(np.abs(whole - logits(model, _with(
            adapted, name, pairs | {'b': b}))).max(), 1e-4)

  def test_the_base_gets_no_gradient(self):
    model, _, adapted = model_and_params()
    tokens_BT, position_BT, segment_BT = toys.rows([[9, 5], [12]], 14)
    grads = jax.grad(lambda p: jnp.sum(jnp.square(model.apply(
        lora.variables(p), tokens_BT, position_BT, segment_BT
    ).logits_BTV)))(adapted)
    for leaf in jax.tree.leaves(grads.base):
      np.testing.assert_array_equal(leaf, 0)
    for leaf in jax.tree.leaves(grads.trained):
      self.assertGreater(np.abs(leaf).max(), 0)

  def test_without_is_the_base_and_shares_it(self):
    model, params, adapted = model_and_params()
    reference = lora.without(adapted)
    np.testing.assert_array_equal(logits(model, reference),
                                  logits(model, params))
    for ours, theirs in zip(jax.tree.leaves(reference.base),
                            jax.tree.leaves(adapted.base), strict=True):
      self.assertIs(ours, theirs)
    self.assertEqual(jax.tree.structure(reference),
                     jax.tree.structure(adapted))
    with self.assertRaisesRegex(ValueError, 'got a tree without'):
      lora.without(params)

  def test_a_part_may_be_trained_in_full(self):
    model, params, adapted = model_and_params(whole=('head',))
    self.assertNotIn('head', adapted.base)
    np.testing.assert_array_equal(lora.merge(adapted)['head']['kernel'],
                                  adapted.trained['head']['kernel'])
    np.testing.assert_allclose(logits(model, adapted),
                               logits(model, lora.merge(adapted)), atol=2e-4)

  def test_ordinary_parameters_pass(self):
    _, params = toys.model_and_params('tiny')
    self.assertIs(lora.merge(params), params)
    trained, rest = lora.split(params)
    self.assertIs(trained, params)
    self.assertIs(lora.joined(trained, rest), params)

  @parameterized.parameters('query', 'gate_up', 'down', 'out')
  def test_axes_are_those_of_the_kernel(self, name):
    model = models.create('tiny')
    boxed = transformer.abstract_params(model)
    adapted = jax.eval_shape(
        lambda p: lora.create(p, jax.random.key(0), rank=3), boxed)
    part = 'attention' if name in ('query', 'out') else 'moe'
    pair = adapted.trained['lora']['layers'][part][name]
    want = {
        'query': (('layers', 'embed', None),
                  ('layers', None, 'heads', 'head_dim')),
        'out': (('layers', 'heads', 'head_dim', None),
                ('layers', None, 'embed')),
        'gate_up': (('layers', 'experts', 'embed', None, None),
                    ('layers', 'experts', None, None, 'mlp')),
        'down': (('layers', 'experts', 'mlp', None),
                 ('layers', 'experts', None, 'embed'))}[name]
    self.assertEqual((pair['a'].names, pair['b'].names), want)
    for box in pair.values():
      self.assertEqual(box.value.dtype, jnp.float32)
      self.assertEqual(box.value.ndim, len(box.names))
      self.assertIsInstance(box, nn.meta.AxisMetadata)

  @parameterized.parameters(
      (dict(targets=('qeury',)), r"'gate_up', 'key', .*got \['qeury'\]"),
      (dict(targets=()), 'got'), (dict(whole=('score',)), r"\['score'\]"),
      (dict(rank=0), 'rank >= 1'), (dict(alpha=0.0), 'alpha > 0'))
  def test_what_is_not_there_is_refused(self, options, message):
    with self.assertRaisesRegex(ValueError, message):
      model_and_params(**options)


def _flat(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return ([jax.tree_util.keystr(path, simple=True, separator='/')
           for path, _ in leaves], [leaf for _, leaf in leaves])


def _with(adapted, name, pair):
  """Adapters with one pair of the experts replaced."""
  tree = adapted.trained['lora']
  layers = tree['layers']
  return adapted.replace(trained=adapted.trained | {'lora': tree | {
      'layers': layers | {'moe': layers['moe'] | {name: pair}}}})


if __name__ == '__main__':
  absltest.main()
