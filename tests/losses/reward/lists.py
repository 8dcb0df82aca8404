"""Lists of compared responses for the tests of reward losses, in rows."""
import numpy as np

from rljax.types import RewardBatch


def batch(rank_BPC, weight_BP=None, margin_BP=None) -> RewardBatch:
  """Of given ranks; lists weigh 1 / (their number) unless said otherwise."""
  rank_BPC = np.asarray(rank_BPC, np.int32)
  rows, lists = rank_BPC.shape[:2]
  is_list_BP = (rank_BPC >= 0).any(axis=-1)
  if weight_BP is None:
    weight_BP = is_list_BP / max(is_list_BP.sum(), 1)
  ints_BT = np.zeros((rows, 8), np.int32)
  zeros_BP = np.zeros((rows, lists))
  return RewardBatch(
      tokens_BT=ints_BT, position_BT=ints_BT, segment_BT=ints_BT,
      prefix_BT=ints_BT,
      share_BT=np.zeros((rows, 8), np.float32),
      read_BPC=np.zeros_like(rank_BPC), rank_BPC=rank_BPC,
      margin_BP=np.asarray(zeros_BP if margin_BP is None else margin_BP,
                           np.float32),
      weight_BP=np.asarray(weight_BP, np.float32), load_BLE=None)


def pair(gap, *, better=0, margin=0.0):
  """Scores and batch of one pair whose better side is ahead by `gap`."""
  score_BPC = np.zeros((1, 1, 2), np.float32)
  score_BPC[0, 0, better] = gap
  rank_BPC = [[[better, 1 - better]]]
  return score_BPC, batch(rank_BPC, margin_BP=[[margin]])


def random(candidates=2, seed=0):
  """6 rows of 3 places: full, half full and empty ones, ranks shuffled."""
  rng = np.random.default_rng(seed)
  rank_BPC = np.full((6, 3, candidates), -1, np.int32)
  for b, count in enumerate((3, 2, 0, 1, 3, 2)):
    for p in range(count):
      # A longer list may have fewer candidates than there is room for.
      here = candidates if candidates == 2 else int(
          rng.integers(2, candidates + 1))
      rank_BPC[b, p, rng.permutation(candidates)[:here]] = rng.permutation(here)
  score_BPC = rng.normal(size=rank_BPC.shape).astype(np.float32)
  return score_BPC, batch(rank_BPC, margin_BP=rng.random((6, 3)))
