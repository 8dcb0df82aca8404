r"""Each reward model, and the verifier, as the reward of a short C3PO run.

  python -m experiments.studies.reward_models \
      --workdir=runs/studies/reward_models

The policy writes a word; the truth is how many of its letters are those that
were asked for, of five, and nothing for a word of any other length. Reward
models learn from few comparisons of words of five letters, one label in ten
wrong: of other lengths they have seen nothing, and a policy can find that out.
GRAM compares with the greedy answer of the policy in training.

Reference: C3PO: Ring-lite (arXiv 2506.14731); GRAM (arXiv 2506.14175); for
over-optimisation arXiv 2210.10760.
"""
from __future__ import annotations

import functools
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.reward import trained_reward
from experiments.studies import gram_labels
from experiments.studies import once
from experiments.studies import outcome
from experiments.studies import toy_judges
from rljax import losses
from rljax import models
from rljax import packing
from rljax import rollout
from rljax.agents import pair_judge
from rljax.data import candidates
from rljax.data import chat
from rljax.data import judge_prompts
from rljax.models import reward as reward_nets
from rljax.ops import advantages
from rljax.training import batch as batches
from rljax.training import forward as forwards
from rljax.training import optimizer as optimizers
from rljax.training import reward as training
from rljax.training import update as updates
from rljax.types import TrainState

ARMS = ('verifier', 'bradley-terry', 'plackett-luce', 'gram')
_WANTED, _LENGTH, _LONGEST = 'a', 5, 12  # letters; tokens of a response
_ROW = 48        # tokens of a row, of policy and reward models
_LISTS_OF = 4    # responses that Plackett-Luce ranks
_RATE, _REWARD_RATE = 1e-3, 1e-3


class Sizes(NamedTuple):
  """How much of everything."""
  seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
  labels: int = 256        # pairs; as many comparisons for lists
  reward_steps: int = 250
  start_steps: int = 200   # of imitation, from which the policy begins
  steps: int = 40          # of C3PO
  prompts: int = 4
  samples: int = 32
  token_budget: int = 512


SMOKE = Sizes((0, 1), 32, 2, 2, 2, 2, 4, 32)


def plan(sizes: Sizes) -> outcome.Plan:
  """What is asked, and what is claimed before anything is run."""
  learnt = [arm for arm in ARMS if arm != 'verifier']
  claim = outcome.Claim
  return outcome.Plan(
      name='reward_models', seeds=sizes.seeds, arms=dict.fromkeys(ARMS),
      question='What does a policy gain from each reward model, what does it '
               'gain from the truth, and how much of it is lost again to what '
               'the reward model does not know?',
      metrics={name: functools.partial(measure, name) for name in (
          'truth gained', 'truth at the end', 'lost after the best step',
          'reward gained', 'words of the right length')},
      claims=[
          *(claim(f'{arm} gains', 'truth gained', arm, None, 1)
            for arm in learnt),
          *(claim(f'the verifier gains more than {arm}', 'truth gained',
                  'verifier', arm, 1) for arm in learnt),
          *(claim(f'{arm} loses more after its best step than the verifier',
                  'lost after the best step', arm, 'verifier', 1)
            for arm in learnt),
          *(claim(f'gram gains more than {arm}', 'truth gained', 'gram', arm, 1)
            for arm in learnt if arm != 'gram')],
      notes=f'{sizes.steps} steps of C3PO without a KL penalty, from '
            f'{sizes.start_steps} steps of imitation of words with any number '
            f'of the letter. {sizes.labels} pairs, or as many comparisons in '
            f'lists of {_LISTS_OF}; a tenth of the pairs or lists is the wrong '
            'way round. Rewards are of a unit of their own in each arm. Best '
            'and last are means of five steps. All arms have one rate, '
            'untuned; gram had stage 1.')


def measure(name: str, done: dict) -> float:
  """Of the curves of a run: truth, reward, whether the length is right."""
  smooth = {key: np.convolve(values, np.ones(w) / w, 'valid')
            for key, values in done.items() for w in [min(5, len(values))]}
  truth_S = smooth['truth']
  return float({
      'truth gained': truth_S[-1] - truth_S[0],
      'truth at the end': truth_S[-1],
      'lost after the best step': truth_S.max() - truth_S[-1],
      'reward gained': smooth['reward'][-1] - smooth['reward'][0],
      'words of the right length': smooth['right_length'][-1]}[name])


def run(smoke: bool, workdir: str) -> dict:
  """All arms; what is done in the workdir is not done again."""
  sizes = SMOKE if smoke else Sizes()
  begin = time.perf_counter()
  kept = lambda name, make: once.made(
      workdir, name, (sizes, stage_1(sizes), toy_judges.MODEL), make)
  random = kept('random', lambda: toy_judges.random_start(sizes.seeds))
  start = kept('start', lambda: imitate(sizes, random))
  rewards = {'bradley-terry': lambda: fit(sizes, random, 2),
             'plackett-luce': lambda: fit(sizes, random, _LISTS_OF),
             'gram': lambda: fit_judge(sizes, random)}
  pieces, runs = make_pieces(sizes), {}
  for arm in ARMS:
    params_R = kept(f'reward_{arm}', rewards[arm]) if arm in rewards else None
    runs[arm] = [
        kept(f'{arm}_{seed}', functools.partial(
            one_run, sizes, pieces, arm, seed, of(start, r),
            None if params_R is None else of(params_R, r)))
        for r, seed in enumerate(sizes.seeds)]
  settings = {arm: dict(learning_rate=_RATE) for arm in ARMS}
  return outcome.results(plan(sizes), runs, settings) | {
      'seconds': time.perf_counter() - begin}


def of(tree_R, r: int):
  return jax.tree.map(lambda x: jnp.asarray(x[r]), tree_R)


def model_and_tokenizer():
  return models.create(**toy_judges.MODEL), toy_judges.Words()


def imitate(sizes, params_R):
  """A policy for each seed that writes words of five letters."""
  model, tokenizer = model_and_tokenizer()

  def examples(seed):
    pairs = [chat.training_example(tokenizer, [
        *record['prompt'], {'role': 'assistant', 'content': record['chosen']}])
             for record in toy_judges.toy(sizes.labels * 2, [seed, 10],
                                           flip=0.5)]
    return packing.pack_examples(*zip(*pairs, strict=True),
                                 num_rows=len(pairs), row_length=16)

  loss = losses.get('supervised', 'cross_entropy').loss
  return trained(sizes, forwards.compose(forwards.make_forward(model), loss),
                 params_R, examples, sizes.start_steps)


def fit(sizes, params_R, size: int):
  """A head for each seed, from lists of so many words."""
  model, tokenizer = model_and_tokenizer()
  name = 'bradley_terry' if size == 2 else 'plackett_luce'
  count = sizes.labels * 2 // (size * (size - 1))  # as many comparisons

  def rows(seed):
    records = toy_judges.toy(count, [seed, 11], flip=gram_labels.NOISE,
                              size=size)
    return toy_judges.in_rows([candidates.texts(tokenizer, r, _ROW)[0]
                                for r in records], _ROW, size)

  params_R = jax.vmap(lambda p, key: reward_nets.from_language_model(
      p, 1, key))(params_R, toy_judges.stacked(
          [jax.random.key(seed) for seed in sizes.seeds]))
  forward = training.make_head_forward(reward_nets.RewardModel(model.config))
  return trained(sizes, training.compose(
      forward, losses.get('reward', name).loss), params_R, rows,
                 sizes.reward_steps, most=count)


def stage_1(sizes) -> gram_labels.Sizes:
  """How much of it."""
  return gram_labels.SMOKE if sizes is SMOKE else gram_labels.Sizes()


def fit_judge(sizes, params_R):
  """A judge for each seed, after stage 1."""
  model, tokenizer = model_and_tokenizer()
  params_R = toy_judges.write_both(stage_1(sizes), list(sizes.seeds), params_R)

  def rows(seed):
    records = toy_judges.toy(sizes.labels, [seed, 11], flip=gram_labels.NOISE)
    return toy_judges.in_rows([judge_prompts.comparison(
        tokenizer, record, _ROW, 0)[0] for record in records], _ROW)

  forward = training.make_label_forward(
      model, judge_prompts.label_ids(tokenizer))
  loss = losses.get('reward', 'gram', wrong_label_mass=gram_labels.NOISE).loss
  return trained(sizes, training.compose(forward, loss), params_R, rows,
                 sizes.reward_steps)


def trained(sizes, loss_fn, params_R, rows, steps, most=32):
  data_R = toy_judges.stacked([rows(seed) for seed in sizes.seeds])
  rate_R = np.full(len(sizes.seeds), _REWARD_RATE)
  return toy_judges.train(loss_fn, params_R, data_R, rate_R, steps,
                           min(32, most))


class Pieces(NamedTuple):
  """Compiled once for all arms and seeds."""
  tokenizer: toy_judges.Words
  sample: object
  score: object
  weights: object
  update: object
  optimizer: optax.GradientTransformation
  heads: object
  labels: object
  num_rows: int


def make_pieces(sizes) -> Pieces:
  model, tokenizer = model_and_tokenizer()
  forward = forwards.make_forward(model)
  objective = losses.get('policy', 'c3po', clip_eps=0.2, kl_coef=0.0)
  optimizer = optimizers.make_optimizer('adamw', _RATE, weight_decay=0.0)
  prompt = chat.prompt_tokens(tokenizer, _WANTED)
  return Pieces(
      tokenizer, rollout.make_sampler(
          model, None, num_slots=64, max_prompt_length=len(prompt),
          max_new_tokens=_LONGEST, stop_ids=tokenizer.stop_ids),
      forwards.make_score_fn(forward), jax.jit(objective.token_weights),
      updates.make_update_fn(forwards.compose(forward, objective.loss),
                             optimizer), optimizer,
      training.make_score_fn(training.make_head_forward(
          reward_nets.RewardModel(model.config))),
      training.make_score_fn(training.make_label_forward(
          model, judge_prompts.label_ids(tokenizer))),
      packing.rows_bound(
          token_budget=sizes.token_budget,
          num_responses=sizes.prompts * sizes.samples,
          max_prompt_length=len(prompt), max_response_length=_LONGEST,
          row_length=_ROW))


def one_run(sizes, pieces, arm, seed, params, reward_params) -> dict:
  """Curves over the steps of C3PO under one reward."""
  state = TrainState(step=jnp.zeros((), jnp.int32), params=params,
                     opt_state=pieces.optimizer.init(params))
  prompts = [chat.prompt_tokens(pieces.tokenizer, _WANTED)] * sizes.prompts
  curves = {'truth': [], 'reward': [], 'right_length': []}
  for step in range(sizes.steps):
    key = jax.random.fold_in(jax.random.key(seed), step)
    draw = functools.partial(pieces.sample, state.params, prompts, key)
    drawn = draw(samples_per_prompt=sizes.samples)
    texts, true_PG, right_PG = read(pieces.tokenizer, drawn)
    reward_PG = true_PG if arm == 'verifier' else asked(
        sizes, pieces, arm, reward_params, draw, texts, drawn).reshape(
            true_PG.shape)
    for name, x_PG in (('truth', true_PG), ('reward', reward_PG),
                       ('right_length', right_PG)):
      curves[name].append(float(np.mean(x_PG)))
    state = stepped(sizes, pieces, state, drawn, reward_PG, [seed, step])
  return {name: np.array(values) for name, values in curves.items()}


def stepped(sizes, pieces, state, drawn, reward_PG, seed):
  """One update on the tokens of the budget."""
  advantage_R = np.asarray(advantages.get('group_normalized')(
      np.asarray(reward_PG, np.float32),
      np.ones(reward_PG.shape, bool))).ravel()
  selection = packing.select(drawn.length_PG.ravel(), seed=seed,
                             token_budget=sizes.token_budget)
  rows = packing.pack(drawn, advantage_R, selection, num_rows=pieces.num_rows,
                      row_length=_ROW, max_response_length=_LONGEST)
  batch = batches.policy_batch(
      rows, pieces.weights(rows), packing.policy_shares(rows.segment_BT),
      pieces.score, state.params)
  return pieces.update(state, batch, jax.random.key(0))[0]


def read(tokenizer, drawn):
  """Texts in flat order, their quality, and whether they have five letters."""
  shape = drawn.length_PG.shape
  texts = [tokenizer.decode(drawn.tokens_PGT[p, g, :drawn.length_PG[p, g]])
           for p in range(shape[0]) for g in range(shape[1])]
  right_PG = drawn.stopped_PG & np.array(
      [len(text) == _LENGTH for text in texts]).reshape(shape)
  share_PG = np.array([text.count(_WANTED) / _LENGTH
                       for text in texts]).reshape(shape)
  return texts, np.where(right_PG, share_PG, 0.0), right_PG


def asked(sizes, pieces, arm, params, draw, texts, drawn) -> np.ndarray:
  """reward_R of a reward model; of a judge against the greedy answer."""
  shape = dict(num_rows=sizes.prompts * sizes.samples, row_length=_ROW,
               lists_per_row=1, num_candidates=2)
  if arm != 'gram':
    return trained_reward.Scorer(
        pieces.tokenizer, pieces.heads, params, shape, _ROW)(
            [_WANTED] * len(texts), texts, drawn.stopped_PG.ravel())
  judge = trained_reward.Judge(pieces.tokenizer, pieces.labels, params, shape,
                               _ROW)
  references, _, _ = read(pieces.tokenizer, draw(
      samples_per_prompt=1, temperature=0.0))
  return pair_judge.against_reference(
      judge, [_WANTED] * len(texts),
      [text for text in references for _ in range(sizes.samples)], texts)


if __name__ == '__main__':
  outcome.main(run)
