"""A saved reward of GAN-RM scores files as the run scored its images."""
import functools
import json
import pathlib
import shutil
import tempfile
import types
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image

from experiments import score_images
from experiments import train_gan_rm
from experiments.gan import gan_images
from experiments.gan import gan_reward
from experiments.gan import gan_rounds
from experiments.job import launch
from rljax.data import images
from rljax.training import metrics
from tests import configs_test

_FOLDERS = []


def tearDownModule():
  for folder in _FOLDERS:
    shutil.rmtree(folder)


# Reading a reward compiles its encoder, so each is read once.
load = functools.cache(gan_reward.load)


def get_config(conditioned=False):
  config = configs_test.module('configs/gan/gan_rm_digits.py').get_config(
      'smoke')
  config.reward.conditioned = conditioned
  config.num_rounds = 1 if conditioned else 2
  return config


@functools.cache
def trained(conditioned=False):
  """(folder of a run, its rounds as they were played, its pieces)."""
  folder = pathlib.Path(tempfile.mkdtemp())
  _FOLDERS.append(folder)
  rounds, pieces, play = [], [], gan_rounds.play

  def kept(*args):
    pieces.append(args[0])
    rounds.append(play(*args))
    return rounds[-1]

  with (mock.patch.object(launch, 'say'),
        mock.patch.object(gan_rounds, 'play', kept)):
    train_gan_rm.run(get_config(conditioned), str(folder / 'run'))
  return folder / 'run', rounds, pieces[0]


def ask(test, named, conditioned=False, **options):
  """(what `run` returns, what it prints)."""
  run, _, _ = trained(conditioned)
  workdir = test.enter_context(tempfile.TemporaryDirectory())
  with (mock.patch.object(launch, 'say') as say,
        mock.patch.object(gan_reward, 'load', load)):
    found = score_images.run(str(run), [str(name) for name in named], workdir,
                             **options)
  stored = json.loads((pathlib.Path(workdir) / 'scores.json').read_text())
  test.assertEqual(stored, found)
  return found, [call.args[0] for call in say.call_args_list]


class RewardTest(parameterized.TestCase):

  @parameterized.parameters(0, 1, -1)
  def test_scores_are_those_of_the_run(self, number):
    run, rounds, pieces = trained()
    config = get_config()
    parts = gan_images.open_parts(config, config.seed)
    reward = load(run, number)
    found = [reward(part.pixels_RYWU, part.class_R)
             for part in (parts.proxies, parts.held_out)]
    expected = [gan_rounds.score_images(
        pieces, rounds[number].reward, part.pixels_RYWU, part.class_R)
        for part in (parts.proxies, parts.held_out)]
    np.testing.assert_array_equal(found, expected)
    self.assertGreater(np.std(found), 1e-3)  # else nothing is compared
    # And those that the run wrote down.
    line = [line for line in metrics.read(run / metrics.FILE_NAME)
            if 'memorisation' in line][number]
    self.assertAlmostEqual(found[0].mean() - found[1].mean(),
                           line['memorisation'], places=6)

  def test_rounds_have_rewards_of_their_own(self):
    run, _, _ = trained()
    image_RYWU = gan_images.open_parts(get_config(), 0).held_out.pixels_RYWU
    class_R = np.zeros(len(image_RYWU), np.int32)
    first, last = (load(run, i)(image_RYWU, class_R) for i in (0, 1))
    self.assertGreater(np.abs(first - last).max(), 1e-4)

  def test_what_is_no_run_and_no_round_is_refused(self):
    run, _, _ = trained()
    with self.assertRaisesRegex(ValueError, r'round among \[0, 1\], got 7'):
      gan_reward.load(run, 7)
    with self.assertRaisesRegex(ValueError, 'no config.json'):
      gan_reward.load(run / 'plots')
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    shutil.copy(run / 'config.json', folder)
    with self.assertRaisesRegex(ValueError, 'behind its first round'):
      gan_reward.load(folder)


class FilesTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enter_context(
        tempfile.TemporaryDirectory()))
    whole = images.load('digits', 8)
    # More than a batch, of two folders named by their class.
    self.paths = []
    for kind in (3, 5):
      (self.folder / str(kind)).mkdir()
      for i, at in enumerate(np.flatnonzero(whole.class_R == kind)[:40]):
        path = self.folder / str(kind) / f'{i:02}.png'
        Image.fromarray(np.rint((whole.pixels_RYWU[at, ..., 0] + 1) * 127.5
                                ).astype(np.uint8)).save(path)
        self.paths.append(path)

  def expected(self, conditioned=False):
    """Scores in the run of the same files, all at once."""
    _, rounds, pieces = trained(conditioned)
    part = images.pad(images.load(str(self.folder), 8), 1)
    class_R = np.array([3, 5])[part.class_R]
    return gan_rounds.score_images(pieces, rounds[-1].reward,
                                   part.pixels_RYWU, class_R)

  @parameterized.parameters(False, True)
  def test_files_are_scored_as_in_the_run(self, conditioned):
    found, _ = ask(self, [self.folder], conditioned)
    self.assertEqual([row['image'] for row in found['scores']],
                     [str(path) for path in self.paths])
    np.testing.assert_allclose([row['score'] for row in found['scores']],
                               self.expected(conditioned), atol=1e-6)
    # In an order of its own, and one by one, an image scores the same.
    again, _ = ask(self, [self.paths[7], self.paths[2]], conditioned)
    np.testing.assert_allclose(
        [row['score'] for row in again['scores']],
        self.expected(conditioned)[[7, 2]], atol=1e-6)

  def test_best_of_n_of_all_and_of_each_folder(self):
    scores = self.expected()
    found, said = ask(self, [self.folder], best=3)
    order = np.argsort(-scores, kind='stable')
    self.assertEqual([row['image'] for row in found['best']],
                     [str(self.paths[i]) for i in order[:3]])
    self.assertLen(said, 4)
    self.assertIn(str(self.paths[order[0]]), said[1])
    each, _ = ask(self, [self.folder], each_folder=True)
    self.assertEqual(
        [row['image'] for row in each['best']],
        [str(self.paths[i]) for i in (scores[:40].argmax(),
                                      40 + scores[40:].argmax())])

  def test_a_file_that_cannot_be_read_is_named_or_listed(self):
    bad = self.folder / '3' / 'cut.png'
    bad.write_bytes(self.paths[0].read_bytes()[:40])
    with self.assertRaisesRegex(ValueError, 'cut.png.*cannot be read'):
      ask(self, [self.folder])
    found, said = ask(self, [self.folder], skip_unreadable=True)
    self.assertLen(found['scores'], 80)
    self.assertEqual([row['image'] for row in found['unreadable']], [str(bad)])
    self.assertIn('1 could not be read', said[0])
    with self.assertRaisesRegex(ValueError, 'got none of 1.*cut.png'):
      ask(self, [bad], skip_unreadable=True)

  def test_what_cannot_be_asked_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'not there. Correct --images'):
      ask(self, [self.folder / 'absent'])
    with self.assertRaisesRegex(ValueError, 'found none'):
      (self.folder / 'empty').mkdir()
      ask(self, [self.folder / 'empty'])
    with self.assertRaisesRegex(ValueError, 'Name files or folders'):
      ask(self, [])
    with self.assertRaisesRegex(ValueError, '--best >= 1, got 0'):
      ask(self, [self.folder], best=0)

  def test_classes_of_nested_and_of_flat_folders(self):
    ask_for = lambda *names, of: score_images.classes(types.SimpleNamespace(
        conditioned=True, classes=of), [
            pathlib.Path('/data', name, 'a.png') for name in names]).tolist()
    self.assertEqual(ask_for('train/cat', 'train/dog', 'cat',
                             of=('cat', 'train/cat', 'train/dog')), [1, 2, 0])
    self.assertEqual(ask_for('any', 'train/cat', of=('.',)), [0, 0])
    with self.assertRaisesRegex(ValueError, r"got \['cat'\]"):
      ask_for('test/cat', of=('train/cat',))

  def test_a_class_that_a_conditioned_reward_does_not_know_is_refused(self):
    (self.folder / '3').rename(self.folder / 'three')
    with self.assertRaisesRegex(ValueError, r"got \['three'\]"):
      ask(self, [self.folder], conditioned=True)
    ask(self, [self.folder])  # the other does not look at it


if __name__ == '__main__':
  absltest.main()
