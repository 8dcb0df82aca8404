"""transformers on torch: training steps, and greedy decoding.

The expert implementation is the fastest of those that the library has, found
by trying each of them on the job at hand.
"""
import functools
import time

import numpy as np
import serving
import torch
import transformers
from transformers.integrations import moe

_MOST_COPIED = 4e9  # bytes, forward; training holds several layers of them

VERSIONS = dict(transformers=transformers.__version__, torch=torch.__version__)


def load(job):
  """The model of the checkpoint, and the tokens of the job."""
  torch.set_num_threads(job['threads'])
  model = transformers.AutoModelForCausalLM.from_pretrained(
      job['checkpoint'], dtype=torch.float32, attn_implementation='sdpa')
  return model, torch.from_numpy(np.load(job['tokens']).astype(np.int64))


def write_logits(model, tokens_BT, job):
  """Of the first row, for the comparison with everybody else's."""
  with torch.no_grad():
    np.save(job['logits'], model(tokens_BT[:1]).logits.numpy())


def choose_experts(model, do, num_tokens: int) -> str:
  """Sets the fastest implementation for so many tokens at a time.

  `batched_mm` copies the matrices of an expert for each of its tokens, and is
  left out where the copies of one layer exceed `_MOST_COPIED`.

  Returns:
    The name, and those of all that were tried.
  """
  config, seconds = model.config, {}
  if not hasattr(config, 'num_experts'):
    return 'none'
  copied = (4 * 3 * num_tokens * config.num_experts_per_tok
            * config.hidden_size * config.moe_intermediate_size)
  for name in ('eager', *moe.ALL_EXPERTS_FUNCTIONS.valid_keys()):
    if name == 'batched_mm' and copied > _MOST_COPIED:
      continue
    try:
      model.set_experts_implementation(name)
      do()
      begin = time.perf_counter()
      do()
    except (ImportError, NotImplementedError, RuntimeError, ValueError):
      continue  # needs a device or a package that is not here
    seconds[name] = time.perf_counter() - begin
  best = min(seconds, key=seconds.get)
  model.set_experts_implementation(best)
  return f'{best} of {", ".join(sorted(seconds))}'


def train(driver):
  job = driver.job
  model, tokens_BT = load(job)
  write_logits(model, tokens_BT, job)
  model.train()
  optimizer = torch.optim.AdamW(
      model.parameters(), lr=job['learning_rate'], weight_decay=0.0, fused=True)

  def gradients():
    loss = model(input_ids=tokens_BT, labels=tokens_BT, use_cache=False).loss
    loss.backward()
    return loss.item()

  def attempt():
    gradients()
    optimizer.zero_grad(set_to_none=True)

  driver.answer(versions=VERSIONS, experts=choose_experts(
      model, attempt, tokens_BT.numel()))
  while driver.wait():
    loss = gradients()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    driver.answer(loss=loss)


def decode(driver):
  job = driver.job
  model, tokens_BT = load(job)
  write_logits(model, tokens_BT, job)
  model.eval()
  generate = functools.partial(
      model.generate, tokens_BT, attention_mask=torch.ones_like(tokens_BT),
      do_sample=False, pad_token_id=0, eos_token_id=None)

  @torch.inference_mode()
  def run():
    return generate(max_new_tokens=job['new_tokens'])[:, tokens_BT.shape[1]:]

  driver.answer(versions=VERSIONS, experts=choose_experts(
      model, run, tokens_BT.numel()))
  while driver.wait():
    driver.answer(tokens=run().tolist())


def products(driver):
  """A large matrix product, for the rate of the machine."""
  job = driver.job
  torch.set_num_threads(job['threads'])
  a, b = torch.randn(2, job['size'], job['size'])
  driver.answer(versions=VERSIONS)
  while driver.wait():
    torch.matmul(a, b)
    driver.answer()


if __name__ == '__main__':
  serving.serve(dict(train=train, decode=decode, products=products))
