"""The host holds a piece, never the model."""
import pathlib
import tempfile

from absl.testing import absltest
import pytest

from experiments.benchmarking.subjects import import_memory
from rljax.interop import tensor_files


class ImportMemoryTest(absltest.TestCase):

  def test_a_piece_is_held_and_a_loader_of_the_whole_is_found_out(self):
    row, = import_memory.run(None, True, None)
    streamed, whole = (row['processes'][way] for way in ('streamed', 'whole'))
    self.assertGreater(streamed['parameters'], 0.5)
    self.assertEqual(whole['held'], whole['parameters'])
    # At 0.5 GiB the limit itself would let the whole through.
    self.assertLess(streamed['beyond'], 0.3)
    self.assertGreater(whole['beyond'], whole['parameters'])

  @pytest.mark.slow
  def test_the_peak_is_below_the_largest_tensor_plus_one_gib(self):
    row, = import_memory.run(None, False, None)
    self.assertLess(row['rljax'], row['limit'])
    self.assertGreater(row['peers']['whole checkpoint first'], row['limit'])

  def test_the_checkpoint_is_as_large_as_asked_and_in_files(self):
    folder = pathlib.Path(self.enter_context(
        tempfile.TemporaryDirectory())) / 'model'
    import_memory.make(folder, 0.25, 64 << 20)
    files = list(folder.glob('*.safetensors'))
    self.assertGreater(len(files), 2)
    self.assertAlmostEqual(sum(path.stat().st_size for path in files)
                           / import_memory.GIB, 0.25, delta=0.1)
    self.assertIn('model.norm.weight', tensor_files.Folder(folder).shapes())


if __name__ == '__main__':
  absltest.main()
