"""Records that cross module borders, and the letters of their axes.

  B  rows of a batch           D  model width
  T  positions in a row        F  feed-forward width
  S  positions attended to     N  query heads
  P  prompts in a step         K  key/value heads
  G  samples per prompt        H  width of a head
  R  responses (R = P * G)     E  experts
  V  vocabulary                X  experts chosen per token
  L  layers                    M  image patches
  Y  rows of an image          C  classes, label tokens, candidates of a list
  W  columns of an image       U  channels of an image
  J  heads of an ensemble

A suffix lists the axes of an array in order: `logp_BT` is [rows, positions].
Everything said of "token t" lives at t's own position: `logp_BT[b, t]` is the
log-probability of `tokens_BT[b, t]` given the tokens of its segment before it.
"""
from __future__ import annotations

import dataclasses
from typing import Any

from flax import struct
import jax
import numpy as np

Array = jax.Array | np.ndarray


@struct.dataclass
class PackedRows:
  """Sequences placed in rows of fixed shape; none straddles two rows."""
  tokens_BT: Array        # int32
  position_BT: Array      # int32; from 0 within each sequence
  segment_BT: Array       # int32; 1 + index of the response, 0 = padding
  mask_BT: Array          # bool; response tokens that enter the loss
  advantage_BT: Array     # float32; 0 outside the responses
  sampled_logp_BT: Array  # float32; as recorded by the sampler
  response_BT: Array      # bool; response tokens, in the loss or not
  num_responses: Array    # int32 scalar; responses with a token in the loss
  token_budget: int = struct.field(pytree_node=False)         # Φ, whole step
  max_response_length: int = struct.field(pytree_node=False)  # tokens
  # Experts chosen by the sampler, as `ops.routes` stores them; if recorded.
  experts_BTLX: Array | None = None


@struct.dataclass
class PolicyBatch:
  """One optimiser step's worth of scored responses. Leading axis: rows."""
  tokens_BT: Array     # int32
  position_BT: Array   # int32
  segment_BT: Array    # int32; 0 = padding
  weight_BT: Array     # float32; 0 outside the loss
  share_BT: Array      # float32; 1 / (real tokens of the step), 0 on padding
  advantage_BT: Array  # float32
  old_logp_BT: Array   # float32; under the policy before this update
  ref_logp_BT: Array | None  # float32; frozen reference; None without a KL term
  load_BLE: Array | None     # float32; the step's expert load, in every row
  experts_BTLX: Array | None = None  # experts to replay; None: none
  # float32; entropy bonus of this step, in every row; None: that of the config.
  entropy_coef_B: Array | None = None
  # bool; sampled under a hint that the row does not hold; None: nothing was.
  guided_BT: Array | None = None
  gamma_B: Array | None = None  # float32; Guide's γ of the step, in every row


@struct.dataclass
class ValueBatch:
  """One optimiser step's worth of targets for a critic. Leading axis: rows."""
  tokens_BT: Array     # int32
  position_BT: Array   # int32
  segment_BT: Array    # int32; 0 = padding
  weight_BT: Array     # float32; 0 outside the loss
  share_BT: Array      # float32; as in PolicyBatch
  return_BT: Array     # float32; what the value should be
  old_value_BT: Array  # float32; of the critic before this update
  load_BLE: Array | None  # float32; as in PolicyBatch, of the critic's experts


@struct.dataclass
class SupervisedBatch:
  """One optimiser step's worth of demonstrations. Leading axis: rows."""
  tokens_BT: Array    # int32
  position_BT: Array  # int32
  segment_BT: Array   # int32; 0 = padding
  weight_BT: Array    # float32; 1 / (target tokens of the step) on targets
  share_BT: Array     # float32; 1 / (real tokens of the step), 0 on padding
  load_BLE: Array | None  # float32; as in PolicyBatch


@struct.dataclass
class PreferenceBatch:
  """One optimiser step's worth of pairs. Leading axis: rows.

  A row holds whole pairs, so that a loss is a sum over rows. Its pairs are
  numbered from 1; P is the most that a row has room for.
  """
  tokens_BT: Array     # int32
  position_BT: Array   # int32
  segment_BT: Array    # int32; one for each side of a pair; 0 = padding
  pair_BT: Array       # int32; of the row; 0 = padding
  chosen_BT: Array     # bool; which side a token is of
  mask_BT: Array       # bool; response tokens
  weight_BP: Array     # float32; 1 / (pairs of the step); 0 where there is none
  share_BT: Array      # float32; as in PolicyBatch
  ref_logp_BT: Array | None    # float32; frozen reference; None: not asked for
  guide_logp_BT: Array | None  # float32; frozen guide of TGDPO
  load_BLE: Array | None       # float32; as in PolicyBatch
  # int32; the segment of the prompt, where it is stored once for both sides.
  prefix_BT: Array | None = None
  kl_B: Array | None = None    # float32; KTO's z of the step, in every row
  # float32; KL(reference ‖ policy) over the vocabulary, with a gradient: the
  # composed loss puts it here for TDPO.
  ref_kl_BT: Array | None = None


@struct.dataclass
class RewardBatch:
  """One optimiser step's worth of compared responses. Leading axis: rows.

  A row holds whole lists, so that a loss is a sum over rows; P is the most that
  it has room for, C the most candidates of a list. A score is read at the last
  token of a candidate; where one text shows all of a list's candidates, each
  has a label whose logit is read at the last token of that text.
  """
  tokens_BT: Array    # int32
  position_BT: Array  # int32
  segment_BT: Array   # int32; one for what a text has of its own; 0 = padding
  # int32; the segment with what a list's texts have in common; 0 = nothing.
  prefix_BT: Array
  share_BT: Array     # float32; as in PolicyBatch
  read_BPC: Array     # int32; where in the row; 0 where there is nothing
  rank_BPC: Array     # int32; 0 is best, equal ranks tie; -1: no candidate
  margin_BP: Array    # float32; by which the better shall lead; mostly 0
  weight_BP: Array    # float32; 1 / (lists of the step); 0 where there is none
  load_BLE: Array | None  # float32; as in PolicyBatch


@struct.dataclass
class DiscriminatorBatch:
  """Images, as features, and what they count as. Leading axis: images."""
  feature_BD: Array        # float32; of a frozen encoder
  label_B: Array           # float32 in [0, 1]; 1 is a target
  weight_B: Array          # float32; 0 is padding
  prompt_BD: Array | None  # float32; None: the reward is blind to prompts


@struct.dataclass
class DenoisingBatch:
  """Images under noise. Leading axis: prompts.

  The G images of a row share one noise, one time and one prompt: there is no
  place for others. Of a pair, the better one comes first.
  """
  image_BGYWU: Array   # float32 in [-1, 1]
  class_B: Array       # int32; the prompt
  noise_BYWU: Array    # float32
  time_B: Array        # float32; 0 is no noise, 1 is noise alone
  weight_B: Array      # float32; 1 / (rows of the step); 0 is padding
  ref_error_BG: Array | None  # float32; of a frozen reference; None: not asked


@struct.dataclass
class RouterStats:
  """Per-layer routing sums, weighted by `share_BT`: additive over rows."""
  mean_prob_LE: Array   # Σ share · softmax over all experts; differentiable
  load_LE: Array        # Σ share · (chosen ? num_experts / top_k : 0); mean 1
  z_L: Array            # Σ share · (logsumexp of the logits)²
  entropy_L: Array      # Σ share · entropy of the softmax, nats
  experts_LBTX: Array   # int32; the chosen experts
  # Σ share · (share of replayed choices that the router would not make now);
  # None without a replay.
  disagreement_L: Array | None = None


@struct.dataclass
class TrainState:
  """Everything that changes during training, and nothing that does not."""
  step: Array  # int32 scalar; optimiser steps taken
  params: Any
  opt_state: Any
  critic: Any = None  # a TrainState of its own; None without one


@dataclasses.dataclass(frozen=True)
class Rollout:
  """G samples for each of P prompts, on the host."""
  prompts: tuple[np.ndarray, ...]  # P arrays of int32 token ids
  tokens_PGT: np.ndarray   # int32; beyond the length: 0, and of no meaning
  logp_PGT: np.ndarray     # float32; under the distribution sampled from
  entropy_PGT: np.ndarray  # float32; nats, full vocabulary, at temperature
  length_PG: np.ndarray    # int32; response tokens, the stop token included
  stopped_PG: np.ndarray   # bool; False = cut at the length limit
  # By position in prompt and response, as `ops.routes` stores them.
  experts_PGSLX: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class ComparedTexts:
  """A list of compared responses as token ids, on the host."""
  # int32; each candidate behind its prompt, or one text that shows them all to
  # a judge, up to where it names the better one.
  texts: tuple[np.ndarray, ...]
  ranks: tuple[int, ...]  # of the candidates; 0 is best, equal ranks tie
  margin: float = 0.0     # by which the better shall lead


@dataclasses.dataclass(frozen=True)
class TokenPair:
  """Token ids (int32) of a pair, and which response tokens enter the loss.

  An example with one label is a pair of which one response has no token.
  """
  id: str
  prompt: np.ndarray
  chosen: np.ndarray
  rejected: np.ndarray
  chosen_mask: np.ndarray    # bool
  rejected_mask: np.ndarray  # bool
  margin: float | None = None  # by how much the chosen one is better
  domain: str = ''


@dataclasses.dataclass(frozen=True)
class RewardResult:
  """What a verifier says of one response."""
  is_correct: bool
  reward: float | None  # None: not gradable (infrastructure); mask the sample
  status: str           # one of rewards.verdict.STATUSES
  extracted: str | None
  elapsed: float        # seconds inside the verifier
