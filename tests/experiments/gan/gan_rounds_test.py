"""Over rounds, a generator comes nearer to its targets and stays diverse."""
import dataclasses

from absl.testing import absltest
import jax
import numpy as np

from experiments.gan import gan_rounds
from rljax.data import images
from rljax.evaluation import image_rewards
from tests import configs_test


def toy_config():
  config = configs_test.module('configs/gan/gan_rm_digits.py').get_config(
      'smoke')
  config.data.update(size=2, margin=0)
  config.encoder.patch_size = 1
  config.generator.update(num_steps=400, batch_size=128, sample_steps=12)
  config.generator.optimizer.schedule.decay_steps = 400
  config.reward.num_steps = 100
  config.bootstrap.update(num_outputs=200, num_chosen=16)
  config.pool.update(num_prompts=100, samples_per_prompt=4)
  # Harder tuning reaches the targets in one round, and then collapses.
  config.tune.update(num_steps=30, batch_size=128)
  config.tune.optimizer.learning_rate = 1e-3
  return config


def brightness(mean, deviation, count, seed):
  """Images of 2 x 2 pixels that differ in their brightness."""
  rng = np.random.default_rng(seed)
  level_R = rng.normal(mean, deviation, (count, 1, 1, 1))
  noise_RYWU = 0.05 * rng.normal(size=(count, 2, 2, 1))
  return images.ImageSet(
      'toy', np.clip(level_R + noise_RYWU, -1, 1).astype(np.float32),
      np.zeros(count, np.int32), ('one',))


class RoundsTest(absltest.TestCase):

  def test_distance_and_accuracy_fall_and_diversity_stays(self):
    config = toy_config()
    pieces = gan_rounds.build(config, 1)
    pieces = dataclasses.replace(
        pieces, encode=lambda x: jax.numpy.reshape(x, (len(x), -1)))
    wide, targets, held_out = (brightness(0.0, 0.4, 400, 0),
                               brightness(0.4, 0.15, 200, 1),
                               brightness(0.4, 0.15, 200, 2))
    state, _ = pieces.pretrain(
        pieces.start(jax.random.key(0)),
        dict(image_RGYWU=wide.pixels_RYWU[:, None], class_R=wide.class_R,
             weight_R=np.ones(400, np.float32)), jax.random.key(1))
    params, seen = state.params, []
    flat = lambda image_RYWU: image_RYWU.reshape(len(image_RYWU), -1)
    for number in range(3):
      found = gan_rounds.play(pieces, config, number, targets, params,
                              jax.random.fold_in(jax.random.key(2), number))
      fresh = np.asarray(pieces.sample(params, np.zeros(200, np.int32),
                                       jax.random.key(3)))
      score = lambda x: gan_rounds.score_images(
          pieces, found.reward, x, np.zeros(len(x), np.int32))
      seen.append((
          image_rewards.frechet_distance(flat(fresh),
                                         flat(held_out.pixels_RYWU)),
          image_rewards.accuracy(score(held_out.pixels_RYWU), score(fresh)),
          image_rewards.diversity(flat(fresh))))
      params = found.params
    distance, accuracy, diversity = map(np.array, zip(*seen, strict=True))
    self.assertTrue(np.all(np.diff(distance) < 0), seen)
    self.assertLess(distance[-1], 0.5 * distance[0], seen)
    self.assertLess(accuracy[-1], accuracy[0] - 0.05, seen)
    of_targets = image_rewards.diversity(flat(held_out.pixels_RYWU))
    self.assertGreater(diversity.min(), 0.5 * of_targets, seen)


if __name__ == '__main__':
  absltest.main()
