"""Adapters in the form of PEFT: names, shapes, and the logits PEFT gets."""
import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax import sharding
from rljax.interop import adapters
from rljax.interop import convert
from rljax.interop import settings
from rljax.interop import tensor_files
from rljax.models import lora
from rljax.models import transformer
from tests import toys
from tests.interop import published

_SIZES = dict(
    vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, intermediate_size=48, max_position_embeddings=64,
    head_dim=16, rms_norm_eps=1e-6, rope_theta=1e4)
_EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24,
                norm_topk_prob=True)
FAMILIES = {
    'llama': _SIZES, 'qwen3': _SIZES, 'qwen3_moe': _SIZES | _EXPERTS,
    'mixtral': _SIZES | dict(num_local_experts=4, num_experts_per_tok=2)}


def adapted(params, seed=3, **options):
  """Adapters with values that matter, on the given base."""
  made = lora.create(params, jax.random.key(1), **(
      dict(rank=3, alpha=6.0) | options))
  rng = np.random.default_rng(seed)
  return made.replace(trained=jax.tree.map(
      lambda x: jnp.asarray(0.2 * rng.normal(size=x.shape), jnp.float32),
      made.trained))


class AdaptersTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def tensors(self, name, file=tensor_files.SINGLE):
    """Tensors of a folder, by name."""
    path = self.folder / name
    (path / file).rename(path / tensor_files.SINGLE)
    source = tensor_files.Folder(path)
    return {key: source.read(key, 0, shape[0])
            for key, shape in source.shapes().items()}

  @parameterized.product(kind=list(FAMILIES), rank_stabilized=(False, True))
  def test_the_product_is_the_change_of_every_tensor(
      self, kind, rank_stabilized):
    _, config = settings.to_config(dict(FAMILIES[kind], model_type=kind))
    params = jax.tree.map(
        lambda x: jnp.asarray(np.random.default_rng(0).normal(size=x.shape),
                              x.dtype), _shapes(config))
    both = adapted(params, rank_stabilized=rank_stabilized)
    convert.save(self.folder / 'base', kind, config, params)
    convert.save(self.folder / 'merged', kind, config, lora.merge(both))
    adapters.save(self.folder / 'adapter', kind, config, both)
    made = json.loads(
        (self.folder / 'adapter/adapter_config.json').read_text())
    self.assertEqual(made['r'], 3)
    found = self.tensors('adapter', 'adapter_model.safetensors')
    before, after = self.tensors('base'), self.tensors('merged')
    changed = {name for name in before if np.any(before[name] != after[name])}
    module = lambda name: f'base_model.model.{name.removesuffix(".weight")}'
    self.assertEqual(set(found), {
        f'{module(name)}.{part}.weight' for name in changed
        for part in ('lora_A', 'lora_B')})
    self.assertLen(changed, {'qwen3_moe': 2 * (4 + 12), 'mixtral': 2 * (4 + 12)
                             }.get(kind, 2 * 7))
    for name in changed:
      a, b = (found[f'{module(name)}.{part}.weight']
              for part in ('lora_A', 'lora_B'))
      self.assertEqual(a.shape, (3, before[name].shape[1]))
      np.testing.assert_allclose(
          made['lora_alpha'] / made['r'] * b @ a, after[name] - before[name],
          atol=1e-5, err_msg=name)
      self.assertIn(name.split('.')[-2], made['target_modules'])

  def test_some_targets(self):
    _, config = settings.to_config(dict(_SIZES, model_type='llama'))
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype),
                          _shapes(config))
    adapters.save(self.folder / 'out', 'llama', config,
                  adapted(params, targets=('query', 'down')), base='a/model')
    made = json.loads((self.folder / 'out/adapter_config.json').read_text())
    self.assertEqual(made['target_modules'], ['down_proj', 'q_proj'])
    self.assertEqual(made['base_model_name_or_path'], 'a/model')

  def test_what_cannot_be_written_is_refused_and_leaves_nothing(self):
    model, params = toys.model_and_params('tiny')
    both = adapted(params)
    for kind, change, message in (
        ('bailing_moe', {}, 'query_key_value.*as one'),
        ('gpt', {}, "family 'gpt'"),
        ('qwen3_moe', dict(whole=('head',)), r"\['head'\] trained in full")):
      with self.assertRaisesRegex(ValueError, message):
        adapters.save(self.folder / 'out', kind, model.config,
                      adapted(params, **change) if change else both)
    self.assertEmpty(list(self.folder.iterdir()))
    (self.folder / 'out').mkdir()
    with self.assertRaisesRegex(ValueError, 'does not exist yet'):
      adapters.save(self.folder / 'out', 'llama', model.config, both)

  @parameterized.parameters(
      ('llama', {}), ('llama', dict(rank_stabilized=True)), ('qwen3', {}),
      ('qwen2', dict(targets=('key', 'out', 'gate_up'))), ('qwen3_moe', {}),
      ('qwen3_moe', dict(rank_stabilized=True)), ('mixtral', {}))
  def test_peft_reads_them_and_computes_the_same(self, case, options):
    published.libraries()
    try:
      import peft
    except ImportError as error:
      raise absltest.SkipTest(
          'peft is not installed; pip install rljax[parity]') from error
    golden = published.write(case, self.folder / 'base')
    model, params = published.load(self.folder / 'base')
    both = adapted(params, **options)
    adapters.save(self.folder / 'adapter', case, model.config, both,
                  base=str(self.folder / 'base'))
    rows = published.tokens()
    plain_BTV = published.logits(golden, rows[0])
    theirs = peft.PeftModel.from_pretrained(golden, self.folder / 'adapter')
    want_BTV = published.logits(theirs.eval(), rows[0])
    got_BTV = model.apply(lora.variables(both), *rows).logits_BTV
    np.testing.assert_allclose(got_BTV, want_BTV, atol=2e-4)
    self.assertGreater(np.abs(want_BTV - plain_BTV).max(), 0.1)


def _shapes(config):
  return sharding.unbox(transformer.abstract_params(
      transformer.Transformer(config)))


if __name__ == '__main__':
  absltest.main()
