"""The vision encoder: what it sees, what it may not do, other resolutions."""
import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax import sharding
from rljax.models import reward_projection
from rljax.models import vision
from rljax.models import vision_variants

FORMS = {
    'mean': {},
    'class': dict(pool='class', class_token=True, pre_norm=True,
                  patch_bias=False, projection_dim=6,
                  activation='quick_gelu'),
    'attention': dict(pool='attention'),
}


@functools.cache
def create(form='mean'):
  """(model, parameters, images); made once for all tests."""
  config = vision_variants.get('mu', **FORMS[form])
  model = vision.VisionEncoder(config)
  image_BYWU = images(config)
  params = jax.jit(model.init)(jax.random.key(1), image_BYWU)['params']
  return model, sharding.unbox(params), image_BYWU


@functools.cache
def encoder(form='mean'):
  """The compiled model: (params, images) -> Encoded."""
  model, _, _ = create(form)
  return jax.jit(lambda params, x: model.apply({'params': params}, x))


def images(config, rows=3, seed=0):
  shape = rows, config.image_size, config.image_size, config.num_channels
  return jax.random.uniform(jax.random.key(seed), shape, jnp.float32, -1, 1)


class VisionTest(parameterized.TestCase):

  @parameterized.parameters(*FORMS)
  def test_shapes_types_and_that_every_pixel_matters(self, form):
    with jax.numpy_dtype_promotion('strict'):
      model, params, image_BYWU = create(form)
      apply = functools.partial(encoder(form), params)
      found = apply(image_BYWU)
    self.assertEqual(found.token_BMD.shape, (3, 16, 32))
    self.assertEqual(found.pooled_BD.shape, (3, model.config.feature_dim))
    slope = jax.grad(lambda x: jnp.sum(apply(x).pooled_BD[:, 0]))(image_BYWU)
    self.assertGreater(np.abs(slope).min(), 0)

  @parameterized.parameters(*FORMS)
  def test_patches_have_places(self, form):
    _, params, image_BYWU = create(form)
    apply = lambda x: encoder(form)(params, x).pooled_BD
    rolled = jnp.roll(image_BYWU, 2, axis=1)  # whole patches, one row on
    self.assertGreater(np.abs(apply(rolled) - apply(image_BYWU)).max(), 1e-4)
    flat = params | {'embedding': params['embedding'] | {
        'position': jnp.zeros_like(params['embedding']['position'])}}
    blind = lambda x: encoder(form)(flat, x).pooled_BD
    np.testing.assert_allclose(blind(rolled), blind(image_BYWU), rtol=1e-4,
                               atol=1e-5)

  def test_an_image_is_encoded_as_if_alone(self):
    _, params, image_BYWU = create('attention')
    together = encoder('attention')(params, image_BYWU).pooled_BD
    others = image_BYWU.at[jnp.array([0, 2])].set(0.3)
    alone = encoder('attention')(params, others).pooled_BD
    np.testing.assert_allclose(together[1], alone[1], rtol=1e-5, atol=1e-6)

  def test_a_patch_is_the_pixels_of_its_square(self):
    model, params, image_BYWU = create()
    # One pixel of the second patch of the first row: rows 0-1, columns 2-3.
    changed = image_BYWU.at[0, 1, 3, 0].add(0.5)
    embed = jax.jit(lambda x: model.apply(
        {'params': params}, x, capture_intermediates=True,
        mutable=['intermediates'])[1]['intermediates']['embedding'][
            '__call__'][0])
    moved_BMD = np.abs(embed(changed) - embed(image_BYWU))
    self.assertEqual(list(np.flatnonzero(moved_BMD[0].max(-1) > 0)), [1])
    leaves = jax.tree.map(np.asarray, params['embedding'])
    by_hand_D = leaves['position'][1] + leaves['patch_bias'] + sum(
        image_BYWU[0, y, 2 + w, 0] * leaves['patch'][y, w, 0]
        for y in range(2) for w in range(2))
    np.testing.assert_allclose(embed(image_BYWU)[0, 1], by_hand_D, rtol=1e-4,
                               atol=1e-5)

  @parameterized.parameters(
      (dict(patch_size=3), 'multiple of patch_size'),
      (dict(num_heads=5), 'multiple of num_heads'),
      (dict(pool='max'), 'pool among'),
      (dict(activation='relu'), 'activation among'),
      (dict(pool='class'), 'class token'),
      (dict(image_mean=(0.1, 0.2)), 'mean and deviation'),
      (dict(depth=3), "\\['depth'\\]"))
  def test_a_contradiction_is_refused(self, fields, message):
    with self.assertRaisesRegex(ValueError, message):
      vision_variants.get('mu', **fields)

  def test_another_size_is_refused_and_fit_makes_it_right(self):
    model, params, image_BYWU = create()
    large = jnp.repeat(jnp.repeat(image_BYWU, 3, axis=1), 3, axis=2)
    with self.assertRaisesRegex(ValueError, 'vision.fit'):
      model.apply({'params': params}, large)
    self.assertEqual(vision.fit(large, model.config).shape, image_BYWU.shape)
    colour = vision_variants.get('mu', num_channels=3)
    np.testing.assert_array_equal(
        vision.fit(image_BYWU, colour), jnp.repeat(image_BYWU, 3, axis=-1))
    with self.assertRaisesRegex(ValueError, 'channels'):
      vision.fit(jnp.repeat(image_BYWU, 2, axis=-1), colour)

  def test_pixels_are_normalised_as_the_tower_was_trained(self):
    # (x + 1) / 2 is 0.75 at x = 0.5; (0.75 - 0.25) / 0.5 = 1.
    config = vision_variants.get('mu', image_mean=(0.25,), image_std=(0.5,))
    image_BYWU = jnp.full((1, 8, 8, 1), 0.5)
    np.testing.assert_allclose(vision._normalised(image_BYWU, config), 1.0)


class ResampleTest(parameterized.TestCase):

  @parameterized.parameters(*FORMS)
  def test_an_equal_size_changes_nothing(self, form):
    model, params, _ = create(form)
    same, config = vision.resample(params, model.config, 8)
    self.assertEqual(config, model.config)
    jax.tree.map(np.testing.assert_array_equal, same, params)

  @parameterized.parameters(*FORMS)
  def test_a_larger_grid_is_read_and_keeps_the_class_token(self, form):
    model, params, _ = create(form)
    wide, config = vision.resample(params, model.config, 16)
    larger = vision.VisionEncoder(config)
    found = larger.apply({'params': wide}, images(config))
    self.assertEqual(found.token_BMD.shape, (3, 64, 32))
    first = int(config.class_token)
    np.testing.assert_array_equal(
        wide['embedding']['position'][:first],
        params['embedding']['position'][:first])

  def test_positions_are_stretched_bilinearly(self):
    # A grid whose value is its column, 0 1 2 3, at twice the size: the new
    # centres lie a quarter off, and the ends are held.
    model, params, _ = create()
    table_MD = jnp.tile(jnp.arange(4.0), 4)[:, None] * jnp.ones((1, 32))
    params = params | {'embedding': params['embedding'] | {
        'position': table_MD}}
    wide, _ = vision.resample(params, model.config, 16)
    np.testing.assert_allclose(
        wide['embedding']['position'][:8, 0],
        [0, .25, .75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-6)


class FrozenTest(parameterized.TestCase):

  def test_no_gradient_reaches_the_encoder_or_the_image(self):
    model, params, image_BYWU = create()
    head = reward_projection.RewardProjection((8,))
    feature_BD = vision.make_encode(model, params)(image_BYWU)
    trained = head.init(jax.random.key(0), feature_BD)['params']
    trained = jax.tree.map(jnp.ones_like, trained)

    def score(frozen, image_BYWU):
      encode = vision.make_encode(model, frozen)
      return jnp.sum(head.apply({'params': trained}, encode(image_BYWU)))

    for grads in jax.grad(score, argnums=(0, 1))(params, image_BYWU):
      for leaf in jax.tree.leaves(grads):
        np.testing.assert_array_equal(leaf, 0.0)
    # Without the stop, the same sum would train the encoder.
    loose = jax.grad(lambda p: jnp.sum(model.apply(
        {'params': p}, image_BYWU).pooled_BD[:, 0]))(params)
    self.assertGreater(max(np.abs(x).max() for x in jax.tree.leaves(loose)), 0)

  def test_features_have_entries_of_size_1(self):
    model, params, image_BYWU = create()
    feature_BD = vision.make_encode(model, params)(image_BYWU)
    np.testing.assert_allclose(jnp.mean(feature_BD**2, axis=-1), 1.0, rtol=1e-5)


class RewardProjectionTest(absltest.TestCase):

  def test_starts_at_one_half(self):
    head = reward_projection.RewardProjection()
    feature_BD = jax.random.normal(jax.random.key(0), (4, 6))
    params = head.init(jax.random.key(1), feature_BD)['params']
    np.testing.assert_array_equal(head.apply({'params': params}, feature_BD), 0)

  def test_blind_to_prompts_unless_conditioned(self):
    # The limitation of the paper's reward, and the extension without it.
    feature_BD = jax.random.normal(jax.random.key(0), (4, 6))
    prompts = [jax.random.normal(jax.random.key(i), (4, 5)) for i in (1, 2)]
    scores = {}
    for conditioned in (False, True):
      head = reward_projection.RewardProjection(conditioned=conditioned)
      params = head.init(jax.random.key(3), feature_BD, prompts[0])['params']
      params = jax.tree.map(lambda x: x + 0.1, params)
      scores[conditioned] = [head.apply({'params': params}, feature_BD, p)
                             for p in prompts]
    np.testing.assert_array_equal(*scores[False])
    self.assertGreater(np.abs(np.subtract(*scores[True])).min(), 1e-4)

  def test_a_conditioned_head_asks_for_prompts(self):
    head = reward_projection.RewardProjection(conditioned=True)
    with self.assertRaisesRegex(ValueError, 'conditioned'):
      head.init(jax.random.key(0), jnp.zeros((1, 2)))


if __name__ == '__main__':
  absltest.main()
