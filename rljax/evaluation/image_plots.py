"""Grids of small images."""
from __future__ import annotations

from collections.abc import Mapping
import pathlib

from matplotlib import figure
from matplotlib.backends import backend_agg
import numpy as np


def grid(rows: Mapping[str, np.ndarray], path, title: str) -> pathlib.Path:
  """A PNG with a labelled row of images for each entry.

  Args:
    rows: label -> images [R, Y, W, U] in [-1, 1], grey or colour; as many are
      shown as the shortest row has.
    path: of the PNG.
    title: above it.
  """
  count = min(len(image_RYWU) for image_RYWU in rows.values())
  shown = [np.concatenate([np.pad(x, ((1, 1), (1, 1), (0, 0)),
                                  constant_values=1.0)
                           for x in image_RYWU[:count]], axis=1)
           for image_RYWU in rows.values()]
  whole_YWU = np.clip((np.concatenate(shown) + 1) / 2, 0, 1)
  if whole_YWU.shape[-1] == 1:
    whole_YWU = whole_YWU[..., 0]
  height = shown[0].shape[0]
  fig = figure.Figure(figsize=(1.8 + 0.42 * count, 0.7 + 0.45 * len(rows)),
                      layout='constrained')
  backend_agg.FigureCanvasAgg(fig)
  axes = fig.add_subplot()
  axes.imshow(whole_YWU, cmap='gray', vmin=0, vmax=1, interpolation='nearest')
  axes.set_yticks(height * (np.arange(len(rows)) + 0.5) - 0.5, list(rows))
  axes.set_xticks([])
  axes.tick_params(length=0)
  axes.spines[:].set_visible(False)
  axes.set_title(title, loc='left', fontsize='medium')
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  fig.savefig(path, dpi=110)
  return path
