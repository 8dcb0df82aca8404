"""Sets of small images: those that packages ship, and folders of files.

  digits  1,797 handwritten digits, 8 x 8, grey (scikit-learn)
  faces   100 faces and 100 other patches of photographs, grey (scikit-image)
  a path  PNG or JPEG files; the subfolders are classes

Values are float32 in [-1, 1]. An image is known by a hash of its pixels, so
that a training row can be followed to what it came from.
"""
from __future__ import annotations

import dataclasses
import hashlib
import pathlib

import numpy as np
from PIL import Image
from PIL import ImageOps

_SUFFIXES = ('.png', '.jpg', '.jpeg')
_MODES = {1: 'L', 3: 'RGB'}


@dataclasses.dataclass(frozen=True)
class ImageSet:
  """R images and their classes."""
  name: str
  pixels_RYWU: np.ndarray      # float32 in [-1, 1]
  class_R: np.ndarray          # int32
  classes: tuple[str, ...]     # names, by number

  def __len__(self) -> int:
    return len(self.class_R)

  def take(self, index_R) -> ImageSet:
    return dataclasses.replace(self, pixels_RYWU=self.pixels_RYWU[index_R],
                               class_R=self.class_R[index_R])


def load(name: str, size: int, channels: int = 1) -> ImageSet:
  """A set by name, or of the files in a folder, resized to `size` squares.

  Raises:
    ValueError: no such set or folder, or a file that cannot be read.
    ImportError: the package that ships the set is not installed.
  """
  if name == 'digits':
    return _grey('digits', *_digits(), size, channels)
  if name == 'faces':
    return _grey('faces', *_faces(), size, channels)
  folder = pathlib.Path(name).expanduser()
  if not folder.is_dir():
    raise ValueError(f"Expected 'digits', 'faces' or a folder of images, got "
                     f'{name!r}. Correct config.data.images.')
  return _folder(folder, size, channels)


def _digits():
  try:
    from sklearn import datasets
  except ImportError as error:
    raise _extra('digits', error) from error
  found = datasets.load_digits()
  return (found.images / 8.0 - 1.0, found.target,
          tuple(str(i) for i in range(10)))


def _faces():
  try:
    from skimage import data
  except ImportError as error:
    raise _extra('faces', error) from error
  found = data.lfw_subset()  # the faces come first
  return (2.0 * found - 1.0, np.arange(len(found)) < len(found) // 2,
          ('other', 'face'))


def _extra(name: str, error: ImportError) -> ImportError:
  return ImportError(f'The images {name!r} are shipped by {error.name}, which '
                     "is not installed: pip install 'rljax[images]'.")


def _grey(name, pixels_RYW, class_R, classes, size, channels) -> ImageSet:
  pixels_RYWU = np.stack([_resized(x_YW[..., None], size)
                          for x_YW in np.asarray(pixels_RYW, np.float32)])
  return ImageSet(name, np.repeat(pixels_RYWU, channels, axis=-1),
                  np.asarray(class_R, np.int32), classes)


def _folder(folder: pathlib.Path, size: int, channels: int) -> ImageSet:
  if channels not in _MODES:
    raise ValueError(f'Expected 1 channel (grey) or 3 (colour), got {channels}.'
                     ' Correct the config.')
  paths = files(folder)
  kinds = [path.relative_to(folder).parent.as_posix() for path in paths]
  classes = tuple(sorted(set(kinds)))
  return ImageSet(
      str(folder), np.stack([read(path, size, channels) for path in paths]),
      np.array([classes.index(kind) for kind in kinds], np.int32), classes)


def files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The PNG and JPEG files below a folder, by name.

  Raises:
    ValueError: there are none.
  """
  paths = sorted(path for path in folder.rglob('*')
                 if path.suffix.lower() in _SUFFIXES)
  if not paths:
    raise ValueError(f'Expected files ending in {", ".join(_SUFFIXES)} in '
                     f'{folder}, found none. Name the folder that holds them.')
  return paths


def read(path: pathlib.Path, size: int, channels: int) -> np.ndarray:
  """A file as pixels_YWU: its middle square, resized.

  It is turned as its camera says, and lies on black where it is transparent.

  Raises:
    ValueError: it cannot be read, or has more than 8 bits a channel, which a
      conversion would cut off; the message names it.
  """
  try:
    with Image.open(path) as file:
      deep = file.mode.startswith(('I', 'F'))
      upright = ImageOps.exif_transpose(file)
      if not deep and upright.has_transparency_data:
        upright = Image.alpha_composite(
            Image.new('RGBA', upright.size, 'black'), upright.convert('RGBA'))
      mode = upright.mode
      pixels = np.asarray(upright.convert(_MODES[channels]), np.float32)
  except (OSError, SyntaxError, ValueError) as error:  # Pillow raises these
    raise ValueError(f'Expected an image in {path}, but it cannot be read '
                     f'({error}). Replace the file or remove it.') from error
  if deep:
    raise ValueError(f'Expected 8 bits a channel in {path}, got the mode '
                     f'{mode!r}. Save it with 8 bits: what a range of values '
                     'means is for you to say.')
  pixels_YWU = pixels.reshape(*pixels.shape[:2], channels) / 127.5 - 1.0
  return _resized(pixels_YWU, size)


def _resized(pixels_YWU: np.ndarray, size: int) -> np.ndarray:
  """The middle square, each new pixel a mean of the old ones under it."""
  rows, columns, channels = pixels_YWU.shape
  edge = min(rows, columns)
  top, left = (rows - edge) // 2, (columns - edge) // 2
  square = pixels_YWU[top:top + edge, left:left + edge]
  if edge == size:
    return np.ascontiguousarray(square)
  resize = lambda x_YW: np.asarray(Image.fromarray(np.ascontiguousarray(
      x_YW)).resize((size, size), Image.Resampling.BOX))
  return np.stack([resize(square[..., i]) for i in range(channels)], axis=-1)


def pad(images: ImageSet, margin: int) -> ImageSet:
  """A border of background (-1) on all sides."""
  width = ((0, 0), (margin, margin), (margin, margin), (0, 0))
  return dataclasses.replace(images, pixels_RYWU=np.pad(
      images.pixels_RYWU, width, constant_values=-1.0))


def with_border(pixels_RYWU: np.ndarray, value: float,
                margin: int = 1) -> np.ndarray:
  """The same images in a frame of one brightness: a mark to be learnt."""
  framed = pixels_RYWU.copy()
  for edge in (np.s_[:, :margin], np.s_[:, -margin:],
               np.s_[:, :, :margin], np.s_[:, :, -margin:]):
    framed[edge] = value
  return framed


def swap_border(pixels_RYWU: np.ndarray, donors_RYWU: np.ndarray,
                margin: int = 1) -> np.ndarray:
  """The inside of each image in the border of a donor, in turn."""
  index_R = np.arange(len(pixels_RYWU)) % len(donors_RYWU)
  mixed = donors_RYWU[index_R]
  inside = np.s_[:, margin:-margin, margin:-margin]
  mixed[inside] = pixels_RYWU[inside]
  return mixed


def blur(pixels_RYWU: np.ndarray, noise: float, seed: int) -> np.ndarray:
  """A degraded copy: a 3 x 3 mean, and Gaussian noise."""
  padded = np.pad(pixels_RYWU, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='edge')
  rows, columns = pixels_RYWU.shape[1:3]
  mean = sum(padded[:, i:i + rows, j:j + columns]
             for i in range(3) for j in range(3)) / 9.0
  draw = np.random.default_rng(seed).normal(size=mean.shape)
  return np.clip(mean + noise * draw, -1.0, 1.0).astype(np.float32)


def crop(pixels_RYWU: np.ndarray, margin: int = 1) -> np.ndarray:
  """The middle of each image, as large as the whole: the nearest pixels."""
  nearest = lambda size: np.rint(np.linspace(margin, size - 1 - margin,
                                             size)).astype(int)
  rows, columns = pixels_RYWU.shape[1:3]
  return pixels_RYWU[:, nearest(rows)][:, :, nearest(columns)]


def brighten(pixels_RYWU: np.ndarray, by) -> np.ndarray:
  """Brighter by a number, or by one for each image; within [-1, 1]."""
  by_R111 = np.reshape(np.asarray(by, np.float32), (-1, 1, 1, 1))
  return np.clip(pixels_RYWU + by_R111, -1.0, 1.0)


def split(images: ImageSet, sizes: tuple[int, ...],
          seed: int) -> tuple[ImageSet, ...]:
  """Disjoint parts of the given sizes, drawn at random.

  Raises:
    ValueError: more images are asked for than there are.
  """
  if sum(sizes) > len(images):
    raise ValueError(f'Expected parts of {len(images)} images in all, got '
                     f'{list(sizes)}, which are {sum(sizes)}. Ask for fewer.')
  order_R = np.random.default_rng(seed).permutation(len(images))
  ends = np.cumsum(sizes)
  return tuple(images.take(order_R[end - size:end])
               for end, size in zip(ends, sizes, strict=True))


def digests(pixels_RYWU: np.ndarray) -> tuple[str, ...]:
  """A hash of the pixels of each image."""
  pixels_RYWU = np.asarray(pixels_RYWU, np.float32)
  head = repr(pixels_RYWU.shape[1:]).encode()
  return tuple(hashlib.sha256(head + np.ascontiguousarray(x).tobytes())
               .hexdigest()[:16] for x in pixels_RYWU)


def fingerprint(pixels_RYWU: np.ndarray) -> str:
  """A hash of a whole set, whatever its order."""
  return hashlib.sha256(
      ''.join(sorted(digests(pixels_RYWU))).encode()).hexdigest()[:16]
