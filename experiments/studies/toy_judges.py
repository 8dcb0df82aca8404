"""Small models that judge toy comparisons, the runs of many seeds side by side.

The letter `a` is wanted: a response is better that holds more of it. Trees with
_R have an axis in front, of runs: seeds, or seeds at several rates.
"""
from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs import common
from rljax import losses
from rljax import models
from rljax import packing
from rljax import sharding
from rljax.agents import pair_judge
from rljax.data import candidates
from rljax.data import judge_prompts
from rljax.data import tokenizer as tokenizers
from rljax.data import toy_comparisons
from rljax.evaluation import calibration
from rljax.training import forward as forwards
from rljax.training import optimizer as optimizers
from rljax.types import ComparedTexts

ROW = 32             # tokens
MODEL = common.toy_judge()


class Words(tokenizers.ByteTokenizer):
  """The byte tokenizer, with the words of the templates as single tokens."""
  _PIECES = ('Which response to the request is better?\n\n[request]\n',
             'Write two responses to the request.\n\n[request]\n',
             '[response A]\n', '\n[response B]\n', '\n[end]', '\n[better]')
  _FIRST = 263  # ids above those of the roles

  def encode(self, text: str) -> list[int]:
    ids = []
    while text:
      found = [i for i, piece in enumerate(self._PIECES)
               if text.startswith(piece)]
      ids += [self._FIRST + found[0]] if found else super().encode(text[0])
      text = text[len(self._PIECES[found[0]]) if found else 1:]
    return ids


def random_start(seeds):
  """Parameters of a language model for each seed."""
  model = models.create(**MODEL)
  dummy_BT = jnp.zeros((1, 8), jnp.int32)
  init = lambda key: sharding.unbox(
      model.init(key, dummy_BT, dummy_BT, dummy_BT)['params'])
  return jax.jit(jax.vmap(init))(stacked([jax.random.key(s) for s in seeds]))


def write_both(sizes, seeds, params_R):
  """Stage 1 for each seed."""
  model, tokenizer = models.create(**MODEL), Words()

  def examples(seed):
    records = toy(sizes.unlabeled, [seed, 0])
    pairs = [judge_prompts.pretraining_example(tokenizer, record, ROW, seed)[0]
             for record in records]
    return packing.pack_examples(*zip(*pairs, strict=True),
                                 num_rows=len(pairs), row_length=ROW)

  loss_fn = forwards.compose(forwards.make_forward(model),
                             losses.get('supervised', 'cross_entropy').loss)
  return train(loss_fn, params_R, stacked([examples(s) for s in seeds]),
               np.full(len(seeds), sizes.stage_1_rate), sizes.stage_1_steps,
               sizes.batch)


def toy(count, seed, **options):
  """Pairs of which the one with more of the letter a is better."""
  return toy_comparisons.records(count, seed=seed, requests='a', **options)


def margins(form, score, params_R, records_R) -> list[np.ndarray]:
  """Of each run, log-odds of the truly better response on its pairs.

  Args:
    form: scores, or judge: asked in both orders, the chances averaged.
    score: (params_R, rows of each run) -> score_RBPC.
    params_R: of the runs.
    records_R: pairs of each run.
  """
  asked = lambda make: np.asarray(score(params_R, stacked(
      [make(records) for records in records_R])))
  if form == 'scores':
    found = asked(lambda records: lists(form, records))
    return [x_ICJ[:, 0, 0, 0] - x_ICJ[:, 0, 1, 0] for x_ICJ in found]
  both = [asked(lambda records, swap=swap: shown(records, swap))[:, :, 0, :, 0]
          for swap in (False, True)]
  pair = pair_judge.Pair('', '', '')
  found = []
  for r, records in enumerate(records_R):
    # Asked for all pairs in one order, and then in the other.
    judge = lambda _, r=r: np.concatenate([both[0][r], both[1][r]])
    found.append(calibration.logit(pair_judge.scores(
        judge, [pair] * len(records))[:, 0]))
  return found


def lists(form, records):
  """A row for each pair, in their order."""
  tokenizer = Words()
  if form == 'scores':
    return in_rows([candidates.texts(tokenizer, record, ROW)[0]
                    for record in records])
  return in_rows([judge_prompts.comparison(tokenizer, record, ROW, 0)[0]
                  for record in records])


def shown(records, swap: bool):
  """A row for each pair, the better one shown first, or second."""
  tokenizer = Words()

  def text(record):
    pair = record['chosen'], record['rejected']
    return judge_prompts.prompt_tokens(
        tokenizer, record['prompt'], *(pair[::-1] if swap else pair), ROW)[0]
  return in_rows([ComparedTexts((text(record),), (0, 1))
                  for record in records])


def in_rows(texts, row_length: int = ROW, num_candidates: int = 2):
  """A row for each list, in their order."""
  batch, place_N2 = packing.pack_lists(
      texts, num_rows=len(texts), row_length=row_length, lists_per_row=1,
      num_candidates=num_candidates)
  return jax.tree.map(lambda x: x[place_N2[:, 0]], batch)


def train(loss_fn, params_R, data_R, rate_R, steps: int, batch: int):
  """Parameters of all runs after so many steps of AdamW with a cosine."""
  optimizer = optimizers.make_optimizer(
      'adamw', 1.0, weight_decay=0.0,
      schedule=dict(name='cosine', warmup_steps=10, decay_steps=steps))
  size = data_R.tokens_BT.shape[1]
  rng = np.random.default_rng(0)
  index_SB = np.stack([rng.choice(size, batch, replace=False)
                       for _ in range(steps)])

  def step(carry, index_B):
    params, opt_state, data, rate = carry
    rows = jax.tree.map(lambda x: x[index_B], data)
    grads = jax.grad(lambda p: loss_fn(p, rows, None)[0])(params)
    # Losses are sums by the weights of all of the data.
    grads = jax.tree.map(lambda g: g * (size / batch), grads)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = optax.apply_updates(
        params, jax.tree.map(lambda u: rate * u, updates))
    return (params, opt_state, data, rate), None

  @jax.jit
  @jax.vmap
  def runs(params, data, rate):
    carry = params, optimizer.init(params), data, rate
    return jax.lax.scan(step, carry, index_SB)[0][0]

  return runs(params_R, data_R, jnp.asarray(rate_R, jnp.float32))


def stacked(trees):
  return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def repeated(tree_S, times: int):
  return jax.tree.map(lambda x: jnp.concatenate([x] * times), tree_S)
