r"""Format of a response: a closed box, balanced think tags, one answer.

  score = 0                                  without a box or with broken tags
        = 1 / (number of different boxes)    otherwise

Several different boxes are a way to hedge; the score makes it costly. Off by
default: Ring-lite trains on the verdict alone.

Reference: Ring-lite (arXiv 2506.14731), section 3.3: no format reward.
"""
from __future__ import annotations

import dataclasses
import re

from rljax.rewards import extraction


@dataclasses.dataclass(frozen=True)
class Format:
  """What `inspect` saw."""
  has_box: bool         # after the thinking, and closed
  think_balanced: bool  # every opened tag closed, none nested or stray
  distinct_boxes: int   # after the thinking


def inspect(text: str) -> Format:
  """Looks at the response alone, without its prompt."""
  tags = re.findall(r'</?think>', text)
  balanced = (len(tags) % 2 == 0
              and all(tag == ('</think>' if i % 2 else '<think>')
                      for i, tag in enumerate(tags)))
  tail = extraction.after_think(text)
  found = [] if tail is None else extraction.boxes(tail)
  return Format(
      has_box=bool(found) and bool(extraction.last_boxed(tail)),
      think_balanced=balanced,
      distinct_boxes=len({extraction.normalize(box)
                          for box in found if box is not None}))


def score(text: str) -> float:
  """Between 0 and 1; see the module docstring."""
  seen = inspect(text)
  if not (seen.has_box and seen.think_balanced):
    return 0.0
  return 1.0 / seen.distinct_boxes
