"""Sets of images: what packages ship, folders, and files that are broken."""
import pathlib
import sys
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image

from rljax.data import images


class SetsTest(parameterized.TestCase):

  @parameterized.parameters(('digits', 8, 1_797, 10), ('faces', 12, 200, 2))
  def test_real_images_of_a_package(self, name, size, count, classes):
    found = images.load(name, size)
    self.assertEqual(found.pixels_RYWU.shape, (count, size, size, 1))
    self.assertEqual(found.pixels_RYWU.dtype, np.float32)
    self.assertLen(found.classes, classes)
    self.assertEqual(set(found.class_R), set(range(classes)))
    self.assertGreaterEqual(found.pixels_RYWU.min(), -1)
    self.assertLessEqual(found.pixels_RYWU.max(), 1)
    self.assertGreater(found.pixels_RYWU.std(), 0.2)
    # Images of a class are nearer to its mean than to that of all.
    means = np.stack([found.pixels_RYWU[found.class_R == i].mean(0)
                      for i in range(classes)])
    own = np.mean((found.pixels_RYWU - means[found.class_R])**2)
    self.assertLess(own, np.mean((found.pixels_RYWU - means.mean(0))**2))

  def test_a_missing_package_is_named_with_its_extra(self):
    with mock.patch.dict(sys.modules, {'sklearn': None}):
      with self.assertRaisesRegex(ImportError, r"install 'rljax\[images\]'"):
        images.load('digits', 8)

  def test_parts_share_no_image(self):
    found = images.load('digits', 8)
    parts = images.split(found, (500, 300, 997), seed=3)
    self.assertEqual([len(part) for part in parts], [500, 300, 997])
    hashes = [set(images.digests(part.pixels_RYWU)) for part in parts]
    self.assertEmpty((hashes[0] & hashes[1]) | (hashes[1] & hashes[2]))
    again = images.split(found, (500, 300, 997), seed=3)
    np.testing.assert_array_equal(again[1].pixels_RYWU, parts[1].pixels_RYWU)
    with self.assertRaisesRegex(ValueError, 'Ask for fewer'):
      images.split(found, (1_000, 1_000), seed=0)


class FolderTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enter_context(
        tempfile.TemporaryDirectory()))
    for kind, level in (('dark', 0), ('light', 255)):
      (self.folder / kind).mkdir()
      for i in range(2):
        Image.new('RGB', (20, 12), (level, level, 0)).save(
            self.folder / kind / f'{i}.png')

  def test_subfolders_are_classes(self):
    found = images.load(str(self.folder), 6, channels=3)
    self.assertEqual(found.classes, ('dark', 'light'))
    np.testing.assert_array_equal(found.class_R, [0, 0, 1, 1])
    np.testing.assert_allclose(found.pixels_RYWU[2, 3, 3], [1, 1, -1])
    grey = images.load(str(self.folder), 6)
    self.assertEqual(grey.pixels_RYWU.shape, (4, 6, 6, 1))

  def test_a_new_pixel_is_the_mean_of_those_under_it(self):
    column = np.arange(0, 240, 60, dtype=np.uint8)
    Image.fromarray(np.tile(column, (4, 1))).save(self.folder / 'ramp.png')
    found = images.load(str(self.folder), 2)
    np.testing.assert_allclose(
        found.pixels_RYWU[-1, :, :, 0],
        np.tile(np.array([30, 150]) / 127.5 - 1, (2, 1)), rtol=1e-5)

  def test_it_is_turned_as_the_camera_says(self):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    path = self.folder / 'turned.jpg'
    Image.fromarray(pixels).save(path, exif=exif, quality=100)
    found_YWU = images.read(path, 2, 1)
    np.testing.assert_allclose(found_YWU[..., 0], [[-1, 1], [-1, 1]], atol=.02)

  def test_what_is_transparent_lies_on_black(self):
    path = self.folder / 'clear.png'
    pixels = np.full((2, 2, 4), 255, np.uint8)
    pixels[0, :, 3] = 0  # white that nobody sees
    Image.fromarray(pixels).save(path)
    np.testing.assert_allclose(
        images.read(path, 2, 1)[..., 0], [[-1, -1], [1, 1]])

  def test_sixteen_bits_are_refused_and_not_cut_off(self):
    path = self.folder / 'deep.png'
    Image.fromarray(np.arange(0, 64_000, 1_000, np.uint16).reshape(8, 8)).save(
        path)
    with self.assertRaisesRegex(ValueError, "8 bits a channel.*'I;16'"):
      images.read(path, 8, 1)

  def test_a_file_that_is_no_image_is_named(self):
    (self.folder / 'dark' / 'note.png').write_text('not an image')
    with self.assertRaisesRegex(ValueError, 'note.png.*Replace the file'):
      images.load(str(self.folder), 6)

  def test_a_file_that_is_cut_is_named(self):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3))
    path = self.folder / 'light' / 'cut.png'
    Image.fromarray(noise.astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2_000])
    with self.assertRaisesRegex(ValueError, 'cut.png.*cannot be read'):
      images.load(str(self.folder), 6)

  def test_no_folder_and_an_empty_one_are_refused(self):
    with self.assertRaisesRegex(ValueError, "'digits', 'faces' or a folder"):
      images.load(str(self.folder / 'absent'), 6)
    (self.folder / 'empty').mkdir()
    with self.assertRaisesRegex(ValueError, 'found none'):
      images.load(str(self.folder / 'empty'), 6)
    with self.assertRaisesRegex(ValueError, '1 channel'):
      images.load(str(self.folder), 6, channels=2)


class HashTest(absltest.TestCase):

  def test_one_value_changes_one_hash_and_order_changes_none_of_a_set(self):
    found = images.load('digits', 8).pixels_RYWU[:5]
    other = found.copy()
    other[2, 0, 0, 0] += 1e-3
    same = np.equal(images.digests(found), images.digests(other))
    np.testing.assert_array_equal(same, [True, True, False, True, True])
    self.assertEqual(images.fingerprint(found), images.fingerprint(found[::-1]))
    self.assertNotEqual(images.fingerprint(found), images.fingerprint(other))


class ChangeTest(absltest.TestCase):

  def test_border_blur_and_margin(self):
    found = images.load('digits', 8).take(np.arange(3))
    padded = images.pad(found, 1)
    self.assertEqual(padded.pixels_RYWU.shape, (3, 10, 10, 1))
    framed = images.with_border(padded.pixels_RYWU, 0.5)
    np.testing.assert_array_equal(framed[:, 1:-1, 1:-1], found.pixels_RYWU)
    self.assertEqual(np.sum(framed[0] == 0.5) - np.sum(found.pixels_RYWU[0]
                                                       == 0.5), 36)
    cropped = images.crop(padded.pixels_RYWU)
    self.assertEqual(cropped.shape, padded.pixels_RYWU.shape)
    np.testing.assert_array_equal(cropped[:, 0, -1],
                                  found.pixels_RYWU[:, 0, -1])
    brighter = images.brighten(found.pixels_RYWU, [0.0, 0.5, 3.0])
    np.testing.assert_array_equal(brighter[0], found.pixels_RYWU[0])
    np.testing.assert_allclose(brighter[1], np.minimum(
        found.pixels_RYWU[1] + 0.5, 1))
    self.assertEqual(brighter[2].min(), 1.0)
    # A mean of nine in the middle, and the noise of the seed.
    plain = images.blur(found.pixels_RYWU, 0.0, 0)
    np.testing.assert_allclose(plain[0, 3, 3, 0],
                               found.pixels_RYWU[0, 2:5, 2:5, 0].mean(),
                               rtol=1e-5)
    noisy = images.blur(found.pixels_RYWU, 0.2, 1)
    np.testing.assert_array_equal(noisy, images.blur(found.pixels_RYWU, 0.2, 1))
    self.assertGreater(np.abs(noisy - plain).mean(), 0.05)


if __name__ == '__main__':
  absltest.main()
