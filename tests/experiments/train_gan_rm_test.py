"""Rounds of GAN-RM: what is trained on what, and runs that are stopped."""
import functools
import json
import os
import pathlib
import shutil
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from experiments import train_gan_rm
from experiments.gan import gan_diagnosis
from experiments.gan import gan_images
from experiments.gan import gan_rounds
from experiments.job import launch
from rljax.data import bootstrap
from rljax.data import images
from tests import configs_test


def get_config(**changes):
  config = configs_test.module('configs/gan/gan_rm_digits.py').get_config(
      'smoke')
  for name, value in changes.items():
    place, _, key = name.rpartition('__')
    (config[place] if place else config)[key] = value
  return config


@functools.cache
def trained():
  """(config, pieces, parts, params of G_0) of the smoke config."""
  config = get_config()
  parts = gan_images.open_parts(config, config.seed)
  pieces = gan_rounds.build(config, 10)
  return config, pieces, parts, pieces.start(jax.random.key(0)).params


def play(config=None, params=None, number=0, pieces=None):
  base, made, parts, start = trained()
  return gan_rounds.play(pieces or made, config or base, number, parts.proxies,
                         start if params is None else params,
                         jax.random.key(3))


class PartsTest(absltest.TestCase):

  def test_no_image_is_in_two_parts_and_the_targets_are_whole(self):
    config, _, parts, _ = trained()
    hashes = [set(images.digests(part.pixels_RYWU)) for part in (
        parts.generator, parts.proxies, parts.held_out, parts.rest)]
    self.assertLen(set().union(*hashes), sum(map(len, hashes)))
    self.assertLen(parts.generator, 200)  # 100, whole and degraded
    marked = gan_images.open_parts(
        get_config(data__marked_proxies=1.0, data__marked_share=0.3), 0)
    self.assertEqual(set(marked.proxies.pixels_RYWU[:, 0].ravel()),
                     {gan_images.MARK})
    share = np.mean(marked.generator.pixels_RYWU[:, 0, 0] == gan_images.MARK)
    self.assertAlmostEqual(share, 0.3, delta=0.12)
    np.testing.assert_array_equal(marked.proxies.pixels_RYWU[:, 1:-1, 1:-1],
                                  parts.proxies.pixels_RYWU[:, 1:-1, 1:-1])


class RoundTest(absltest.TestCase):

  def test_every_training_row_has_its_source(self):
    config, _, parts, _ = trained()
    found = play()
    count = lambda source: sum(row['source'] == source
                               for row in found.lineage)
    self.assertEqual([count(x) for x in ('proxy', 'output', 'top', 'bottom')],
                     [40, 40, 8, 8])
    pool = images.digests(found.pool_PGYWU.reshape(-1, 10, 10, 1))
    of = lambda *sources: {row['image'] for row in found.lineage
                           if row['source'] in sources}
    self.assertContainsSubset(of('top', 'bottom'), set(pool))
    self.assertEmpty(of('output', 'proxy') & set(pool))
    self.assertEqual(of('proxy'), set(images.digests(
        parts.proxies.pixels_RYWU)))

  def test_the_reward_of_a_round_is_fit_on_its_own_generator(self):
    _, _, _, params = trained()
    first = play()
    moved = jax.tree.map(lambda x: x + 0.05, params)
    second = play(params=moved, number=1)
    outputs = lambda found: {row['image'] for row in found.lineage
                             if row['source'] == 'output'}
    targets = lambda found: [row['image'] for row in found.lineage
                             if row['source'] == 'proxy']
    self.assertEmpty(outputs(first) & outputs(second))
    self.assertEqual(targets(first), targets(second))

  def test_without_bootstrap_the_second_fit_is_the_first(self):
    config, pieces, parts, params = trained()
    plain = get_config(bootstrap__num_chosen=0)
    found = play(plain)
    self.assertEqual({row['source'] for row in found.lineage},
                     {'proxy', 'output'})
    class_R = np.arange(40, dtype=np.int32) % 10
    outputs = np.asarray(pieces.sample(
        params, np.concatenate([class_R, found.class_P.repeat(4)]),
        jax.random.split(jax.random.key(3), 3)[0]))[:40]
    batch = gan_rounds._batch(
        pieces, [pieces.encode(parts.proxies.pixels_RYWU),
                 pieces.encode(outputs), jnp.zeros((0, 32))],
        [parts.proxies.class_R, class_R, class_R[:0]], np.zeros(0, int), None)
    once, _ = pieces.fit_reward(batch, jax.random.split(
        jax.random.key(3), 3)[1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(
        a, b, rtol=1e-4, atol=1e-6), found.reward, once)
    # With it, the reward is another one.
    other = play().reward
    self.assertGreater(max(jax.tree.leaves(jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), other, once))), 1e-4)

  def test_each_side_has_half_of_the_weight(self):
    _, pieces, parts, _ = trained()
    feature = [pieces.encode(parts.proxies.pixels_RYWU[:n]) for n in (40, 30,
                                                                      20)]
    class_R = [parts.proxies.class_R[:n] for n in (40, 30, 20)]
    for labels in (None, np.array([1, .9, 0, 0])):
      batch = gan_rounds._batch(pieces, feature, class_R,
                                np.array([3, 1, 0, 2]), labels)
      side_R = np.repeat([1, 0, 1, 0], [40, 30, 2, 2])
      for side in (0, 1):
        self.assertAlmostEqual(
            float(batch.weight_B[side_R == side].sum()), 0.5, places=5)
      self.assertEqual(bool(batch.weight_B[-1] > 0), labels is not None)

  def test_cached_features_train_as_fresh_ones_and_the_encoder_stays(self):
    _, pieces, parts, _ = trained()
    image_RYWU = parts.proxies.pixels_RYWU[:8]
    before = np.asarray(pieces.encode(image_RYWU))
    batch = lambda: gan_rounds._batch(
        pieces, [pieces.encode(image_RYWU)] * 2 + [jnp.zeros((0, 32))],
        [parts.proxies.class_R[:8]] * 2 + [np.zeros(0, np.int32)],
        np.zeros(0, int), None)
    cached = batch()
    fits = [pieces.fit_reward(b, jax.random.key(0))[1] for b in (
        cached, cached, batch())]
    self.assertEqual(fits[0]['loss'], fits[1]['loss'])
    self.assertEqual(fits[0]['loss'], fits[2]['loss'])
    np.testing.assert_array_equal(pieces.encode(image_RYWU), before)

  def test_the_score_is_blind_to_prompts_unless_conditioned(self):
    _, _, parts, _ = trained()
    for conditioned in (False, True):
      config = get_config(reward__conditioned=conditioned)
      pieces = gan_rounds.build(config, 10)
      found = play(config, pieces=pieces)
      image_RYWU = parts.held_out.pixels_RYWU[:20]
      scores = [gan_rounds.score_images(pieces, found.reward, image_RYWU,
                                        np.full(20, number))
                for number in (1, 2)]
      self.assertEqual(np.array_equal(*scores), not conditioned)

  def test_rows_to_tune_on(self):
    config = get_config().tune
    pool_PGYWU = np.arange(6.0).reshape(2, 3, 1, 1, 1)
    score_PG = np.array([[.1, .9, .5], [.4, .4, .4]])
    take = lambda: gan_rounds.tuning_data(
        get_config(tune=config), pool_PGYWU, np.array([7, 8]), score_PG)
    found = take()
    np.testing.assert_array_equal(found['image_RGYWU'].ravel(), [1, 3])
    np.testing.assert_array_equal(found['weight_R'], [1, 1])
    config.loss = dict(name='dpo', beta=5_000.0)
    found = take()
    self.assertEqual(found['image_RGYWU'].shape, (2, 2, 1, 1, 1))
    np.testing.assert_array_equal(found['image_RGYWU'][0].ravel(), [1, 0])
    np.testing.assert_array_equal(found['weight_R'], [1, 0])

  def test_diffusion_dpo_moves_the_generator(self):
    _, _, _, params = trained()
    config = get_config(tune__loss=dict(name='dpo', beta=10.0))
    found = play(config, pieces=gan_rounds.build(config, 10))
    self.assertGreater(found.metrics['kept'], 0)
    self.assertTrue(np.isfinite(found.metrics['tune_loss']))
    self.assertNotEqual(found.metrics['tune_loss'], np.log(2))
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()),
                         found.params, params)
    self.assertGreater(max(jax.tree.leaves(moved)), 1e-5)

  def test_a_pool_of_which_nothing_is_kept_leaves_the_generator_alone(self):
    _, _, _, params = trained()
    config = get_config(tune__loss=dict(name='dpo', beta=10.0),
                        tune__min_gap=0.999)
    found = play(config, pieces=gan_rounds.build(config, 10))
    self.assertEqual(found.metrics['kept'], 0)
    jax.tree.map(np.testing.assert_array_equal, found.params, params)


class DriverTest(parameterized.TestCase):

  def run_in(self, folder, config):
    with mock.patch.object(launch, 'say'):
      return train_gan_rm.run(config, str(folder))

  def test_a_stopped_run_ends_as_one_that_was_not(self):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    whole = self.run_in(folder / 'whole', get_config())
    report = json.loads((folder / 'whole' / 'report.json').read_text())
    self.assertLen(report['rounds'], 2)
    self.assertLen(report['shortcuts'], 2 * len(gan_diagnosis.EDITS))
    self.assertTrue((folder / 'whole' / 'plots' / 'round_1.png').exists())
    self.assertTrue((folder / 'whole' / 'reward_models' / '1').exists())
    # Killed behind its first round: the rows of the second are torn.
    shutil.copytree(folder / 'whole', folder / 'cut')
    shutil.rmtree(folder / 'cut' / 'checkpoints' / '4')
    (folder / 'cut' / 'report.json').unlink()
    path = folder / 'cut' / train_gan_rm.LINEAGE
    text = path.read_text()
    path.write_text(text[:-40])
    again = self.run_in(folder / 'cut', get_config())
    self.assertEqual(path.read_text(), text)
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)
    with self.assertRaisesRegex(ValueError, 'num_chosen'):
      self.run_in(folder / 'cut', get_config(bootstrap__num_chosen=4))

  def test_a_kill_while_rows_are_dropped_loses_none(self):
    path = pathlib.Path(self.enter_context(
        tempfile.TemporaryDirectory())) / 'lineage.jsonl'
    text = '{"round": 0}\n{"round": 1}\n'
    path.write_text(text + '{"rou')
    with mock.patch.object(os, 'replace', side_effect=KeyboardInterrupt):
      with self.assertRaises(KeyboardInterrupt):
        train_gan_rm._forget(path, 1)
    self.assertEqual(path.read_text(), text + '{"rou')
    train_gan_rm._forget(path, 1)
    self.assertEqual(path.read_text(), '{"round": 0}\n')

  @parameterized.parameters(
      (dict(bootstrap__num_chosen=41), 'half of the pool of 80'),
      (dict(bootstrap__alpha=-1.0), 'config.bootstrap'),
      (dict(num_rounds=0), 'num_rounds >= 1, got 0.*Raise it'),
      (dict(tune__loss=dict(name='dpo'), pool__samples_per_prompt=1),
       'samples_per_prompt >= 2'))
  def test_what_could_not_be_played_is_refused_at_once(self, change, message):
    with self.assertRaisesRegex(ValueError, message):
      train_gan_rm.check(get_config(**change))

  def test_other_targets_end_the_run(self):
    train_gan_rm.check_targets('a', 'a')
    with self.assertRaisesRegex(ValueError, 'Restore the files'):
      train_gan_rm.check_targets('a', 'b')

  def test_an_alpha_that_turns_positives_is_told(self):
    config = get_config(bootstrap__alpha=0.5)
    folder = self.enter_context(tempfile.TemporaryDirectory())
    with mock.patch.object(launch, 'say') as say:
      train_gan_rm.start(config, folder)
    self.assertIn('positives below 1/2', say.call_args_list[-1].args[0])
    row = dict(round=0, diversity=1.0)
    paid = dict(round=0, edit='frame', flagged=True,
                paid=dict(estimate=0.6, low=0.5, high=0.7))
    found = train_gan_rm.warnings(
        config, [row, row | dict(round=1, diversity=0.2)],
        [paid, paid | dict(edit='blur', flagged=False)])
    self.assertLen(found, 3)
    self.assertEqual(found[0], bootstrap.warning(8, 0.5))
    self.assertIn("Round 0: the edit 'frame'", found[1])
    self.assertIn('is paid 0.60 [0.50, 0.70] of the gap', found[1])
    self.assertIn('Round 1: diversity 0.2', found[2])


if __name__ == '__main__':
  absltest.main()
