"""What joins the second fit: images, labels, and where each comes from."""
import math

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from rljax.data import bootstrap

NAMES = tuple('abcdefgh')


def choose(score, taken=(), **options):
  settings = dict(num_chosen=2, alpha=0.5) | options
  return bootstrap.choose(score, NAMES[:len(score)], set(taken), **settings)


class LabelsTest(parameterized.TestCase):

  @parameterized.parameters(
      (0.1, [1, .9048, .8187, .7408]), (0.5, [1, .6065, .3679, .2231]),
      (0.9, [1, .4066, .1653, .0672]), (0.0, [1, 1, 1, 1]))
  def test_the_table(self, alpha, expected):
    np.testing.assert_allclose(bootstrap.soft_labels(4, alpha), expected,
                               atol=5e-5)
    # Counted from 1, the same table begins one later.
    np.testing.assert_allclose(bootstrap.soft_labels(3, alpha, 1),
                               expected[1:], atol=5e-5)

  @parameterized.parameters(0.02, 0.1, 0.5, 0.9)
  def test_a_warning_comes_where_positives_turn(self, alpha):
    # Above 1/2 while r < ln 2 / α.
    most = math.ceil(math.log(2) / alpha)  # ranks 0 to most - 1 are
    self.assertIsNone(bootstrap.warning(most, alpha))
    found = bootstrap.warning(most + 3, alpha)
    self.assertIn(f'3 of the {most + 3} positives below 1/2', found)
    self.assertIsNotNone(bootstrap.warning(most, alpha, first_rank=1))

  def test_the_warning_names_an_alpha_that_has_none(self):
    self.assertIn('Below 0.0224', bootstrap.warning(32, 0.5))
    self.assertIsNone(bootstrap.warning(32, 0.0223))

  @parameterized.parameters((-0.1, 3, 0), (float('nan'), 3, 0), (1.0, -1, 0),
                            (1.0, 3, -1))
  def test_a_number_out_of_range_is_refused(self, alpha, count, first_rank):
    with self.assertRaisesRegex(ValueError, 'config.bootstrap'):
      bootstrap.soft_labels(count, alpha, first_rank)


class ChooseTest(parameterized.TestCase):

  def test_top_and_bottom(self):
    found = choose([.3, .9, .1, .8, .2, .5])
    np.testing.assert_array_equal(found.top_M, [1, 3])
    np.testing.assert_array_equal(found.bottom_M, [2, 4])
    np.testing.assert_allclose(found.top_label_M, [1, math.exp(-0.5)])
    np.testing.assert_array_equal(found.bottom_label_M, [0, 0])
    rising = choose([.3, .9, .1, .8, .2, .5], rising=True)
    np.testing.assert_allclose(rising.bottom_label_M,
                               [0, 1 - math.exp(-0.5)], rtol=1e-6)

  def test_ties_go_by_place(self):
    found = choose([.5] * 6)
    np.testing.assert_array_equal(found.top_M, [0, 1])
    np.testing.assert_array_equal(found.bottom_M, [5, 4])

  def test_images_of_the_training_set_are_left_out(self):
    found = choose([.3, .9, .1, .8, .2, .5], taken='bc')
    np.testing.assert_array_equal(found.top_M, [3, 5])
    np.testing.assert_array_equal(found.bottom_M, [4, 0])

  @parameterized.parameters((3, '', None), (4, '', 'overlap'),
                            (3, 'a', 'half of the 5'), (-1, '', 'got -1'))
  def test_ends_that_overlap_are_refused(self, count, taken, message):
    scores = [.3, .9, .1, .8, .2, .5]
    if message is None:
      self.assertLen(choose(scores, taken, num_chosen=count).index_R, 6)
      return
    with self.assertRaisesRegex(ValueError, message):
      choose(scores, taken, num_chosen=count)

  def test_none_is_none(self):
    found = choose([.3, .9], num_chosen=0)
    self.assertEqual((found.index_R.size, found.label_R.size), (0, 0))

  def test_a_score_that_is_no_number_is_refused(self):
    with self.assertRaisesRegex(ValueError, '1 that are not'):
      choose([.3, float('nan'), .1, .2])


class LineageTest(absltest.TestCase):

  def test_every_row_says_where_it_comes_from(self):
    chosen = choose([.3, .9, .1, .8, .2, .5])
    rows = bootstrap.lineage(2, ['p'], ['q', 'r'], NAMES, chosen)
    self.assertEqual([row['source'] for row in rows], [
        'proxy', 'output', 'output', 'top', 'top', 'bottom', 'bottom'])
    self.assertEqual([row['image'] for row in rows], list('pqrbdce'))
    self.assertEqual([row['rank'] for row in rows],
                     [None, None, None, 0, 1, 0, 1])
    np.testing.assert_allclose([row['label'] for row in rows],
                               [1, 0, 0, 1, math.exp(-0.5), 0, 0])
    self.assertEqual({row['round'] for row in rows}, {2})


if __name__ == '__main__':
  absltest.main()
