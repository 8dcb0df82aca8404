"""Notebooks: short, stored without outputs, and they run from the top."""
import os
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import nbclient
import nbformat

_ROOT = pathlib.Path(__file__).parents[1]
_NAMES = tuple(sorted(
    path.stem for path in (_ROOT / 'notebooks').glob('*.ipynb')))


def read(name):
  return nbformat.read(_ROOT / 'notebooks' / f'{name}.ipynb', as_version=4)


def code_cells(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


def execute(notebook, folder):
  """Runs all cells; returns what each has printed, and the number of images."""
  # One device, data in the folder, and code that compiles fast.
  environment = os.environ | {
      'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(_ROOT), 'HOME': folder,
      'IPYTHONDIR': folder,
      'XLA_FLAGS': '--xla_backend_optimization_level=0 '
                   '--xla_cpu_use_fusion_emitters=false'}
  nbclient.NotebookClient(
      notebook, timeout=540, kernel_name='python3',
      resources={'metadata': {'path': folder}}).execute(env=environment)
  outputs = [cell.outputs for cell in code_cells(notebook)]
  printed = [''.join(out.text for out in cell if out.output_type == 'stream')
             for cell in outputs]
  return printed, sum('image/png' in out.get('data', {})
                      for cell in outputs for out in cell)


class FormTest(parameterized.TestCase):

  def test_there_are_some(self):
    self.assertIn('quickstart', _NAMES)

  @parameterized.parameters(*_NAMES)
  def test_it_has_at_most_80_lines_of_code(self, name):
    lines = [line for cell in code_cells(read(name))
             for line in cell.source.splitlines() if line.strip()]
    self.assertBetween(len(lines), 1, 80)

  @parameterized.parameters(*_NAMES)
  def test_no_outputs_are_stored(self, name):
    for cell in code_cells(read(name)):
      self.assertEmpty(cell.outputs)
      self.assertIsNone(cell.execution_count)

  @parameterized.parameters(*_NAMES)
  def test_it_opens_in_colab_by_the_link_of_the_readme(self, name):
    first = read(name).cells[0].source
    link = first[first.index('(https://colab.research.google.com/github/'):]
    link = link[:link.index(')') + 1]
    self.assertEndsWith(link, f'/notebooks/{name}.ipynb)')
    self.assertIn(link, (_ROOT / 'README.md').read_text())


class RunTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = self.enterContext(tempfile.TemporaryDirectory())

  def test_quickstart(self):
    printed, images = execute(read('quickstart'), self.folder)
    self.assertTrue((pathlib.Path(self.folder)
                     / 'runs/quickstart_smoke/report.md').exists())
    text = ''.join(printed)
    self.assertEqual(printed[0], '')  # inside a clone nothing is installed
    self.assertEqual(printed[1].count('True'), 3)
    for part in ('devices  1 x cpu', 'chosen:', 'gain by RL', 'rollout',
                 'all stages       science '):
      self.assertIn(part, text)
    # Two tokens' weights by hand: c3po 1/4, 1/4; grpo 1/(2·1), 1/(2·3).
    self.assertIn('weights [[0.25 0.25 0.25 0.25 0.  ]]', text)
    self.assertIn('weights [[0.5        0.16666667', text)
    self.assertEqual(images, 3)

  def test_preferences(self):
    printed, images = execute(read('preferences'), self.folder)
    text = ''.join(printed)
    self.assertEqual(printed[0], '')
    for name in ('dpo', 'tgdpo', 'reward'):
      self.assertTrue((pathlib.Path(self.folder) / 'runs/preferences_smoke'
                       / name / 'report.md').exists())
    # By hand, all of it times -σ(0): 1 for each token; 1 + .5 (0, 1, -1) for
    # those chosen and -(1 - .5 (0, -1)) for those rejected.
    for slopes in ("tgdpo {'alpha': 0} loss 0.6931, gradient "
                   '[[-0.5 -0.5 -0.5  0.5  0.5]]',
                   '[[-0.5  -0.75 -0.25  0.5   0.75]]'):
      self.assertIn(slopes, text)
    # At first the policy is its reference: no pair is won or lost.
    self.assertEqual(text.count(
        'before reward accuracy 0.500 [0.500, 0.500]'), 2)
    self.assertIn('first wins [True, True]', text)
    # (σ(.5) + σ(-2.5)) / 2 = (.6225 + .0759) / 2
    self.assertIn('both orders: [0.349 0.651] sum 1.0', text)
    self.assertIn('both orders: [0.651 0.349] sum 1.0', text)
    self.assertEqual(images, 1)


if __name__ == '__main__':
  absltest.main()
