"""Vision towers of published checkpoints, against the program that made them.

Parity needs torch and is skipped without; the rest writes its own files.
"""
import contextlib
import io
import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from rljax import sharding
from rljax.interop import tensor_files
from rljax.interop import vision as towers
from rljax.models import vision
from tests.interop import published

SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2,
             num_attention_heads=4, image_size=16, patch_size=4)
TEXT = dict(vocab_size=50, hidden_size=32, intermediate_size=48,
            num_hidden_layers=1, num_attention_heads=4, bos_token_id=0,
            eos_token_id=1)
# Case -> class of the model, of the configuration, further settings.
CASES = {
    'clip': ('CLIPVisionModel', 'CLIPVisionConfig', SIZES),
    'clip_projected': ('CLIPVisionModelWithProjection', 'CLIPVisionConfig',
                       SIZES | dict(projection_dim=24)),
    'clip_gelu': ('CLIPVisionModel', 'CLIPVisionConfig',
                  SIZES | dict(hidden_act='gelu')),
    'clip_whole': ('CLIPModel', 'CLIPConfig', dict(
        vision_config=SIZES, text_config=TEXT, projection_dim=24)),
    'siglip': ('SiglipVisionModel', 'SiglipVisionConfig', SIZES),
    'siglip_whole': ('SiglipModel', 'SiglipConfig', dict(
        vision_config=SIZES, text_config=TEXT)),
}


def one_device():
  return sharding.make_mesh(devices=jax.devices()[:1])


def write(case, folder):
  """A model of `transformers` with decisive weights, and its checkpoint."""
  torch, transformers = published.libraries()
  kind, config, fields = CASES[case]
  model = getattr(transformers, kind)(getattr(transformers, config)(
      **fields)).float().eval()
  generator = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for name, value in model.named_parameters():
      noise = torch.randn(value.shape, generator=generator)
      is_norm = ('norm' in name or 'layrnorm' in name) and 'weight' in name
      value.copy_(1 + 0.2 * noise if is_norm else 0.3 * noise)
  with contextlib.redirect_stderr(io.StringIO()):
    model.save_pretrained(folder)
  return model


def pixels(config, rows=3):
  shape = rows, config.image_size, config.image_size, config.num_channels
  return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


class ParityTest(parameterized.TestCase):

  @parameterized.parameters(*CASES)
  def test_equals_transformers(self, case):
    torch, _ = published.libraries()
    with tempfile.TemporaryDirectory() as folder:
      theirs = write(case, folder)
      model, params = towers.load(folder, one_device())
    image_BYWU = pixels(model.config)
    ours = model.apply({'params': params}, image_BYWU)
    seen = np.asarray(vision._normalised(image_BYWU, model.config))
    whole = case.endswith('whole')
    with torch.no_grad():
      tower = theirs.vision_model if whole else theirs
      found = tower(torch.from_numpy(seen.transpose(0, 3, 1, 2).copy()))
      if case == 'clip_projected':
        pooled = found.image_embeds
      elif case == 'clip_whole':
        pooled = theirs.visual_projection(found.pooler_output)
      else:
        pooled = found.pooler_output
    tokens = found.last_hidden_state.numpy()
    tokens = tokens[:, int(model.config.class_token):]
    np.testing.assert_allclose(ours.token_BMD, tokens, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(ours.pooled_BD, pooled.numpy(), rtol=2e-4,
                               atol=2e-4)


def own_checkpoint(folder, kind='siglip_vision_model', *, drop=(), more=None,
                   prefix='', **changed):
  """Config and random tensors of a tower, without any other library."""
  folder = pathlib.Path(folder)
  config = dict(SIZES, model_type=kind, num_channels=3) | changed
  (folder / 'config.json').write_text(json.dumps(config))
  fields = dict(
      model_dim=32, num_heads=4, mlp_dim=48, num_layers=2, image_size=16,
      patch_size=4, num_channels=3, **towers.FAMILIES[kind].implied)
  fields = towers.vision_variants.VisionConfig(**fields)
  none = type('None', (), {'shapes': lambda self: {}})()
  shapes = {prefix + name: tensor.shape for name, tensor in
            towers._tensors(kind, fields, none).items() if name not in drop}
  shapes |= more or {}
  rng = np.random.default_rng(1)
  values = {name: rng.normal(size=shape).astype(np.float32)
            for name, shape in shapes.items()}
  with tensor_files.Writer(folder, shapes, 'float32', 1 << 20) as writer:
    for value in values.values():
      writer.write(value)
  return values


class LoadTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = self.enter_context(tempfile.TemporaryDirectory())

  @parameterized.parameters('', 'vision_model.')
  def test_tensors_go_to_their_leaves(self, prefix):
    values = own_checkpoint(self.folder, prefix=prefix)
    model, params = towers.load(self.folder, one_device())
    self.assertEqual(model.config.pool, 'attention')
    get = lambda name: values[prefix + name]
    np.testing.assert_array_equal(  # [d, u, i, j] -> [i, j, u, d]
        params['embedding']['patch'],
        get('embeddings.patch_embedding.weight').transpose(2, 3, 1, 0))
    query = get('encoder.layers.1.self_attn.q_proj.weight')
    np.testing.assert_array_equal(
        params['layers']['attention']['query'][1], query.T.reshape(32, 4, 8))
    fused = get('head.attention.in_proj_weight')
    np.testing.assert_array_equal(
        params['probe']['attention']['value'], fused[64:].T.reshape(32, 4, 8))
    np.testing.assert_array_equal(params['probe']['query'],
                                  get('head.probe')[0, 0])

  def test_a_mesh_gets_its_shards(self):
    own_checkpoint(self.folder)
    mesh = sharding.make_mesh(fsdp=2, tensor=2, devices=jax.devices()[:4])
    _, params = towers.load(self.folder, mesh)
    _, whole = towers.load(self.folder, one_device())
    kernel = params['layers']['mlp']['up']
    self.assertEqual(kernel.addressable_shards[0].data.shape, (2, 16, 24))
    jax.tree.map(np.testing.assert_array_equal, params, whole)

  def test_the_image_processor_says_how_to_normalise(self):
    own_checkpoint(self.folder)
    pathlib.Path(self.folder, 'preprocessor_config.json').write_text(json.dumps(
        dict(image_mean=[0.1, 0.2, 0.3], image_std=[1, 1, 2])))
    model, _ = towers.load(self.folder, one_device())
    self.assertEqual(model.config.image_mean, (0.1, 0.2, 0.3))
    self.assertEqual(model.config.image_std, (1.0, 1.0, 2.0))
    pathlib.Path(self.folder, 'preprocessor_config.json').write_text('{}')
    with self.assertRaisesRegex(ValueError, 'image_mean.*Fetch'):
      towers.load(self.folder, one_device())

  def test_integer_tables_and_the_text_side_are_left_in_the_file(self):
    own_checkpoint(self.folder, 'clip_vision_model', prefix='vision_model.',
                   more={'text_model.embeddings.token_embedding.weight': (5, 4),
                         'vision_model.embeddings.position_ids': (1, 17),
                         'logit_scale': (1,)})
    model, _ = towers.load(self.folder, one_device())
    self.assertEqual(model.config.pool, 'class')

  @parameterized.parameters(
      (dict(drop=('post_layernorm.bias',)), 'no post_layernorm.bias'),
      (dict(more={'extra.weight': (2,)}), 'extra.weight, which'),
      (dict(num_hidden_layers=1), 'layers.1.*which the settings do not'),
      (dict(hidden_act='relu'), "'hidden_act' is 'relu'"),
      (dict(window=7), "unknown setting 'window'"),
      (dict(vision_use_head=False), "'vision_use_head' is False"),
      (dict(model_type='dinov2'), "got 'dinov2'"))
  def test_another_model_is_refused_by_name(self, changes, message):
    own_checkpoint(self.folder, **changes)
    with self.assertRaisesRegex(ValueError, message):
      towers.load(self.folder, one_device())


if __name__ == '__main__':
  absltest.main()
