"""Rollouts with given lengths and recognisable contents."""
import numpy as np

from rljax.types import Rollout


def make_rollout(length_PG, prompt_lengths, max_length, seed=0):
  """Random tokens, pad ids among them; logp = -(flat token index) / 100."""
  length_PG = np.asarray(length_PG, np.int32)
  shape_PGT = (*length_PG.shape, max_length)
  rng = np.random.default_rng(seed)
  inside_PGT = np.arange(max_length) < length_PG[..., None]
  tokens_PGT = rng.integers(0, 3, shape_PGT).astype(np.int32) * inside_PGT
  index_PGT = np.arange(np.prod(shape_PGT)).reshape(shape_PGT)
  return Rollout(
      prompts=tuple(
          rng.integers(0, 9, n).astype(np.int32) for n in prompt_lengths),
      tokens_PGT=tokens_PGT,
      logp_PGT=(-index_PGT / 100).astype(np.float32),
      entropy_PGT=np.zeros(shape_PGT, np.float32),
      length_PG=length_PG,
      stopped_PG=np.ones(length_PG.shape, bool))
