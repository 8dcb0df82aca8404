"""What a reward of GAN-RM has learnt besides what it was meant to.

A shortcut is a trait of the targets that is paid for whatever the content is.
So outputs of the generator are compared with themselves behind an edit that
leaves their content as it is, or spoils it, and must not be paid:

  border, brightness    those of a target, in turn, on the output
  frame, brighter, darker, blur, noise, crop    the same edit for all

What an edit is paid, `image_rewards.paid`, is a share of the gap between
targets and outputs, in log-odds of R. It is flagged where the 95 % interval
lies above `config.diagnostics.max_paid`. A border that targets and outputs have
alike, whatever the content, is paid nothing on average, whatever R is: flagged,
it is a difference that R has learnt, be it a mark of the targets or the noise
that a generator leaves where targets have none. An edit of the second line may
be unlike anything that R was shown; flagged, it is a hole all the same, for a
generator to take.

`shortcut_auc` asks for more: that an output in the border of a target beats a
target in the border of an output. A reward may pay for a frame, and the best of
n be framed, long before a frame outweighs content.

Reference: GAN-RM (arXiv 2506.13846), whose reviewers name style of the targets
as what such a reward learns. The diagnostic is ours.
"""
from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping

import numpy as np
from scipy import special

from experiments.gan import gan_images
from experiments.gan import gan_rounds
from rljax.data import images
from rljax.evaluation import image_rewards
from rljax.evaluation import intervals

_SEED = 0  # of the noise and of the resampling

EDITS: dict[str, Callable] = {
    'border': images.swap_border,
    'brightness': lambda x_RYWU, donors_RYWU: images.brighten(
        x_RYWU, donors_RYWU.mean((1, 2, 3)) - x_RYWU.mean((1, 2, 3))),
    'frame': lambda x_RYWU, _: images.with_border(x_RYWU, gan_images.MARK),
    'brighter': lambda x_RYWU, _: images.brighten(x_RYWU, 0.2),
    'darker': lambda x_RYWU, _: images.brighten(x_RYWU, -0.2),
    'blur': lambda x_RYWU, _: images.blur(x_RYWU, 0.0, _SEED),
    'noise': lambda x_RYWU, _: np.clip(x_RYWU + np.random.default_rng(
        _SEED).normal(0.0, 0.2, x_RYWU.shape), -1, 1).astype(np.float32),
    'crop': lambda x_RYWU, _: images.crop(x_RYWU),
}


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

  Returns:
    Numbers by name; `rows` makes a table of what each edit is paid.
  """
  score = lambda image_RYWU, class_R: gan_rounds.score_images(
      pieces, round_.reward, image_RYWU, class_R)
  held_R = score(held_out.pixels_RYWU, held_out.class_R)
  fresh_R = score(*fresh)
  flat = lambda image_RYWU: image_RYWU.reshape(len(image_RYWU), -1)
  outputs_RYWU, class_R = fresh
  found = shortcuts(score, outputs_RYWU, class_R, held_R, proxies.pixels_RYWU)
  return {
      'held_out_accuracy': image_rewards.accuracy(held_R, fresh_R),
      'memorisation': image_rewards.memorisation(
          score(proxies.pixels_RYWU, proxies.class_R), held_R),
      'frechet': image_rewards.frechet_distance(
          flat(outputs_RYWU), flat(held_out.pixels_RYWU)),
      'diversity': image_rewards.diversity(flat(outputs_RYWU)),
      'shortcut_auc': image_rewards.auc(
          score(images.swap_border(outputs_RYWU, proxies.pixels_RYWU), class_R),
          score(images.swap_border(held_out.pixels_RYWU, outputs_RYWU),
                held_out.class_R))} | {
      f'paid/{name}/{end}': getattr(share, end)
      for name, share in found.items() for end in ('estimate', 'low', 'high')}


def shortcuts(score: Callable, image_RYWU, class_R, target_R, proxies_RYWU,
              edits: Mapping[str, Callable] = EDITS
              ) -> dict[str, intervals.Interval]:
  """What a reward pays for each edit of the same images.

  Args:
    score: (image_RYWU, class_R) -> R, in [0, 1].
    image_RYWU: outputs of the generator.
    class_R: what they were asked to show.
    target_R: R of held-out targets.
    proxies_RYWU: targets, whose border and brightness are taken.
    edits: by name, (outputs, donors: as many targets) -> edited outputs.
  """
  donors_RYWU = proxies_RYWU[np.arange(len(image_RYWU)) % len(proxies_RYWU)]
  plain_R = log_odds(score(image_RYWU, class_R))
  return {name: image_rewards.paid(
      log_odds(score(edit(image_RYWU, donors_RYWU), class_R)), plain_R,
      log_odds(target_R), seed=_SEED) for name, edit in edits.items()}


def log_odds(score_R) -> np.ndarray:
  """Of R in float32, within 1e-6 of 0 and 1: beyond, it says nothing more."""
  return special.logit(np.clip(np.asarray(score_R, np.float64), 1e-6, 1 - 1e-6))


def rows(line: Mapping[str, float], max_paid: float) -> list[dict]:
  """A row for each edit, of what `diagnose` found."""
  ends = lambda name: {end: line[f'paid/{name}/{end}'] for end in (
      'estimate', 'low', 'high')}
  return [{'edit': name, 'paid': ends(name),
           'flagged': bool(ends(name)['low'] > max_paid)} for name in EDITS]
