"""Small hand-written steps for the tests of the policy losses."""
import jax.numpy as jnp
import numpy as np

from rljax.types import PackedRows
from rljax.types import PolicyBatch


def make_rows(segment, mask, token_budget=100, max_response_length=8):
  """Rows of which only segments and mask matter."""
  segment_BT, mask_BT = np.array(segment, np.int32), np.array(mask, bool)
  zeros_BT = np.zeros(segment_BT.shape, np.float32)
  return PackedRows(
      tokens_BT=np.zeros_like(segment_BT),
      position_BT=np.zeros_like(segment_BT),
      segment_BT=segment_BT, mask_BT=mask_BT, response_BT=mask_BT,
      advantage_BT=zeros_BT,
      sampled_logp_BT=zeros_BT,
      num_responses=np.int32(len(np.unique(segment_BT[mask_BT]))),
      token_budget=token_budget, max_response_length=max_response_length)


def make_batch(weight, advantage, old=0.0, ref=None):
  """A batch of which only what a loss reads is there; scalars are spread."""
  weight_BT = jnp.asarray(weight, jnp.float32)
  spread = lambda x: jnp.broadcast_to(
      jnp.asarray(x, jnp.float32), weight_BT.shape)
  return PolicyBatch(
      tokens_BT=None, position_BT=None, segment_BT=None, weight_BT=weight_BT,
      share_BT=None, advantage_BT=spread(advantage), old_logp_BT=spread(old),
      ref_logp_BT=None if ref is None else spread(ref), load_BLE=None)
