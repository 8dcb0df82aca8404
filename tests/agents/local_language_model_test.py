"""Our sampler behind the interface of all language models."""
import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from rljax import rollout
from rljax.agents import language_model
from rljax.agents import local_language_model
from rljax.data import tokenizer
from tests import toys

Request = language_model.Request
TOKENIZER = tokenizer.ByteTokenizer()
_SAMPLER = []


def ask(content, **options):
  return Request(({'role': 'user', 'content': content},), **options)


class LocalTest(parameterized.TestCase):

  def model(self):
    """With bytes that end responses, so that lengths are spread."""
    model, params = toys.model_and_params('tiny')
    if not _SAMPLER:
      _SAMPLER.append(rollout.make_sampler(
          model, num_slots=4, max_prompt_length=12, max_new_tokens=24,
          stop_ids=(*range(32, 40), TOKENIZER.eos_id)))
    return _SAMPLER[0], params, local_language_model.make(
        _SAMPLER[0], params, TOKENIZER)

  def test_it_says_what_the_sampler_draws(self):
    sample, params, model = self.model()
    reply, = model([ask('hi', num_samples=4, seed=3, logprobs=True)])
    prompt = TOKENIZER.apply_chat_template(ask('hi').messages, True)
    out = sample(params, [prompt], jax.random.key(3), samples_per_prompt=4)
    self.assertEqual(reply.prompt_tokens, len(prompt))
    self.assertEqual(reply.response_tokens, out.length_PG.sum())
    self.assertLen(set(out.stopped_PG[0]), 2)  # both ways to end occur
    for g, response in enumerate(reply.responses):
      length, stopped = out.length_PG[0, g], out.stopped_PG[0, g]
      self.assertEqual(response.text, TOKENIZER.decode(
          out.tokens_PGT[0, g, :length - stopped]))
      self.assertEqual(response.finish_reason, 'stop' if stopped else 'length')
      np.testing.assert_array_equal(
          np.float32(response.logprobs), out.logp_PGT[0, g, :length])

  def test_a_sample_depends_on_seed_prompt_and_index_alone(self):
    _, _, model = self.model()
    alone, = model([ask('hi', num_samples=2, seed=3)])
    among = model([ask('ho'), ask('hi', num_samples=3, seed=3), ask('hi'),
                   ask('hi', num_samples=2, seed=3), ask('ho', seed=3),
                   ask('hi', num_samples=2, seed=3)])
    self.assertEqual(among[1].responses[:2], alone.responses)
    self.assertEqual([among[3], among[5]], [alone, alone])
    texts = {reply.responses[0].text for reply in among}
    self.assertLen(texts, 4)  # another seed or prompt: another text

  def test_options_reach_the_sampler(self):
    _, _, model = self.model()
    greedy = model([ask('hi', temperature=0.0, num_samples=2, max_tokens=3,
                        logprobs=True)])[0]
    self.assertEqual(greedy.responses[0], greedy.responses[1])
    self.assertEqual(greedy.responses[0].logprobs, (0.0,) * 3)
    narrow = model([ask('hi', top_p=1e-6, num_samples=2, max_tokens=3)])[0]
    self.assertEqual([r.text for r in narrow.responses],
                     [r.text for r in greedy.responses])

  def test_a_stop_string_ends_the_text_and_its_tokens(self):
    _, _, model = self.model()
    request = ask('hi', num_samples=6, logprobs=True)
    whole = model([request])[0].responses
    longest = max((r.text for r in whole), key=len)
    stop = next(c for c in longest[2:] if c.isascii())
    cut = model([dataclasses.replace(request, stop=(stop,))])[0]
    self.assertTrue(any(stop in r.text for r in whole))
    total = 0
    for before, after in zip(whole, cut.responses, strict=True):
      self.assertEqual(after.text, before.text.split(stop)[0])
      if stop in before.text:
        self.assertEqual(after.finish_reason, 'stop')
        self.assertLess(len(after.logprobs), len(before.logprobs))
      total += len(after.logprobs)
      self.assertEqual(after.logprobs, before.logprobs[:len(after.logprobs)])
    self.assertEqual(cut.response_tokens, total)

  def test_the_tokens_of_a_cut_text_end_with_the_stop_string(self):
    tokens_T = np.frombuffer('aé<e>xyz'.encode(), np.uint8)
    text, length, cut = local_language_model._text(
        TOKENIZER, tokens_T, False, ('<e>',))
    # One token per byte: a, two of é, three of the stop string.
    self.assertEqual((text, length, cut), ('aé', 6, True))

  def test_prompts_over_the_limit_are_refused_by_index(self):
    _, _, model = self.model()
    with self.assertRaisesRegex(ValueError, 'at most 12 .*prompt 1') as at:
      model([ask('ok', seed=1), ask('a'), ask('a'), ask('x' * 20)])
    self.assertIn('requests [1, 3]', at.exception.__notes__[0])

  def test_more_tokens_than_the_sampler_has_are_refused(self):
    _, _, model = self.model()
    with self.assertRaisesRegex(ValueError, r'max_new_tokens in 1\.\.24'):
      model([ask('hi', max_tokens=25)])


if __name__ == '__main__':
  absltest.main()
