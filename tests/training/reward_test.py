"""Scores depend on the text alone; gradients reach the place that is read."""
import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rljax import losses
from rljax import packing
from rljax import sharding
from rljax.models import reward as models
from rljax.training import metrics
from rljax.training import reward
from rljax.training import update as updates
from rljax.types import ComparedTexts
from rljax.types import TrainState
from tests import toys
from tests.training import mesh_test
from tests.training import steps

EOS = 258
SHAPE = dict(num_rows=4, row_length=32, lists_per_row=2, num_candidates=2)
LABELS = (65, 66)


def lists(count, seed=0, texts=2):
  """Texts of 3 to 9 tokens that end with a stop token, some with it inside."""
  rng = np.random.default_rng(seed)
  draw = lambda: np.append(rng.choice([*range(60), EOS], rng.integers(2, 9)),
                           EOS).astype(np.int32)
  return [ComparedTexts(tuple(draw() for _ in range(texts)),
                        tuple(rng.permutation(2).tolist()))
          for _ in range(count)]


@functools.cache
def pieces(kind, num_microbatches=1):
  """(forward, compiled score, parameters) of either model."""
  model, params = toys.model_and_params('tiny', num_layers=1)
  if kind == 'label':
    forward = reward.make_label_forward(model, LABELS)
  else:
    forward = reward.make_head_forward(models.RewardModel(model.config, 2))
    params = models.from_language_model(params, 2, jax.random.key(0))
  return forward, reward.make_score_fn(
      forward, num_microbatches=num_microbatches), params


def texts_of(kind):
  return 1 if kind == 'label' else 2


KINDS = ('head', 'label')


class ScoresTest(parameterized.TestCase):

  @parameterized.parameters(*KINDS)
  def test_company_padding_and_micro_batches_do_not_matter(self, kind):
    _, score, params = pieces(kind)
    some = lists(9, texts=texts_of(kind))
    together = reward.score_all(score, params, some, **SHAPE)
    self.assertEqual(together.shape, (9, 2, 2 if kind == 'head' else 1))
    for i, one in enumerate(some):  # alone, in a batch that is mostly padding
      alone = reward.score_all(score, params, [one], **SHAPE)
      np.testing.assert_allclose(alone[0], together[i], rtol=1e-4, atol=1e-5)
    order = np.random.default_rng(0).permutation(9)
    np.testing.assert_allclose(
        reward.score_all(score, params, [some[i] for i in order], **SHAPE),
        together[order], rtol=1e-4, atol=1e-5)
    _, split, _ = pieces(kind, 2)
    np.testing.assert_allclose(
        reward.score_all(split, params, some, num_microbatches=2, **SHAPE),
        together, rtol=1e-4, atol=1e-5)

  def test_a_prompt_stored_once_gives_the_scores_of_whole_texts(self):
    _, score, params = pieces('head')
    prompt = np.arange(3, 12, dtype=np.int32)
    some = [ComparedTexts(tuple(np.concatenate([prompt, text])
                                for text in one.texts), one.ranks)
            for one in lists(3)]
    self.assertGreater(sum(len(text) for text in some[0].texts), 32 - 9)
    shared = reward.score_all(score, params, some, **SHAPE)
    whole = reward.score_all(score, params, [
        ComparedTexts((text,), (0,)) for one in some for text in one.texts],
                             **SHAPE)  # one text has nothing to share
    np.testing.assert_allclose(shared.reshape(6, 2), whole[:, 0], rtol=1e-4,
                               atol=1e-5)
    # The control: responses that do not see their prompt.
    batch, ((row, place),) = packing.pack_lists(some[:1], **SHAPE)
    blind = batch.replace(prefix_BT=np.zeros_like(batch.prefix_BT))
    self.assertGreater(np.abs(np.asarray(score(params, blind)[0])[row, place]
                              - shared[0]).max(), 1e-3)

  @parameterized.parameters(*KINDS)
  def test_what_stands_in_the_padding_and_where_it_is(self, kind):
    _, score, params = pieces(kind)
    one = lists(1, texts=texts_of(kind))
    batch, ((row, place),) = packing.pack_lists(one, **SHAPE)
    want = np.asarray(score(params, batch)[0])[row, place]
    for filler in (0, EOS, 65):  # padding that is a stop token, or a label
      spoilt = batch.replace(tokens_BT=np.where(
          batch.segment_BT > 0, batch.tokens_BT, filler).astype(np.int32))
      np.testing.assert_allclose(
          np.asarray(score(params, spoilt)[0])[row, place], want, rtol=1e-5,
          atol=1e-6)
    # Left padding: the same text at the end of its row.
    shift = 32 - int((batch.segment_BT[row] > 0).sum())
    moved = jax.tree.map(lambda x: np.roll(x, shift, axis=1) if (
        x.shape == batch.tokens_BT.shape) else x, batch)
    moved = moved.replace(read_BPC=batch.read_BPC + shift)
    np.testing.assert_allclose(
        np.asarray(score(params, moved)[0])[row, place], want, rtol=1e-4,
        atol=1e-5)

  def test_two_sides_that_differ_get_two_scores(self):
    # The complaint: the wrong position is read, and both sides are alike.
    _, score, params = pieces('head')
    score_NCJ = reward.score_all(score, params, lists(9), **SHAPE)
    self.assertGreater(np.abs(score_NCJ[:, 0] - score_NCJ[:, 1]).min(), 1e-3)

  def test_negative_control_the_end_by_token_id(self):
    # Where a stop token is the padding, the last other token is not the end.
    one = ComparedTexts((np.array([5, 7, EOS], np.int32),), (0,))
    batch, _ = packing.pack_lists([one], **SHAPE | dict(num_candidates=1))
    padded_BT = np.where(batch.segment_BT > 0, batch.tokens_BT, EOS)
    self.assertEqual(batch.read_BPC[0, 0, 0], 2)
    self.assertEqual(np.flatnonzero(padded_BT[0] != EOS)[-1], 1)

  def test_missing_candidates_are_nan(self):
    _, score, params = pieces('head')
    one = ComparedTexts(lists(1)[0].texts[:1], (0,))
    score_NCJ = reward.score_all(score, params, [*lists(1), one], **SHAPE)
    np.testing.assert_array_equal(
        np.isnan(score_NCJ[..., 0]), [[False, False], [False, True]])

  def test_any_number_of_lists_fits_and_nothing_compiles_again(self):
    _, _, params = pieces('head')
    score = reward.make_score_fn(pieces('head')[0])
    with metrics.CompilationCounter() as counter:
      for count in (0, 1, 7, 40):
        found = reward.score_all(score, params, lists(count, count), **SHAPE)
        self.assertLen(found, count)
    self.assertEqual(counter.counts['score_lists'], 1)

  def test_labels_are_log_probabilities_where_the_text_ends(self):
    model, params = toys.model_and_params('tiny', num_layers=1)
    some = lists(2, texts=1)
    found = reward.score_all(pieces('label')[1], params, some, **SHAPE)
    apply = jax.jit(
        lambda p, *rows: model.apply({'params': p}, *rows).logits_BTV)
    for one, score_CJ in zip(some, found, strict=True):
      tokens_BT = one.texts[0][None]
      ones_BT = np.ones_like(tokens_BT)
      position_BT = np.arange(tokens_BT.size, dtype=np.int32)[None]
      logits_BTV = apply(params, tokens_BT, position_BT, ones_BT)
      want_V = jax.nn.log_softmax(logits_BTV[0, -1])
      np.testing.assert_allclose(score_CJ[:, 0], want_V[np.array(LABELS)],
                                 rtol=1e-4, atol=1e-5)

  def test_heads(self):
    score_NCJ = np.array([[[1.0, 3.0], [2.0, 2.0]]])
    np.testing.assert_allclose(reward.reduce_heads(score_NCJ), [[2.0, 2.0]])
    np.testing.assert_allclose(reward.reduce_heads(score_NCJ, 'min'),
                               [[1.0, 2.0]])
    np.testing.assert_allclose(reward.reduce_heads(score_NCJ, 'lower', 0.5),
                               [[1.5, 2.0]])
    with self.assertRaisesRegex(ValueError, "got 'max'"):
      reward.reduce_heads(score_NCJ, 'max')


class LossTest(parameterized.TestCase):

  def test_a_judge_learns_from_the_place_before_the_label(self):
    # The official code once read the logits at the label: then the answer's own
    # embedding decides the loss.
    forward, _, params = pieces('label')
    text = lists(1, texts=1)[0].texts[0]
    loss_fn = jax.jit(reward.compose(
        forward, losses.get('reward', 'gram', wrong_label_mass=0.1).loss))

    def of(label, read):
      batch, _ = packing.pack_lists([ComparedTexts(
          (np.append(text, label).astype(np.int32),), (0, 1))], **SHAPE)
      batch = batch.replace(read_BPC=np.where(
          batch.rank_BPC >= 0, len(text) - 1 + read, 0).astype(np.int32))
      return float(loss_fn(params, batch, None)[0])

    self.assertAlmostEqual(of(65, 0), of(66, 0), places=6)
    self.assertAlmostEqual(of(65, 0), of(200, 0), places=6)
    self.assertGreater(abs(of(65, 1) - of(66, 1)), 1e-3)  # the old bug

  @parameterized.parameters(*KINDS)
  def test_the_gradient_does_not_depend_on_micro_batches(self, kind):
    forward, _, params = pieces(kind)
    name = 'gram' if kind == 'label' else 'bradley_terry'
    loss_fn = reward.compose(forward, losses.get('reward', name).loss)
    batch, _ = packing.pack_lists(lists(6, texts=texts_of(kind)), **SHAPE,
                                  num_microbatches=4)
    optimizer = optax.sgd(0.1)
    after = []
    for parts in (1, 4):
      state = TrainState(step=jnp.zeros((), jnp.int32),
                         params=jax.tree.map(jnp.copy, params),
                         opt_state=optimizer.init(params))
      state, metrics = updates.make_update_fn(
          loss_fn, optimizer, num_microbatches=parts)(
              state, batch, jax.random.key(0))
      after.append((state.params, metrics['loss'], metrics['accuracy']))
    toys.assert_trees_close(after[1], after[0], rtol=1e-4, atol=2e-5)
    self.assertGreater(
        toys.largest_difference(after[0][0], params), 1e-5)

  @parameterized.parameters(*KINDS)
  def test_eight_devices_take_the_same_step(self, kind):
    forward, _, params = pieces(kind)
    name = 'gram' if kind == 'label' else 'bradley_terry'
    loss = reward.compose(forward, losses.get('reward', name).loss,
                          balance_coef=0.2)
    model, _ = toys.model_and_params('tiny', num_layers=1)
    if kind == 'head':
      model = models.RewardModel(model.config, 2)
    some = lists(6, texts=texts_of(kind))
    alone, _ = packing.pack_lists(some, **SHAPE | dict(
        num_rows=6, lists_per_row=1))
    packed, _ = packing.pack_lists(some, **SHAPE | dict(num_rows=8),
                                   num_microbatches=2)
    load_LE = np.full((1, 4), 1 / 4, np.float32)
    with_load = lambda batch: batch.replace(load_BLE=np.broadcast_to(
        load_LE, (len(batch.tokens_BT), *load_LE.shape)))
    step = steps.Step(model, params, None)
    want, want_metrics = steps.sgd_step(step, with_load(alone), loss=loss)
    got, found = mesh_test.on_mesh(
        step, with_load(packed), loss,
        sharding.make_mesh(data=2, context=2, expert=2), num_microbatches=2)
    toys.assert_trees_close(got, want, atol=2e-5, rtol=0)
    np.testing.assert_allclose(found['loss'], want_metrics['loss'], rtol=1e-5)
    self.assertGreater(toys.largest_difference(want, params), 1e-3)

  def test_an_ensemble_is_trained_as_its_heads_alone_on_a_fixed_trunk(self):
    forward, _, params = pieces('head')
    batch, _ = packing.pack_lists(lists(4), **SHAPE)
    loss = losses.get('reward', 'bradley_terry').loss
    slope = lambda forward: jax.jit(jax.grad(lambda p: reward.compose(
        forward, loss)(p, batch, None)[0]))
    whole = slope(forward)(params)[models.HEAD]['kernel']
    model, _ = toys.model_and_params('tiny', num_layers=1)
    single = slope(reward.make_head_forward(models.RewardModel(model.config)))
    for j in range(2):
      alone = {**params, models.HEAD: {
          'kernel': params[models.HEAD]['kernel'][:, j:j + 1]}}
      grad_DJ = single(alone)[models.HEAD]['kernel']
      np.testing.assert_allclose(whole[:, j], grad_DJ[:, 0] / 2, rtol=1e-4,
                                 atol=1e-6)


if __name__ == '__main__':
  absltest.main()
