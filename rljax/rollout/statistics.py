"""What a rollout looks like, as flat numbers; on the host."""
from __future__ import annotations

import numpy as np

from rljax.types import Rollout


def summarize(rollout: Rollout) -> dict[str, float]:
  """Lengths, truncation, entropy and distinctness of the responses."""
  length_PG = rollout.length_PG
  max_length = rollout.tokens_PGT.shape[-1]
  mask_PGT = np.arange(max_length)[None, None] < length_PG[..., None]
  distinct = [
      len({tokens[:n].tobytes() for tokens, n in zip(t, l, strict=True)}) / len(l)
      for t, l in zip(rollout.tokens_PGT, length_PG, strict=True)]
  return {
      'response_length': float(length_PG.mean()),
      'response_length_std': float(length_PG.std()),
      'response_length_max': float(length_PG.max()),
      'truncated': float(1 - rollout.stopped_PG.mean()),
      'entropy': float(rollout.entropy_PGT[mask_PGT].mean()),
      'distinct': float(np.mean(distinct)),
  }


def mismatch(sampled_logp_BT, old_logp_BT, mask_BT) -> dict[str, float]:
  """Trainer over sampler probability of the tokens in the loss."""
  mask_BT = np.asarray(mask_BT)
  ratio = np.exp((np.asarray(old_logp_BT) - np.asarray(sampled_logp_BT))[
      mask_BT])
  if not ratio.size:
    return {}
  return {'mismatch_mean': float(ratio.mean()),
          'mismatch_max': float(ratio.max()),
          'mismatch_over_2': float((np.maximum(ratio, 1 / ratio) > 2).mean())}
