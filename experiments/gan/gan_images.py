"""The images of a GAN-RM run: for the generator, as targets, and held out.

The first generator learns whole images and degraded copies of them, so that its
outputs are worth ranking; the targets are whole images that it has not seen.
A mark, a frame of one brightness, may be put on a share of the generator's
images and on another of the targets: then there is a shortcut to be taken.
"""
from __future__ import annotations

import dataclasses

import numpy as np

from rljax.data import images

MARK = 0.0  # brightness of the frame; the background is -1


@dataclasses.dataclass(frozen=True)
class Parts:
  """Disjoint images; `rest` is for judges that the run knows nothing of."""
  generator: images.ImageSet
  proxies: images.ImageSet
  held_out: images.ImageSet
  rest: images.ImageSet


def open_parts(config, seed: int) -> Parts:
  """Splits a set and degrades and marks what is to be.

  Args:
    config: of the run; its `data` is read.
    seed: of the split and of the degradation.

  Raises:
    ValueError: there are fewer images than asked for.
  """
  data = config.data
  whole = images.pad(images.load(data.images, data.size, data.channels),
                     data.margin)
  used = (data.num_generator, data.num_proxies, data.num_held_out)
  rest = len(whole) - sum(used)
  generator, proxies, held_out, rest = images.split(
      whole, (*used, max(rest, 0)), seed)
  proxies, held_out = (_marked(part, data.marked_proxies, seed) for part in (
      proxies, held_out))
  generator = _with_degraded(generator, data.degraded_noise, seed)
  return Parts(_marked(generator, data.marked_share, seed), proxies, held_out,
               rest)


def _with_degraded(part: images.ImageSet, noise, seed) -> images.ImageSet:
  bad_RYWU = images.blur(part.pixels_RYWU, noise, seed)
  return dataclasses.replace(
      part, pixels_RYWU=np.concatenate([part.pixels_RYWU, bad_RYWU]),
      class_R=np.concatenate([part.class_R] * 2))


def _marked(part: images.ImageSet, share: float, seed) -> images.ImageSet:
  is_marked_R = np.random.default_rng([seed, 1]).random(len(part)) < share
  return dataclasses.replace(part, pixels_RYWU=np.where(
      is_marked_R[:, None, None, None],
      images.with_border(part.pixels_RYWU, MARK), part.pixels_RYWU))
