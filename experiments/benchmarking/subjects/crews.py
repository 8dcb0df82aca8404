"""Those who take part in a row of the benchmark, and what all must agree on.

Everybody loads one checkpoint with random weights, which ours writes, and gets
the same tokens; float32. Before anything is timed, the logits of the first row
must agree to 1e-4. Then the losses of the warm-up steps must agree (or the
greedy tokens), so that nobody is fast by doing something else.

Limits are what the machine allows: products at the rate of one large product
(the best of two libraries), reads at the speed of one long sum, both timed in
the same rounds. Counted are the products of the mathematics, with causal
attention: backward twice the forward pass, nothing computed again.
"""
from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from rljax import models
from rljax import sharding
from rljax.interop import convert

_TOLERANCE = 1e-4
_LEARNING_RATE = 1e-4
_KL_COEF = 0.04


@dataclasses.dataclass(frozen=True)
class Work:
  """What is done, and to which model."""
  variant: str = 'tiny'
  rows: int = 8
  length: int = 512
  new_tokens: int = 0
  samples: int = 1
  rounds: int = 5
  product: int = 3_072      # rows and columns of the product for the rate
  read: int = 1 << 27       # elements of the sum for the bandwidth
  model: tuple = ()         # overrides of the variant


_MODEL = dict(vocab_size=32_000, num_layers=4, model_dim=256, num_heads=8,
              num_kv_heads=4, head_dim=32, max_positions=1_024)
_SMALL = dict(max_positions=128)
# What Qwen3 is; the base of the rotary positions is fixed in one of the peers.
_QWEN3 = dict(rope_theta=1e6, qk_norm='head', tied_head=True, norm_head=False)
_MOE = _QWEN3 | dict(num_shared_experts=0)


def work_of(sizes: dict, smoke: bool, experts=None, small=None,
            **more) -> Work:
  """Full size or smoke; `experts` are the fields of a mixture, or None."""
  variant, base = ('tiny_dense', _QWEN3) if experts is None else ('tiny', _MOE)
  if smoke:
    return Work(variant, **(dict(rows=2, length=16, rounds=1, product=64,
                                 read=1_024) | more | (small or {})),
                model=tuple((base | _SMALL).items()))
  return Work(variant, **more,
              model=tuple((base | _MODEL | sizes | (experts or {})).items()))


def flops_of_token(config, length: int) -> float:
  """Of one token in a forward pass over rows of this length."""
  # On average half of the row is attended to, the token itself among it.
  return flops_of_layers(config, (length + 1) / 2) + (
      2 * config.model_dim * config.vocab_size)


def flops_of_layers(config, attended: float) -> float:
  """Of one token that attends to so many, without the head."""
  width, heads = config.model_dim, config.num_heads * config.head_dim
  keys = config.num_kv_heads * config.head_dim
  weights = 2 * width * (heads + keys)
  if config.num_experts:
    weights += width * config.num_experts
    weights += 3 * width * config.top_k * config.expert_dim
  else:
    weights += 3 * width * config.mlp_dim
  return config.num_layers * (2 * weights + 2 * 2 * heads * attended)


def decode_seconds(config, rows: int, length: float, found: Found) -> float:
  """Least seconds of one decoding step: all weights and the cache are read."""
  weights = config.vocab_size * config.model_dim
  heads = config.num_heads * config.head_dim
  keys = config.num_kv_heads * config.head_dim
  chosen = config.num_experts and min(
      config.num_experts, rows * config.top_k)
  weights += config.num_layers * config.model_dim * (
      2 * (heads + keys) + config.num_experts
      + 3 * (chosen * config.expert_dim or config.mlp_dim))
  cache = rows * length * config.num_layers * 2 * keys
  # A query sees the whole length so far, not half of it on average.
  flops = rows * flops_of_token(config, 2 * length - 1)
  return max(4 * (weights + cache) / found.bandwidth, flops / found.flops)


def check_logits(logits: dict[str, np.ndarray]):
  """Everybody's against ours.

  Raises:
    ValueError: they differ by more than 1e-4, or in their shape.
  """
  ours = logits['rljax']
  for name, theirs in logits.items():
    if theirs.shape != ours.shape or not np.allclose(
        theirs, ours, rtol=0, atol=_TOLERANCE):
      gap = 'another shape' if theirs.shape != ours.shape else (
          f'a difference of {np.max(np.abs(theirs - ours)):.2g}')
      raise ValueError(
          f'Expected the logits of {name} to agree with ours to {_TOLERANCE:g},'
          f' got {gap}. They compute another model: no time was taken.')


def check_losses(losses: dict[str, list[float]]):
  """Raises ValueError unless all have the losses of ours in every step."""
  for name, theirs in losses.items():
    if not np.allclose(theirs, losses['rljax'], rtol=0, atol=1e-3):
      raise ValueError(
          f'Expected the losses {losses["rljax"]} of ours from {name}, got '
          f'{theirs}. Its steps do something else.')


def check_tokens(tokens: dict[str, np.ndarray]):
  """Raises ValueError unless nine of ten rows are those of ours.

  Where two logits almost tie, rounding decides, and the rest of a row differs.
  """
  for name, theirs in tokens.items():
    same = theirs.shape == tokens['rljax'].shape and np.mean(
        np.all(theirs == tokens['rljax'], axis=1))
    if same < 0.9:
      raise ValueError(f'Expected the greedy tokens of ours from {name}, got '
                       f'{same:.0%} of the rows alike. It decodes another way.')


@dataclasses.dataclass(frozen=True)
class Found:
  """Medians over rounds."""
  seconds: dict[str, float]
  flops: float      # of a large product, per second
  bandwidth: float  # bytes read per second


class Crew:
  """Everybody who takes part in a row, with the model and the tokens.

  Further entries of everybody's job are passed as `more`.
  """

  def __init__(self, team, work: Work, kind: str, peers: tuple[str, ...],
               **more):
    self.work, self._stack = work, contextlib.ExitStack()
    here, self._missing = team.split(peers)
    model = models.create(work.variant, **dict(work.model))
    self.config = model.config
    folder = team.folder / kind
    folder.mkdir(parents=True, exist_ok=True)
    # By its content: what a run with other sizes has left is none of ours.
    name = f'model_{zlib.crc32(repr(self.config).encode()):08x}'
    _write_checkpoint(team.folder / name, model)
    tokens_BT = np.random.default_rng(0).integers(
        2, self.config.vocab_size, (work.rows, work.length), dtype=np.int32)
    np.save(folder / 'tokens.npy', tokens_BT)
    logits = {name: folder / f'logits.{name}.npy' for name in ('rljax', *here)}
    with contextlib.ExitStack() as stack:  # a failure ends those begun
      start = lambda who, *args, **job: stack.enter_context(
          team.start(who, *args, **job))
      self.workers = {who: start(
          who, kind, checkpoint=str(team.folder / name), logits=str(path),
          tokens=str(folder / 'tokens.npy'), learning_rate=_LEARNING_RATE,
          new_tokens=work.new_tokens, samples=work.samples, kl_coef=_KL_COEF,
          prompts=[' '.join(map(str, row)) for row in tokens_BT], **more)
                      for who, path in logits.items()}
      self._machine = {
          f'{who} product': start(who, 'products', size=work.product)
          for who in ('rljax', *({'transformers'} & set(here)))}
      self._machine['read'] = start('rljax', 'reads', size=work.read)
      check_logits({name: np.load(path) for name, path in logits.items()})
      self._stack = stack.pop_all()

  def measure(self, interleaved) -> Found:
    """Everybody in turns."""
    for worker in self.workers.values():
      worker.forget_memory()
    members = self.workers | self._machine
    last = {}

    def runner(name):
      def run():
        last[name] = members[name].run()
      return run

    seconds = interleaved({name: runner(name) for name in members},
                          self.work.rounds)
    self._memory = {name: last[name]['peak_mb'] for name in self.workers}
    product = min(seconds[name] for name in members if 'product' in name)
    return Found(seconds, flops=2 * self.work.product**3 / product,
                 bandwidth=4 * self.work.read / seconds['read'])

  def row(self, name: str, metric: str, found: Found, amount: float | None,
          limit: float) -> dict:
    """The row of the benchmark; `amount` per second, or seconds without."""
    value = lambda who: found.seconds[who] if amount is None else (
        amount / found.seconds[who])
    peers = [who for who in self.workers if who != 'rljax']
    facts = {who: worker.facts for who, worker in self.workers.items()}
    return dict(
        row=name, metric=metric, higher_is_better=amount is not None,
        rljax=value('rljax'), peers={who: value(who) for who in peers},
        missing_peers=self._missing, limit=limit,
        peak_mb=self._memory, gflops=found.flops / 1e9,
        read_gb_per_second=found.bandwidth / 1e9,
        experts={who: fact['experts'] for who, fact in facts.items()
                 if 'experts' in fact},
        versions={who: fact['versions'] for who, fact in facts.items()})

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._stack.close()


def _write_checkpoint(folder, model):
  """Random weights as Qwen3 has them, and a tokenizer of numbers."""
  if folder.exists():
    return
  begun = folder.with_suffix('.begun')
  shutil.rmtree(begun, ignore_errors=True)
  dummy_BT = jnp.zeros((1, 8), jnp.int32)
  params = sharding.unbox(jax.jit(model.init)(
      jax.random.key(0), dummy_BT, dummy_BT, dummy_BT)['params'])
  kind = 'qwen3_moe' if model.config.num_experts else 'qwen3'
  convert.save(begun, kind, model.config, params)
  # Special tokens are found inside words too, so none is made of digits.
  words = ['<pad>', '<eos>', *map(str, range(2, model.config.vocab_size))]
  vocab = {word: i for i, word in enumerate(words)}
  (begun / 'tokenizer.json').write_text(json.dumps(dict(
      version='1.0', truncation=None, padding=None, added_tokens=[],
      normalizer=None, pre_tokenizer=dict(type='WhitespaceSplit'),
      post_processor=None, decoder=None,
      model=dict(type='WordLevel', vocab=vocab, unk_token='<pad>'))))
  (begun / 'tokenizer_config.json').write_text(json.dumps(dict(
      tokenizer_class='PreTrainedTokenizerFast', pad_token='<pad>',
      eos_token='<eos>', clean_up_tokenization_spaces=False)))
  begun.rename(folder)
