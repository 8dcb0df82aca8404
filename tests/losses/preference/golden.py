"""Two pairs by hand, and what each loss makes of them, in nats.

Log-probabilities of policy, reference and guide; the fourth token of one side
of each pair is padding.
"""
import jax.numpy as jnp
import numpy as np

from rljax.types import PreferenceBatch

PAD = np.nan  # whatever stands there must not matter
POLICY = dict(chosen=[[-.5, -1, -.2, -.9], [-.9, -.9, -1.1, PAD]],
              rejected=[[-1.5, -2, -.7, PAD], [-.4, -1.2, -.4, -.6]])
REFERENCE = dict(chosen=[[-.6, -1.3, -.9, -.8], [-.4, -.8, -1.6, PAD]],
                 rejected=[[-1, -1.8, -1, PAD], [-.5, -1.4, -.3, -1.1]])
GUIDE = dict(chosen=[[-.4, -1.4, -.3, -.7], [-.9, -.6, -1, PAD]],
             rejected=[[-1.9, -1.7, -1.6, PAD], [-1.2, -1.5, -.2, -1]])
# KL(reference ‖ policy): Σ over chosen .4 and .6, over rejected .2 and .4.
DIVERGENCE = dict(chosen=[[.1, .2, .05, .05], [.2, .1, .3, PAD]],
                  rejected=[[.1, .05, .05, PAD], [.1, .1, .1, .1]])
KL = 0.3  # KTO's z

# name, hyper-parameters, loss of either pair.
LOSSES = (
    ('dpo', {}, (.403186, .913015)),
    ('dpo', dict(label_smoothing=.1), (.473186, .873015)),
    ('dpo', dict(label_smoothing=.1, robust=True), (.315686, .963015)),
    ('dpo', dict(length='mean'), (.601899, .746586)),
    ('hinge', {}, (.3, 1.4)),
    ('ipo', dict(average=False), (.16, 3.24)),
    ('ipo', {}, (.380278, 1.460069)),
    ('simpo', dict(beta=2.0, gamma=1.0), (.474077, 1.811712)),
    ('cpo', dict(nll_coef=0.0), (.371101, .770957)),
    # And the mean over the chosen tokens: 2.6 / 4, 2.9 / 3.
    ('cpo', {}, (1.021101, 1.737624)),
    ('orpo', dict(odds_coef=1.0, nll_coef=0.0), (.262108, 1.022256)),
    # A tenth of it, and that mean.
    ('orpo', {}, (.676211, 1.068892)),
    ('dpop', dict(penalty=5.0), (.403186, 1.070055)),
    ('exo', dict(label_smoothing=1e-3), (1.657292, 3.462449)),
    ('nca', {}, (1.260185, 1.494381)),
    ('bco', {}, (1.072216, 1.601842)),
    ('sppo', {}, (.36, 4.1)),
    ('apo', dict(form='zero'), (.827707, 1.099115)),
    ('apo', dict(form='down'), (.954272, 1.08619)),
    ('discopop', dict(tau=.05), (.496585, .913209)),
    ('tgdpo', dict(alpha=.5), (.376951, .877528)),
    ('tgdpo', dict(alpha=2.0), (.306599, .776344)),
    # Twice the weights of α = .5, as α = 1 at β_r = β: -log σ(.7 + 2 · .08125),
    # -log σ(-.4 + 2 · .06)
    ('tgdpo', dict(alpha=.5, reward_beta=1.0), (.352139, .842915)),
    ('tgdpo', dict(alpha=1.0), (.352139, .842915)),
    # α r within ± .1: of pair 0 .05, -.025, .1, .025 and .1, -.025, .1; of pair
    # 1 -.1, .05, .1 and .1, .025, -.025, -.025. Margins .5 (1.065 + .415) and
    # .5 (-.005 - .705).
    ('tgdpo', dict(alpha=.5, weight_clip=.1), (.39009, .886318)),
    # The sides of a pair are alike: 1 - σ(.5 (1 - .3)) = 1 - σ(.5 (.3 + .4)).
    ('kto', {}, (.413382, .549834)),
    # -log σ(.5 (1.4 + .4 - .2)), -log σ(.5 (-.8 + .6 - .4))
    ('tdpo', dict(form=1), (.371101, .854355)),
    # -log σ(.5 (1.4 + .5 (.4 - .2))), -log σ(.5 (-.8 + .5 (.6 - .4)))
    ('tdpo', dict(form=2, alpha=.5), (.386871, .883382)),
    # .8 DPO + .2 BCO + the mean over tokens: 2.6 / 4, 2.9 / 3
    ('mpo', {}, (1.186992, 2.017447)))
BETA = 0.5


def pair(number, dtype=np.float64):
  """(logp_BT, batch) of one pair, weight 1."""
  sides = lambda table: np.array(
      table['chosen'][number] + table['rejected'][number], dtype)[None]
  logp_BT = sides(POLICY)
  place_BT = np.arange(8)[None] % 4
  is_real_BT = np.isfinite(logp_BT)
  chosen_BT = np.arange(8)[None] < 4
  return jnp.asarray(logp_BT), PreferenceBatch(
      tokens_BT=np.arange(8, dtype=np.int32)[None], position_BT=place_BT,
      segment_BT=np.where(is_real_BT, 2 - chosen_BT, 0).astype(np.int32),
      pair_BT=is_real_BT.astype(np.int32), chosen_BT=chosen_BT & is_real_BT,
      mask_BT=is_real_BT, weight_BP=np.ones((1, 1), np.float32),
      share_BT=is_real_BT.astype(np.float32),
      ref_logp_BT=jnp.asarray(sides(REFERENCE)),
      guide_logp_BT=jnp.asarray(sides(GUIDE)), load_BLE=None,
      kl_B=jnp.full(1, KL, dtype), ref_kl_BT=jnp.asarray(sides(DIVERGENCE)))


def random(seed=0, rows=4, length=24, pairs_per_row=3, dtype=np.float32):
  """Packed rows with prompts, masked holes, uneven sides, and places unused."""
  rng = np.random.default_rng(seed)
  shape = rows, length
  ints = lambda: np.zeros(shape, np.int32)
  segment_BT, pair_BT, position_BT = ints(), ints(), ints()
  chosen_BT, mask_BT = (np.zeros(shape, bool) for _ in range(2))
  weight_BP = np.zeros((rows, pairs_per_row), np.float32)
  for b in range(rows):
    at, segment = 0, 0
    for p in range(1 if b == rows - 1 else 2):  # the third place stays empty
      for side in (True, False):
        n, prompt = int(rng.integers(3, 6)), 1
        segment += 1
        here = slice(at, at + n)
        segment_BT[b, here], pair_BT[b, here] = segment, p + 1
        position_BT[b, here], chosen_BT[b, here] = np.arange(n), side
        mask_BT[b, here] = np.arange(n) >= prompt
        mask_BT[b, at + prompt + 1] &= rng.random() < 0.7
        at += n
      weight_BP[b, p] = 1 / (2 * rows - 1)
  draw = lambda: jnp.asarray(-rng.exponential(size=shape), dtype)
  logp_BT = draw()
  return logp_BT, PreferenceBatch(
      tokens_BT=rng.integers(0, 3, shape).astype(np.int32),
      position_BT=position_BT, segment_BT=segment_BT, pair_BT=pair_BT,
      chosen_BT=chosen_BT, mask_BT=mask_BT, weight_BP=weight_BP,
      share_BT=(segment_BT > 0).astype(np.float32), ref_logp_BT=draw(),
      guide_logp_BT=draw(), load_BLE=None,
      kl_B=jnp.full(rows, KL, dtype), ref_kl_BT=-draw())
