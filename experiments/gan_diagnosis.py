"""What a reward of GAN-RM has learnt besides what it was meant to.

The border stands for style. Content is made bad by a blur inside of it: one of
the whole image would smear a frame inwards.

Reference: GAN-RM (arXiv 2506.13846), whose reviewers name style of the targets
as what such a reward learns.
"""
from __future__ import annotations

import numpy as np

from experiments import gan_rounds
from rljax.data import images
from rljax.evaluation import image_rewards

_NOISE = 0.25  # on the blur that makes content bad


def diagnose(pieces: gan_rounds.Pieces, round_: gan_rounds.Round,
             proxies: images.ImageSet, held_out: images.ImageSet, fresh,
             seed: int) -> dict[str, float]:
  """What R_t has learnt, and where G_t stands.

  Args:
    pieces: compiled functions.
    round_: just played.
    proxies: D_p.
    held_out: targets that no round trains on.
    fresh: (image_RYWU, class_R) of G_t that R_t has not seen.
    seed: of the degradation that makes content bad.
  """
  score = lambda image_RYWU, class_R: gan_rounds.score_images(
      pieces, round_.reward, image_RYWU, class_R)
  held_R = score(held_out.pixels_RYWU, held_out.class_R)
  fresh_R = score(*fresh)
  flat = lambda image_RYWU: image_RYWU.reshape(len(image_RYWU), -1)
  bad_RYWU, inside = held_out.pixels_RYWU.copy(), np.s_[:, 1:-1, 1:-1]
  bad_RYWU[inside] = images.blur(bad_RYWU[inside], _NOISE, seed)
  framed = lambda content, border: score(
      images.swap_border(content, border), held_out.class_R)
  shortcut = image_rewards.shortcut(
      framed(bad_RYWU, proxies.pixels_RYWU), framed(bad_RYWU, fresh[0]),
      framed(held_out.pixels_RYWU, fresh[0]))
  return {
      'held_out_accuracy': image_rewards.accuracy(held_R, fresh_R),
      'memorisation': image_rewards.memorisation(
          score(proxies.pixels_RYWU, proxies.class_R), held_R),
      'frechet': image_rewards.frechet_distance(
          flat(fresh[0]), flat(held_out.pixels_RYWU)),
      'diversity': image_rewards.diversity(flat(fresh[0])),
      'shortcut_auc': shortcut.auc, 'shortcut_effect': shortcut.effect}
