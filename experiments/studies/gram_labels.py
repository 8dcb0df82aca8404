r"""GRAM against Bradley-Terry where labels are few and some of them wrong.

  python -m experiments.studies.gram_labels --workdir=runs/studies/gram_labels

A response is better that holds the wanted letter more often; one label in ten
is wrong, and there are few. Arms: a Bradley-Terry head, from random parameters
or from those of stage 1; GRAM with and without stage 1 (both responses written,
without labels), and with less, as much and more smoothing than there is noise.
Pairs of longer texts than any in training are out of distribution.

Every arm has the same number of steps and the same rates to choose from, by the
loss on held-out pairs of a seed that is not used again.

Reference: GRAM (arXiv 2506.14175).
"""
from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import pathlib
import pickle
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs import common
from experiments.studies import outcome
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
from rljax.models import reward as reward_nets
from rljax.training import forward as forwards
from rljax.training import optimizer as optimizers
from rljax.training import reward as training
from rljax.types import ComparedTexts

NOISE = 0.1           # of the labels
_MORE = 0.3           # more smoothing than noise
_TUNING_SEED = 100
_ROW = 32             # tokens
MODEL = common.toy_judge()


@dataclasses.dataclass(frozen=True)
class Arm:
  """What is trained on the labels, and from where."""
  form: str                 # scores or judge
  wrong_label_mass: float
  stage_1: bool


ARMS = {
    'bradley-terry': Arm('scores', 0.0, False),
    'bradley-terry after stage 1': Arm('scores', 0.0, True),
    'gram': Arm('judge', NOISE, True),
    'gram without stage 1': Arm('judge', NOISE, False),
    'gram without smoothing': Arm('judge', 0.0, True),
    'gram with more smoothing': Arm('judge', _MORE, True)}


class Sizes(NamedTuple):
  """How much of everything."""
  seeds: Sequence[int] = (0, 1, 2, 3, 4)
  labels: int = 256
  unlabeled: int = 2_048
  held_out: int = 400
  steps: int = 250
  stage_1_steps: int = 300
  batch: int = 32
  rates: Sequence[float] = (1e-3, 3e-3)
  stage_1_rate: float = 3e-3


SMOKE = Sizes((0, 1), 32, 32, 16, 2, 2, 8, (1e-3, 3e-3))


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


def plan(sizes: Sizes) -> outcome.Plan:
  """What is asked, and what is claimed before anything is run."""
  take = lambda name: lambda found: found[name]
  claim = lambda text, metric, than, sign: outcome.Claim(
      text, metric, 'gram', than, sign)
  return outcome.Plan(
      name='gram_labels', seeds=sizes.seeds, arms=ARMS,
      question='With few labels, of which a tenth is wrong: is GRAM more '
               'accurate than Bradley-Terry, what does writing responses '
               'first do for it, and does smoothing by the rate of the noise '
               'calibrate it?',
      metrics={name: take(name) for name in (
          'accuracy', 'accuracy, longer texts', 'nll', 'ece', 'gap',
          'gap on training pairs')},
      claims=[
          claim('GRAM is more accurate', 'accuracy', 'bradley-terry', 1),
          claim('GRAM is more accurate, longer texts',
                'accuracy, longer texts', 'bradley-terry', 1),
          claim('GRAM is more accurate, both after stage 1', 'accuracy',
                'bradley-terry after stage 1', 1),
          claim('stage 1 makes GRAM more accurate', 'accuracy',
                'gram without stage 1', 1),
          claim('stage 1 makes GRAM more accurate, longer texts',
                'accuracy, longer texts', 'gram without stage 1', 1),
          claim('smoothing by the noise lowers the loss', 'nll',
                'gram without smoothing', -1),
          claim('smoothing by the noise lowers the calibration error', 'ece',
                'gram without smoothing', -1),
          claim('more smoothing than noise raises the calibration error', 'ece',
                'gram with more smoothing', -1),
          claim('smoothing narrows the gap', 'gap on training pairs',
                'gram without smoothing', -1),
          claim('more of it narrows the gap further', 'gap on training pairs',
                'gram with more smoothing', 1)],
      notes=f'{sizes.labels} labelled pairs, {sizes.unlabeled} without labels, '
            f'{sizes.steps} steps of {sizes.batch} pairs. Accuracy is against '
            'the truth, loss and calibration error against labels as noisy as '
            'those of training. The gap is the mean |Δ| of the label logits; '
            f'at ε = {NOISE} the loss wants {fitted_gap(NOISE):.2f}, at '
            f'{_MORE} it wants {fitted_gap(_MORE):.2f}, at 0 there is no '
            'bound. Every arm chooses between the same rates.')


def fitted_gap(mass: float) -> float:
  """Where the loss is least."""
  return float(np.log((1 - mass) / mass))


def run(smoke: bool, workdir: str) -> dict:
  """All arms; each is a file in the workdir, and is not run again."""
  sizes = SMOKE if smoke else Sizes()
  begin = time.perf_counter()
  folder = pathlib.Path(workdir).expanduser()
  folder.mkdir(parents=True, exist_ok=True)
  study = plan(sizes)
  seeds = [_TUNING_SEED, *sizes.seeds]
  start = kept(folder / 'start', lambda: random_start(seeds))
  stage_1 = kept(folder / 'stage_1', lambda: write_both(sizes, seeds, start))
  runs, settings = {}, {}
  for name, arm in ARMS.items():
    by_rate = kept(folder / name.replace(' ', '_'), functools.partial(
        one_arm, arm, sizes, seeds, stage_1 if arm.stage_1 else start))
    best = min(sizes.rates, key=lambda rate: by_rate[rate][0]['nll'])
    runs[name] = by_rate[best][1:]
    settings[name] = dict(dataclasses.asdict(arm), learning_rate=best)
  return outcome.results(study, runs, settings) | {
      'seconds': time.perf_counter() - begin}


def kept(path: pathlib.Path, make):
  """What was made before, or now."""
  path = path.with_suffix('.pickle')
  if not path.exists():
    found = jax.tree.map(np.asarray, make())
    temporary = path.with_suffix('.tmp')
    temporary.write_bytes(pickle.dumps(found))
    temporary.rename(path)
  return pickle.loads(path.read_bytes())


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
    pairs = [judge_prompts.pretraining_example(tokenizer, record, _ROW, seed)[0]
             for record in records]
    return packing.pack_examples(*zip(*pairs, strict=True),
                                 num_rows=len(pairs), row_length=_ROW)

  loss_fn = forwards.compose(forwards.make_forward(model),
                             losses.get('supervised', 'cross_entropy').loss)
  return train(loss_fn, params_R, stacked([examples(s) for s in seeds]),
               np.full(len(seeds), sizes.stage_1_rate), sizes.stage_1_steps,
               sizes.batch)


def one_arm(arm, sizes, seeds, params_S) -> dict:
  """rate -> what each seed is found to do; all of them side by side."""
  model, tokenizer = models.create(**MODEL), Words()
  if arm.form == 'scores':
    params_S = jax.vmap(lambda params, key: reward_nets.from_language_model(
        params, 1, key))(params_S, stacked(
            [jax.random.key(seed) for seed in seeds]))
    forward = training.make_head_forward(reward_nets.RewardModel(model.config))
    name = 'bradley_terry'
  else:
    forward = training.make_label_forward(
        model, judge_prompts.label_ids(tokenizer))
    name = 'gram'
  loss_fn = training.compose(forward, losses.get(
      'reward', name, wrong_label_mass=arm.wrong_label_mass).loss)
  labelled = [toy(sizes.labels, [seed, 1], flip=NOISE) for seed in seeds]
  rows = lambda some: stacked([lists(arm, tokenizer, r) for r in some])
  data_S = rows(labelled)
  times = len(sizes.rates)
  params_R = train(
      loss_fn, repeated(params_S, times), repeated(data_S, times),
      np.repeat(sizes.rates, len(seeds)), sizes.steps, sizes.batch)
  tests = [toy(sizes.held_out, [seed, 2]) for seed in seeds]
  longer = [toy(sizes.held_out, [seed, 3], length=9) for seed in seeds]
  score = jax.jit(jax.vmap(lambda p, b: forward(p, b)[0]))
  margin = lambda some: margins(arm, tokenizer, score, params_R, some * times)
  gap_R = np.abs(np.diff(score(params_R, repeated(data_S, times))[
      :, :, 0, :, 0], axis=-1)).mean(axis=(1, 2))
  clean, far = margin(tests), margin(longer)
  found = [measured(clean[r], far[r], gap_R[r], seeds[r % len(seeds)])
           for r in range(len(gap_R))]
  return {rate: found[i * len(seeds):(i + 1) * len(seeds)]
          for i, rate in enumerate(sizes.rates)}


def measured(margin_I, far_I, gap, seed) -> dict[str, float]:
  """Of margins of the truly better response."""
  rng = np.random.default_rng([seed, 4])
  noisy_I = np.where(rng.random(len(margin_I)) < NOISE, -margin_I, margin_I)
  difference_I, better_I = calibration.in_drawn_order(noisy_I, seed)
  return {
      'accuracy': float(np.mean(margin_I > 0)),
      'accuracy, longer texts': float(np.mean(far_I > 0)),
      'nll': float(calibration.nll(difference_I, better_I).mean()),
      'ece': calibration.ece(1 / (1 + np.exp(-difference_I)), better_I),
      'gap': float(np.abs(margin_I).mean()),
      'gap on training pairs': float(gap)}


def margins(arm, tokenizer, score, params_R, records_R) -> list[np.ndarray]:
  """Of each run, log-odds of the truly better response on its pairs."""
  if arm.form == 'scores':
    found = np.asarray(score(params_R, stacked(
        [lists(arm, tokenizer, records) for records in records_R])))
    return [x_ICJ[:, 0, 0, 0] - x_ICJ[:, 0, 1, 0] for x_ICJ in found]
  orders = [stacked([shown(tokenizer, records, swap) for records in records_R])
            for swap in (False, True)]
  both = [np.asarray(score(params_R, order))[:, :, 0, :, 0] for order in orders]
  pair = pair_judge.Pair('', '', '')
  found = []
  for r, records in enumerate(records_R):
    # Asked for all pairs in one order, and then in the other.
    judge = lambda _, r=r: np.concatenate([both[0][r], both[1][r]])
    found.append(calibration.logit(pair_judge.scores(
        judge, [pair] * len(records))[:, 0]))
  return found


def lists(arm, tokenizer, records):
  """A row for each pair, in their order."""
  make = (lambda r: candidates.texts(tokenizer, r, _ROW)[0]) if (
      arm.form == 'scores') else (
          lambda r: judge_prompts.comparison(tokenizer, r, _ROW, 0)[0])
  return in_rows([make(record) for record in records])


def shown(tokenizer, records, swap: bool):
  """A row for each pair, the better one shown first, or second."""
  def text(record):
    pair = record['chosen'], record['rejected']
    return judge_prompts.prompt_tokens(
        tokenizer, record['prompt'], *(pair[::-1] if swap else pair), _ROW)[0]
  return in_rows([ComparedTexts((text(record),), (0, 1))
                  for record in records])


def in_rows(texts, row_length: int = _ROW, num_candidates: int = 2):
  """A row for each list, in their order."""
  batch, place_N2 = packing.pack_lists(
      texts, num_rows=len(texts), row_length=row_length, lists_per_row=1,
      num_candidates=num_candidates)
  return jax.tree.map(lambda x: x[place_N2[:, 0]], batch)


def toy(count, seed, **options):
  """Pairs of which the one with more of the letter a is better."""
  return toy_comparisons.records(count, seed=seed, requests='a', **options)


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


if __name__ == '__main__':
  outcome.main(run)
