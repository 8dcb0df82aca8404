import dataclasses
import functools
import json

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from configs import common
from experiments.policy import guided
from rljax import packing
from rljax.losses.policy import guide
from rljax.training import batch as batches
from rljax.training import forward
from rljax.training import guidance
from tests import toys
from tests.experiments import graded as graded_lib

G = 8


def make_config(**options):
  config = common.policy()
  config.rollout = common.rollout(8, 8, 8, samples_per_prompt=G)
  config.loss = dict(name='guide', kl_coef=0.0)
  config.guide.update(dict(mode='replace') | options)
  return config


def records(count):
  return [graded_lib.record(p) | dict(metadata=json.dumps(
      {'hint_prompt': f'Hint: {p}. Say {p}.'})) for p in range(count)]


class Draw:
  """Groups with so many right answers, without and with the hint."""

  def __init__(self, plain, hinted):
    self.right = {f'r{p}': counts
                  for p, counts in enumerate(zip(plain, hinted, strict=True))}
    self.asked = []

  def __call__(self, records, num_samples, part=0):
    self.asked.append((part, [r['prompt'] for r in records], num_samples))
    counts = [self.right[r['id']][part] for r in records]
    made = graded_lib.make([
        [None] * num_samples if n is None else
        [1] * n + [0] * (num_samples - n) for n in counts])
    logp_PGT = np.full_like(made.rollout.logp_PGT, -1.0 - part)
    return dataclasses.replace(made, records=tuple(records), rollout=(
        dataclasses.replace(made.rollout, logp_PGT=logp_PGT,
                            prompts=self.prompts(records))))

  def prompts(self, records):
    return tuple(np.frombuffer(r['prompt'].encode(), np.uint8).astype(np.int32)
                 for r in records)


def run(plain, hinted, **options):
  draw, given = Draw(plain, hinted), records(len(plain))
  kept, unhinted, report = guided.groups(make_config(**options), draw, given)
  return kept, unhinted, guided.rates([report]), draw


def ids(graded):
  return [r['id'] for r in graded.records]


class GroupsTest(parameterized.TestCase):

  def test_truth_table(self):
    # Accuracies 0, 1/8, 1: tried again, kept, dropped. Hinted ones of 0, 3/8,
    # 1: dropped, kept, dropped.
    kept, _, report, draw = run([1, 8, 0, 0, 0], [9, 9, 0, 3, 8])
    self.assertEqual(ids(kept), ['r0', 'r3'])
    np.testing.assert_array_equal(kept.guided_PG[:, 0], [False, True])
    self.assertEqual([part for part, *_ in draw.asked], [0, 1])
    self.assertEqual(draw.asked[1][1][0], 'Hint: 2. Say 2.')
    self.assertEqual(report['hint_trigger_rate'], 0.6)
    self.assertAlmostEqual(report['hint_rescue_rate'], 1 / 3)
    self.assertAlmostEqual(report['hint_all_right'], 1 / 3)
    self.assertAlmostEqual(report['hint_all_wrong'], 1 / 3)

  def test_the_prompt_is_without_and_the_record_with_the_hint(self):
    kept, _, _, draw = run([0], [4])
    np.testing.assert_array_equal(
        kept.rollout.prompts[0], draw.prompts(records(1))[0])
    self.assertTrue((kept.rollout.logp_PGT[kept.rollout.logp_PGT != 0] == -2)
                    .all())
    self.assertEqual(kept.records[0]['prompt'], 'Say 0.')

  def test_training_in_the_hinted_context_on_request(self):
    kept, _, _, draw = run([0], [4], context='hinted')
    np.testing.assert_array_equal(
        kept.rollout.prompts[0],
        draw.prompts([guided.hinted_record(records(1)[0])])[0])
    self.assertFalse(kept.guided_PG.any())

  def test_nothing_failed_means_one_draw(self):
    kept, _, report, draw = run([1, 8], [0, 0])
    self.assertEqual(ids(kept), ['r0'])
    self.assertLen(draw.asked, 1)
    self.assertEqual(report['hint_trigger_rate'], 0)

  def test_nothing_kept_rolls_nothing_again_but_what_failed(self):
    # The authors' code would roll all prompts again, all-right ones too.
    kept, _, _, draw = run([8, 8], [4, 4])
    self.assertEmpty(kept.records)
    self.assertLen(draw.asked, 1)

  def test_every_failed_prompt_is_used_at_odd_counts(self):
    kept, _, _, _ = run([0, 0, 0], [1, 2, 3])
    self.assertEqual(ids(kept), ['r0', 'r1', 'r2'])

  def test_a_threshold_above_zero_gives_one_group_for_a_prompt(self):
    # Accuracy 2/8 is kept and tried again: the hinted group, where it is kept.
    kept, _, _, _ = run([2, 2, 4], [4, 8, 0], threshold=0.3)
    self.assertCountEqual(ids(kept), ['r1', 'r2', 'r0'])
    guided_by_id = dict(zip(ids(kept), kept.guided_PG[:, 0], strict=True))
    self.assertEqual(guided_by_id, dict(r0=True, r1=False, r2=False))

  def test_groups_that_nobody_could_grade_are_neither(self):
    kept, _, report, draw = run([None, 1], [4, 4])
    self.assertEqual(ids(kept), ['r1'])
    self.assertLen(draw.asked, 1)
    self.assertEqual(report['hint_trigger_rate'], 0)

  def test_mixin_marks_samples_by_origin(self):
    kept, _, _, _ = run([0], [3], mode='mixin')
    np.testing.assert_array_equal(
        kept.guided_PG, [[True] * 3 + [False] * 5])
    np.testing.assert_array_equal(kept.correct_PG, kept.guided_PG)
    first = kept.rollout.logp_PGT[0, :, 0]
    np.testing.assert_array_equal(first, [-2] * 3 + [-1] * 5)
    self.assertEqual([r.is_correct for r in kept.results],
                     [True] * 3 + [False] * 5)

  def test_balanced_is_half_and_half_and_never_tries_again(self):
    kept, plain, _, draw = run([0, 4], [4, 0], mode='balanced')
    self.assertEqual([n for *_, n in draw.asked], [4, 4])
    self.assertEqual(kept.valid_PG.shape, (2, 8))
    np.testing.assert_array_equal(
        kept.guided_PG, [[False] * 4 + [True] * 4] * 2)
    np.testing.assert_array_equal(
        kept.correct_PG, [[False] * 4 + [True] * 4, [True] * 4 + [False] * 4])
    self.assertEqual([r.is_correct for r in kept.results[:8]],
                     [False] * 4 + [True] * 4)
    self.assertEqual(plain.valid_PG.shape, (2, 4))

  def test_the_baseline_differs_in_nothing_but_the_hint(self):
    kept, _, report, draw = run([1, 8, 0], [9, 9, 4], mode='filter')
    self.assertEqual(ids(kept), ['r0'])
    self.assertLen(draw.asked, 1)
    changed = {
        key for key, value in make_config(mode='filter').guide.items()
        if make_config().guide[key] != value}
    self.assertEqual(changed, {'mode'})

  def test_a_record_without_a_hint_is_named(self):
    draw = Draw([0], [4])
    with self.assertRaisesRegex(ValueError, "hint_prompt in the record 'r0'"):
      guided.groups(make_config(), draw, [
          graded_lib.record(0) | dict(metadata='{}')])


@functools.cache
def gradient():
  """That of Guide's loss by the parameters of a small model, and these."""
  model, params = toys.model_and_params('tiny_dense', num_layers=1,
                                        tied_head=False, norm_head=False)
  loss = forward.compose(forward.make_forward(model), guide.loss)
  return jax.jit(jax.grad(lambda params, batch: loss(
      params, batch, jax.random.key(0))[0])), params


class HintGradientTest(absltest.TestCase):

  def embedding_gradient(self, **options):
    """On a hinted group, the largest by id of the table."""
    kept, _, _, _ = run([0], [4], **options)
    advantage_R = np.where(kept.correct_PG.ravel(), 1.0, -1.0)
    rows = packing.pack(
        kept.rollout, advantage_R.astype(np.float32), packing.select(
            kept.rollout.length_PG.ravel(), token_budget=64, seed=0),
        num_rows=8, row_length=32, num_microbatches=1, max_response_length=8)
    grad, params = gradient()
    batch = batches.policy_batch(
        rows, guide.token_weights(rows),
        packing.policy_shares(rows.segment_BT),
        lambda *_: (rows.sampled_logp_BT, None, np.ones((1, 1))), params)
    batch, _ = guidance.guided_batch(
        batch, rows, kept.guided_PG.ravel(), kept.recorded_PG.ravel())
    table_VD, = (leaf for path, leaf in jax.tree_util.tree_leaves_with_path(
        grad(params, batch.replace(load_BLE=None)))
                 if 'embed' in jax.tree_util.keystr(path))
    return np.abs(table_VD).max(axis=1)

  def test_no_gradient_reaches_what_stands_in_the_hint_alone(self):
    size_V = self.embedding_gradient()
    np.testing.assert_array_equal(size_V[list(b'Hint:')], 0.0)
    self.assertGreater(size_V[ord('S')], 0)
    # The control: trained where it was sampled, the hint is read.
    hinted_V = self.embedding_gradient(context='hinted')
    self.assertGreater(hinted_V[ord('H')], 0)


class InformativeTest(parameterized.TestCase):

  @parameterized.parameters(
      (0.0, 0.5, 0.0, 0.9922), (0.01, 0.3, 0.0773, 0.8695),
      (0.05, 0.3, 0.3366, 0.6251))
  def test_how_many_groups_a_hint_adds(self, p, q, alone, added):
    # Of success p without and q with the hint, and I(x) = 1 - x^n - (1-x)^n, a
    # prompt gives a group with both answers with probability
    # I(p) + (1-p)^n I(q).
    informative = lambda x: 1 - x**G - (1 - x)**G
    np.testing.assert_allclose(
        (informative(p), (1 - p)**G * informative(q)), (alone, added),
        atol=6e-5)
    rng, count = np.random.default_rng(0), 400
    plain, hinted = (rng.binomial(G, x, count).tolist() for x in (p, q))
    for mode, want in (('filter', alone), ('replace', alone + added)):
      kept, _, _, _ = run(plain, hinted, mode=mode)
      error = np.sqrt(want * (1 - want) / count)
      self.assertLessEqual(
          abs(len(kept.records) / count - want), 4 * error + 1e-4)


class MemoryTest(absltest.TestCase):

  def test_a_buffer_survives_json_and_keeps_its_probabilities(self):
    kept, _, _, _ = run([0, 1], [4, 4])
    logp_PGT = kept.rollout.logp_PGT + np.float32(0.1)  # no round number
    kept = dataclasses.replace(kept, rollout=dataclasses.replace(
        kept.rollout, logp_PGT=logp_PGT))
    memory = guided.Memory(kept, {'r1'})
    other = guided.Memory()
    other.set_state(json.loads(json.dumps(memory.get_state())))
    np.testing.assert_array_equal(other.surplus.rollout.logp_PGT, logp_PGT)
    np.testing.assert_array_equal(other.surplus.guided_PG, kept.guided_PG)
    self.assertTrue(other.surplus.recorded_PG.all())
    self.assertEqual(other.surplus.results, kept.results)
    self.assertEqual(other.surplus.records, kept.records)
    self.assertEqual(other.triggered, {'r1'})
    for a, b in zip(other.surplus.rollout.prompts, kept.rollout.prompts,
                    strict=True):
      np.testing.assert_array_equal(a, b)

  def test_accuracy_on_prompts_that_once_failed(self):
    memory = guided.Memory()
    _, plain, _, _ = run([0, 8], [0, 0])
    self.assertNotIn('once_failed_accuracy',
                     guided.rates([memory.note(plain, 1e-3)]))
    _, plain, _, _ = run([2, 8], [0, 0])
    self.assertEqual(guided.rates([memory.note(plain, 1e-3)]),
                     {'once_failed_accuracy': 0.25})


class RatesTest(absltest.TestCase):

  def test_draws_count_by_their_groups_and_not_alike(self):
    # 1 of 4 failed and was rescued; then 3 of 4, none of them: 1 of 4 rescued.
    # The mean of the draws' own rates would be a half.
    given = records(4)
    reports = [guided.groups(make_config(), Draw(*counts), given)[2]
               for counts in (([0, 1, 1, 1], [4] * 4), ([0, 0, 0, 1], [0] * 4))]
    found = guided.rates(reports)
    self.assertEqual(found['hint_trigger_rate'], 4 / 8)
    self.assertEqual(found['hint_rescue_rate'], 1 / 4)
    self.assertEqual(found['hint_accuracy'], 0.5 / 4)
    self.assertEqual(found['rescued_groups'], 1)
    self.assertEqual(found['hint_tokens'], 4 * G * 4)  # of 4 tokens each

  def test_samples_lost_under_a_hint_are_counted_by_reason(self):
    class Failing(Draw):
      def __call__(self, records, num_samples, part=0):
        made = super().__call__(records, num_samples, part)
        if not part:
          return made
        lost = dataclasses.replace(made.results[-1], reward=None,
                                   status='infra_error')
        valid_PG = made.valid_PG.copy()
        valid_PG[-1, -1] = False
        return dataclasses.replace(
            made, results=made.results[:-1] + (lost,), valid_PG=valid_PG)

    _, _, report = guided.groups(make_config(), Failing([0], [4]), records(1))
    found = guided.rates([report])
    self.assertEqual(found['hint_ungradable'], 1)
    self.assertEqual(found['hint_verdict_infra_error'], 1)
    self.assertEqual(found['hint_verdict_ok'], G - 1)


class CheckTest(parameterized.TestCase):

  @parameterized.parameters(
      (dict(mode='maybe'), "among .*'mixin'.*got 'maybe'"),
      (dict(lower=0.9, upper=0.1), 'guide.lower <= guide.upper'),
      (dict(hint_upper=2.0), 'guide.hint_lower <= guide.hint_upper'),
      (dict(context='none'), "'plain' .*got 'none'"))
  def test_bad_options(self, options, message):
    with self.assertRaisesRegex(ValueError, message):
      guided.check(make_config(**options))

  @parameterized.parameters(
      (dict(loss=dict(name='grpo')), "loss 'guide'.*got 'grpo'"),
      (dict(dynamic_sampling=True), 'dynamic_sampling=False'),
      (dict(correction=dict(name='tis', level='token')), "correction.name"),
      (dict(routing_replay='rollout'), "routing_replay='rollout'"))
  def test_what_excludes_each_other(self, changes, message):
    config = make_config()
    config.loss = changes.pop('loss', config.loss)
    config.update(changes)
    with self.assertRaisesRegex(ValueError, message):
      guided.check(config)

  @parameterized.parameters(
      (dict(mode='off'), {}, "guide.mode.*'filter'.*got 'off'"),
      (dict(mode='filter'), dict(correction=dict(name='tis', level='token')),
       "correction.name.*got 'tis'"),
      (dict(mode='filter'), dict(routing_replay='rollout'),
       "routing_replay.*got 'rollout'"))
  def test_what_a_buffer_would_spoil(self, options, changes, message):
    # The ratio to the policy that sampled would be left out, or taken twice.
    config = make_config(buffer=True, **options)
    config.update(changes)
    with self.assertRaisesRegex(ValueError, message):
      guided.check(config)
    config.guide.buffer = False
    guided.check(config)

  def test_an_odd_group_cannot_be_halved(self):
    config = make_config(mode='balanced')
    config.rollout.samples_per_prompt = 7
    with self.assertRaisesRegex(ValueError, 'even'):
      guided.check(config)

  def test_off_needs_nothing(self):
    guided.check(common.policy())


if __name__ == '__main__':
  absltest.main()
