"""Ling-lite and Ring-lite against NumPy, from the published description."""
import functools
import json
import pathlib
import tempfile
import types

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
from safetensors import numpy as safetensors

from rljax.interop import convert
from rljax.models import transformer
from rljax.models import variants
from rljax.rollout import sampler
from tests.interop import published
from tests.models import reference

# config.json of Ling-lite, smaller; four queries to a key, two shared experts.
SETTINGS = {
    'architectures': ['BailingMoeForCausalLM'], 'attention_dropout': 0.1,
    'auto_map': {'AutoConfig': 'configuration_bailing_moe.BailingMoeConfig'},
    'eos_token_id': 90, 'pad_token_id': 90, 'first_k_dense_replace': 0,
    'hidden_act': 'silu', 'hidden_size': 32, 'initializer_range': 0.006,
    'intermediate_size': 99, 'max_position_embeddings': 64,
    'model_type': 'bailing_moe', 'moe_intermediate_size': 24,
    'num_experts': 8, 'num_shared_experts': 2, 'norm_topk_prob': True,
    'num_attention_heads': 4, 'num_experts_per_tok': 3,
    'num_hidden_layers': 2, 'num_key_value_heads': 1, 'pretraining_tp': 1,
    'rms_norm_eps': 1e-5, 'rope_scaling': None, 'rope_theta': 600000,
    'tie_word_embeddings': False, 'torch_dtype': 'float32',
    'transformers_version': '4.36.0', 'use_cache': True, 'use_bias': False,
    'use_qkv_bias': False, 'vocab_size': 96, 'output_router_logits': False,
    'embedding_dropout': 0.1, 'norm_head': True, 'norm_softmax': False,
    'output_dropout': 0.1}
# What the reference wants to know, by hand.
FACTS = types.SimpleNamespace(
    vocab_size=96, num_layers=2, num_heads=4, num_kv_heads=1, head_dim=8,
    top_k=3, num_shared_experts=2, norm_head=True, norm_eps=1e-5, yarn=None,
    rope_theta=600000.0)


def random_tensors(seed=0):
  """Weights under the released names, [out, in]."""
  rng = np.random.default_rng(seed)
  width, expert = 32, 24
  matrix = lambda *shape: rng.normal(size=shape) * 1.5 * shape[-1] ** -0.5
  norm = lambda: 1 + 0.2 * rng.normal(size=width)
  out = {'model.word_embeddings': rng.normal(size=(96, width)),
         'model.norm': 3 * norm(),
         # Unequal columns, so that what is normalised shows.
         'lm_head': matrix(96, width) * np.exp(rng.normal(size=width))}
  for layer in range(2):
    at = f'model.layers.{layer}.'
    out |= {at + 'input_layernorm': norm(),
            at + 'post_attention_layernorm': norm(),
            at + 'attention.query_key_value': matrix((4 + 1 + 1) * 8, width),
            at + 'attention.dense': matrix(width, 32),
            at + 'mlp.gate': matrix(8, width)}
    mlps = {f'experts.{e}': expert for e in range(8)} | {
        'shared_experts': 2 * expert}
    for name, hidden in mlps.items():
      at_mlp = f'{at}mlp.{name}.'
      out |= {at_mlp + 'gate_proj': matrix(hidden, width),
              at_mlp + 'up_proj': matrix(hidden, width),
              at_mlp + 'down_proj': matrix(width, hidden)}
  return {name: x.astype(np.float32) for name, x in out.items()}


def write(folder, tensors, **settings):
  folder.mkdir(exist_ok=True)
  safetensors.save_file({f'{name}.weight': np.ascontiguousarray(x)
                         for name, x in tensors.items()},
                        folder / 'model.safetensors')
  (folder / 'config.json').write_text(json.dumps(SETTINGS | settings))


class BailingTest(parameterized.TestCase):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(cls.enterClassContext(
        tempfile.TemporaryDirectory()))
    cls.tensors = random_tensors()
    write(cls.folder / 'in', cls.tensors)
    cls.model, cls.params = published.load(cls.folder / 'in')
    cls.rows = published.tokens()
    run = jax.jit(lambda params, *rows: cls.model.apply(
        {'params': params}, *rows).logits_BTV)
    cls.logits_BTV = np.asarray(run(cls.params, *cls.rows))

  def difference(self, tensors=None, facts=None, **switches):
    """Largest difference of the logits, ours to the reference's."""
    facts = types.SimpleNamespace(**(vars(FACTS) | (facts or {})))
    tensors = {name: np.asarray(x, np.float64)
               for name, x in (tensors or self.tensors).items()}
    want_BTV = reference.logits(tensors, facts, *self.rows, **switches)
    return np.max(np.abs(self.logits_BTV - want_BTV))

  def test_logits_equal(self):
    self.assertGreater(np.std(self.logits_BTV), 0.1)
    self.assertLess(self.difference(), 1e-4)

  def test_greedy_tokens_equal(self):
    sample = sampler.make_sampler(
        self.model, num_slots=1, max_prompt_length=8, max_new_tokens=10,
        decode_steps=10)
    text = list(self.rows[0][0, :8])
    ours = sample(self.params, [np.array(text)], jax.random.key(0),
                  samples_per_prompt=1, temperature=0.0)
    tensors = {name: np.asarray(x, np.float64)
               for name, x in self.tensors.items()}
    for _ in range(10):
      rows = (np.array([text]), np.arange(len(text))[None],
              np.ones((1, len(text)), int))
      text.append(int(np.argmax(
          reference.logits(tensors, FACTS, *rows)[0, -1])))
    self.assertEqual(ours.tokens_PGT[0, 0].tolist(), text[8:])

  def test_export_gives_the_tensors_back(self):
    convert.save(self.folder / 'out', 'bailing_moe', self.model.config,
                 self.params)
    again = safetensors.load_file(self.folder / 'out/model.safetensors')
    self.assertEqual(set(again), {f'{name}.weight' for name in self.tensors})
    for name, value in self.tensors.items():  # the head as it is, not divided
      np.testing.assert_array_equal(again[f'{name}.weight'], value, name)

  @parameterized.named_parameters(
      ('norm_over_the_other_axis_of_the_head', dict(head_axis=1)),
      ('gates_that_are_not_renormalised', dict(renormalise=False)),
      ('the_head_as_it_is', dict(facts=dict(norm_head=False))),
      ('another_epsilon', dict(facts=dict(norm_eps=1e-2))),
      ('another_base', dict(facts=dict(rope_theta=10_000.0))),
      ('no_shared_experts', dict(facts=dict(num_shared_experts=0))),
      ('fewer_experts', dict(facts=dict(top_k=2))))
  def test_trap(self, switches):
    self.assertGreater(self.difference(**switches), 0.02)

  @parameterized.named_parameters(
      ('keys_before_queries', lambda x: np.roll(x, 8, axis=0)),
      ('values_before_keys', lambda x: np.concatenate(
          [x[:32], x[40:], x[32:40]])),
      ('heads_interleaved', lambda x: x.reshape(6, 8, -1).swapaxes(
          0, 1).reshape(48, -1)))
  def test_trap_of_the_fused_tensor(self, change):
    tensors = {name: change(x) if name.endswith('query_key_value') else x
               for name, x in self.tensors.items()}
    self.assertGreater(self.difference(tensors), 0.02)

  def test_trap_of_gate_and_up(self):
    swap = lambda name: (
        name.replace('gate_proj', 'up_proj') if 'gate_proj' in name
        else name.replace('up_proj', 'gate_proj'))
    self.assertGreater(self.difference(
        {name: self.tensors[swap(name)] for name in self.tensors}), 0.02)

  def test_the_released_settings_are_those_of_our_variant(self):
    released = SETTINGS | dict(
        hidden_size=2048, intermediate_size=5632, moe_intermediate_size=1408,
        max_position_embeddings=16384, num_attention_heads=16,
        num_experts=64, num_experts_per_tok=6, num_hidden_layers=28,
        num_key_value_heads=4, vocab_size=126464, rms_norm_eps=1e-6)
    write(self.folder / 'released', {}, **released)
    config = functools.partial(convert.model_config, self.folder / 'released')
    ours = variants.get('ring_lite_16b_a2_75b', yarn=None,
                        max_positions=16_384)
    self.assertEqual(config(dtype='bfloat16', remat='full'), ours)
    total, _ = transformer.count_params(transformer.Transformer(config()))
    self.assertEqual(total, 16_801_974_272)


if __name__ == '__main__':
  absltest.main()
