"""What a reward of GAN-RM has learnt besides what it was meant to.

The border stands for style, what is inside of it for content. Bad content is
that of the generator's own outputs: what a reward was never shown, say blurred
digits, it may rank anywhere, whatever it thinks of the border.

Reference: GAN-RM (arXiv 2506.13846), whose reviewers name style of the targets
as what such a reward learns.
"""
from __future__ import annotations

from experiments import gan_rounds
from rljax.data import images
from rljax.evaluation import image_rewards


def diagnose(pieces: gan_rounds.Pieces, round_: gan_rounds.Round,
             proxies: images.ImageSet, held_out: images.ImageSet,
             fresh) -> dict[str, float]:
  """What R_t has learnt, and where G_t stands.

  Args:
    pieces: compiled functions.
    round_: just played.
    proxies: D_p.
    held_out: targets that no round trains on.
    fresh: (image_RYWU, class_R) of G_t that R_t has not seen.
  """
  score = lambda image_RYWU, class_R: gan_rounds.score_images(
      pieces, round_.reward, image_RYWU, class_R)
  held_R = score(held_out.pixels_RYWU, held_out.class_R)
  fresh_R = score(*fresh)
  flat = lambda image_RYWU: image_RYWU.reshape(len(image_RYWU), -1)
  outputs_RYWU, class_R = fresh
  shortcut = image_rewards.shortcut(
      score(images.swap_border(outputs_RYWU, proxies.pixels_RYWU), class_R),
      fresh_R,
      score(images.swap_border(held_out.pixels_RYWU, outputs_RYWU),
            held_out.class_R))
  return {
      'held_out_accuracy': image_rewards.accuracy(held_R, fresh_R),
      'memorisation': image_rewards.memorisation(
          score(proxies.pixels_RYWU, proxies.class_R), held_R),
      'frechet': image_rewards.frechet_distance(
          flat(outputs_RYWU), flat(held_out.pixels_RYWU)),
      'diversity': image_rewards.diversity(flat(outputs_RYWU)),
      'shortcut_auc': shortcut.auc, 'shortcut_effect': shortcut.effect}
