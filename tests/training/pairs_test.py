"""A step on pairs depends on the pairs, not on how they are laid out."""
import functools

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from rljax import losses
from rljax import packing
from rljax import sharding
from rljax.models import attention
from rljax.training import forward
from rljax.types import TokenPair
from tests import toys
from tests.training import mesh_test
from tests.training import steps

LENGTHS = ((7, 5, 3), (3, 4, 6), (9, 2, 2), (1, 3, 5), (6, 1, 4), (4, 6, 1))
ROW = 40
# num_rows, pairs_per_row, share_prompt, num_microbatches
LAYOUTS = {
    'padded': (8, 1, False, 1),
    'padded, shared': (8, 1, True, 1),
    'packed': (8, 4, False, 1),
    'packed, shared': (8, 4, True, 1),
    'micro-batches': (8, 4, True, 8),
    'micro-batches of one pair': (8, 1, False, 4),
}


@functools.cache
def pairs():
  rng = np.random.default_rng(3)
  draw = lambda n: rng.integers(0, 9, n, dtype=np.int32)

  def mask(n):
    inside = rng.random(n) < 0.7  # with holes
    inside[rng.integers(n)] = True
    return inside

  found = []
  for number, (prompt, chosen, rejected) in enumerate(LENGTHS):
    one, other = draw(chosen), draw(rejected)
    one[0] = other[0] = 4  # a prefix in common
    found.append(TokenPair(str(number), draw(prompt), one, other, mask(chosen),
                           mask(rejected)))
  return found


@functools.cache
def scored():
  """Log-probabilities of reference and guide, kept by pair."""
  rng = np.random.default_rng(4)
  draw = lambda n: -rng.exponential(size=n).astype(np.float32)
  return [[(draw(c), draw(r)) for _, c, r in LENGTHS] for _ in range(2)]


def batch_of(num_rows, pairs_per_row, share_prompt, num_microbatches):
  batch, places = packing.pack_pairs(
      pairs(), num_rows=num_rows, row_length=ROW, pairs_per_row=pairs_per_row,
      num_microbatches=num_microbatches, share_prompt=share_prompt)
  reference, guide = (packing.fill(values, places, batch.tokens_BT.shape)
                      for values in scored())
  return batch.replace(ref_logp_BT=reference, guide_logp_BT=guide)


@functools.cache
def loss_fn(model, name='tgdpo', **hparams):
  hparams = hparams or (dict(beta=0.5, alpha=0.7, mask_shared_prefix=True)
                        if name == 'tgdpo' else {})
  objective = losses.get('preference', name, **hparams)
  return forward.compose(forward.make_forward(model), objective.loss,
                         entropy_coef=0.05)


@functools.cache
def model_of(**overrides):
  overrides = {'variant': 'tiny', 'num_layers': 1} | overrides
  model, params = toys.model_and_params(overrides.pop('variant'), **overrides)
  return steps.Step(model, params, None)


class SameStepTest(parameterized.TestCase):

  def check(self, step, layout, loss):
    want, want_metrics = steps.sgd_step(step, batch_of(*LAYOUTS['padded']),
                                        loss=loss)
    got, metrics = steps.sgd_step(step, batch_of(*layout), loss=loss,
                                  num_microbatches=layout[-1])
    toys.assert_trees_close(got, want, atol=2e-5, rtol=0)
    of_router = ('router_balance', 'router_entropy', 'router_z', 'expert_load')
    objective = lambda found: {
        k: v for k, v in found.items() if k not in of_router}
    toys.assert_trees_close(objective(metrics), objective(want_metrics),
                            atol=2e-5, rtol=1e-4)
    self.assertGreater(toys.largest_difference(want, step.params), 1e-3)

  @parameterized.parameters(*list(LAYOUTS)[1:])
  def test_tgdpo_with_every_layout(self, name):
    step = model_of()
    self.check(step, LAYOUTS[name], loss_fn(step.model))

  def test_positions_that_stretch_queries_in_chunks_and_recomputation(self):
    step = model_of(variant='tiny_yarn', query_chunk=10, remat='full')
    self.check(step, LAYOUTS['packed, shared'], loss_fn(step.model))

  def test_blocks_of_a_long_row(self):
    # Rows of four blocks of 64 queries, each with the keys before its end.
    step = model_of(variant='tiny_dense')
    long = packing.pack_pairs(pairs(), num_rows=1, row_length=256,
                              pairs_per_row=6)[0]
    short = packing.pack_pairs(pairs(), num_rows=6, row_length=ROW,
                               pairs_per_row=1, share_prompt=False)[0]
    loss = loss_fn(step.model, 'simpo')
    want, _ = steps.sgd_step(step, short, loss=loss)
    got, _ = steps.sgd_step(step, long, loss=loss)
    toys.assert_trees_close(got, want, atol=2e-5, rtol=0)

  def test_a_shared_prompt_that_nobody_sees_is_another_step(self):
    # Negative control: without the prefix, responses forget their prompt.
    step = model_of()
    batch = batch_of(*LAYOUTS['packed, shared'])
    want, _ = steps.sgd_step(step, batch, loss=loss_fn(step.model))
    blind = batch.replace(prefix_BT=np.zeros_like(batch.prefix_BT))
    got, _ = steps.sgd_step(step, blind, loss=loss_fn(step.model))
    self.assertGreater(toys.largest_difference(got, want), 1e-3)

  def test_eight_devices_that_split_rows_and_experts(self):
    step, sizes = model_of(), dict(data=2, context=2, expert=2)
    loss = loss_fn(step.model)
    want, want_metrics = steps.sgd_step(
        step, batch_of(*LAYOUTS['padded']), loss=loss)
    batch = batch_of(*LAYOUTS['packed, shared'])
    got, metrics = mesh_test.on_mesh(step, batch, loss,
                                     sharding.make_mesh(**sizes))
    toys.assert_trees_close(got, want, atol=2e-5, rtol=0)
    np.testing.assert_allclose(metrics['loss'], want_metrics['loss'],
                               rtol=1e-5)

  def test_rows_of_context_parts_cross_a_prompt_and_its_responses(self):
    batch = batch_of(*LAYOUTS['packed, shared'])
    border = batch.segment_BT[:, ROW // 2 - 1], batch.segment_BT[:, ROW // 2]
    crossing = (border[0] > 0) & ((batch.prefix_BT[:, ROW // 2] == border[0])
                                  | (border[0] == border[1]))
    self.assertTrue(crossing.any())

  def test_scores_do_not_depend_on_the_layout(self):
    step = model_of()
    score = forward.make_score_fn(forward.make_forward(step.model),
                                  num_microbatches=2)
    found = []
    for layout in ('padded', 'packed, shared'):
      batch, places = packing.pack_pairs(
          pairs(), num_rows=8, row_length=ROW, pairs_per_row=4,
          share_prompt='shared' in layout, num_microbatches=2)
      found.append(packing.take(score(step.params, batch)[0], places))
    for pair, sides, others in zip(pairs(), *found, strict=True):
      for mask, a, b in zip((pair.chosen_mask, pair.rejected_mask), sides,
                            others, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_array_equal(a < 0, mask)  # others are not scored

  def test_a_cache_and_a_prefix_do_not_go_together(self):
    step = model_of()
    batch = batch_of(*LAYOUTS['packed, shared'])
    cache = attention.init_cache(step.model.config, 8, ROW)
    with self.assertRaisesRegex(ValueError, 'no prefix_BT with a cache'):
      step.model.apply({'params': step.params}, batch.tokens_BT,
                       batch.position_BT, batch.segment_BT, cache=cache,
                       prefix_BT=batch.prefix_BT)


if __name__ == '__main__':
  absltest.main()
