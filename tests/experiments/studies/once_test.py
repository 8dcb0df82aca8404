"""What is made once is not taken for something else."""
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from experiments.studies import gram_labels
from experiments.studies import once


class OnceTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
        self.enterContext(tempfile.TemporaryDirectory())) / 'new'

  def make(self, value, what='', name='an arm'):
    return once.made(self.folder, name, what, lambda: {'x': value})['x']

  def test_the_same_is_made_once(self):
    self.assertEqual(self.make(1), 1)
    self.assertEqual(self.make(2), 1)
    self.assertLen(list(self.folder.iterdir()), 1)

  @parameterized.parameters(
      dict(what=gram_labels.SMOKE), dict(what=gram_labels.Sizes(steps=251)),
      dict(what=gram_labels.Sizes(seeds=(5, 6))), dict(name='an arm, ε 0.3'))
  def test_anything_else_is_made_anew(self, **changes):
    same = dict(what=gram_labels.Sizes(), name='an arm, ε 0.1')
    self.assertEqual(self.make(1, **same), 1)
    self.assertEqual(self.make(2, **same | changes), 2)
    self.assertEqual(self.make(3, **same), 1)

  def test_what_breaks_off_leaves_nothing(self):
    with self.assertRaises(ZeroDivisionError):
      once.made(self.folder, 'x', '', lambda: 1 / 0)
    self.assertEqual(once.made(self.folder, 'x', '', lambda: np.ones(2)).sum(),
                     2)


if __name__ == '__main__':
  absltest.main()
