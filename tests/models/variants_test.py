from absl.testing import absltest
from absl.testing import parameterized
from flax import linen as nn

from rljax import models
from rljax.models import transformer
from rljax.models import variants


class SizesTest(parameterized.TestCase):

  def test_ring_lite_has_the_published_number_of_parameters(self):
    total, active = transformer.count_params(
        models.create('ring_lite_16b_a2_75b'))
    self.assertEqual(total, 16_801_974_272)
    self.assertEqual(active, 2_753_153_024)

  def test_ring_lite_parts_have_the_published_sizes(self):
    params = nn.meta.unbox(transformer.abstract_params(
        models.create('ring_lite_16b_a2_75b')))
    self.assertEqual(params['embedding']['table'].size, 258_998_272)
    self.assertEqual(params['head']['kernel'].size, 258_998_272)
    layers = params['layers']
    attention = sum(leaf.size for leaf in layers['attention'].values())
    self.assertEqual(attention, 28 * 10_485_760)
    self.assertEqual(layers['moe']['router'].size, 28 * 131_072)
    experts = layers['moe']['gate_up'].size + layers['moe']['down'].size
    self.assertEqual(experts, 28 * 64 * 8_650_752)
    shared = sum(leaf.size for leaf in layers['moe']['shared'].values())
    self.assertEqual(shared, 28 * 2 * 8_650_752)

  def test_tiny_counted_by_hand(self):
    # Embedding and head: 2 · 272 · 32 = 17,408; final norm 32.
    # A layer: query and out 2 · 32·32, key and value 2 · 32·16: 3,072;
    #   norms 64; router 32·4 = 128; experts 4 · 3·32·32 = 12,288;
    #   shared 3·32·32 = 3,072. Sum 18,624.
    # In all 17,408 + 32 + 2 · 18,624 = 54,688; 2 of 4 experts rest: - 12,288.
    self.assertEqual(transformer.count_params(models.create('tiny')),
                     (54_688, 42_400))

  @parameterized.parameters(*variants.VARIANTS)
  def test_every_variant_can_be_built(self, variant):
    model = models.create(variant)
    self.assertEqual(model.config, variants.VARIANTS[variant])
    total, active = transformer.count_params(model)
    self.assertEqual(total > active, model.config.num_experts > 0)

  def test_all_experts_chosen_means_all_parameters_active(self):
    total, active = transformer.count_params(models.create('tiny', top_k=4))
    self.assertEqual(total, active)


class BadInputTest(parameterized.TestCase):

  def test_unknown_variant_lists_the_known_ones(self):
    with self.assertRaisesRegex(ValueError, "'huge'.*tiny.*ring_lite_16b"):
      models.create('huge')

  def test_misspelt_variant_is_suggested(self):
    with self.assertRaisesRegex(ValueError, "mean 'tiny_yarn'"):
      models.create('tiny_yam')

  def test_misspelt_field_is_suggested_and_the_fields_listed(self):
    with self.assertRaisesRegex(ValueError, "'num_layer'.*mean 'num_layers'"):
      models.create('tiny', num_layer=3)

  @parameterized.parameters(
      (dict(num_heads=3), r'num_heads \(3\).*num_kv_heads \(2\)'),
      (dict(head_dim=7), 'head_dim must be even.*7'),
      (dict(top_k=5), r'top_k must lie in 1..num_experts \(4\), got 5'),
      (dict(top_k=0), 'top_k.*got 0'),
      (dict(remat='some'), "none.*full.*dots.*'some'"),
      (dict(moe_dispatch='fast'), "block.*ragged.*dense.*'fast'"),
      (dict(dtype='bloat16'), "dtype.*bfloat16.*'bloat16'"),
      (dict(param_dtype='int8'), "param_dtype.*float32.*'int8'"),
      (dict(num_layers=0), 'num_layers must be.*got 0'),
      (dict(num_layers='4'), "num_layers must be.*got '4'"),
      (dict(yarn={'factor': 4.0}), 'yarn must be None or.*Yarn, got'),
      (dict(query_chunk=-1), 'query_chunk.*got -1'),
  )
  def test_contradictions_are_named_with_what_to_do(self, overrides, message):
    with self.assertRaisesRegex(ValueError, message + '.*Change'):
      models.create('tiny', **overrides)


if __name__ == '__main__':
  absltest.main()
