"""Metric lines survive kills and resumes; compilations are counted."""
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from tensorboardX import proto

from rljax.training import metrics


class MetricWriterTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
        self.enterContext(tempfile.TemporaryDirectory()))
    self.file = self.folder / metrics.FILE_NAME

  def steps(self):
    return [record['step'] for record in metrics.read(self.file)]

  def write_steps(self, *steps, resume_step=0):
    with metrics.MetricWriter(self.folder, resume_step) as writer:
      for step in steps:
        writer.write(step, {'loss': jnp.float32(step) / 2})

  def test_values_come_back(self):
    with metrics.MetricWriter(self.folder) as writer:
      writer.write(0, {'loss': jnp.float32(0.5), 'load': jnp.ones((2, 2)),
                       'count': 3, 'share': np.float64(0.25),
                       'rare': jnp.float32(jnp.nan)})
    self.assertEqual(metrics.read(self.file), [
        {'step': 0, 'loss': 0.5, 'load': [[1.0, 1.0], [1.0, 1.0]], 'count': 3,
         'share': 0.25, 'rare': None}])

  def test_writes_one_step_late_and_flushes_each_line(self):
    with metrics.MetricWriter(self.folder) as writer:
      writer.write(0, {'loss': 1.0})
      self.assertEqual(self.steps(), [])
      writer.write(1, {'loss': 1.0})
      self.assertEqual(self.steps(), [0])  # on disk while the file is open
      writer.flush()
      self.assertEqual(self.steps(), [0, 1])
    self.assertEqual(self.steps(), [0, 1])

  def test_write_does_not_wait_for_the_step_it_is_given(self):
    class Unready:
      def __array__(self, *unused, **also_unused):
        raise AssertionError('read too early')

    writer = metrics.MetricWriter(self.folder)
    writer.write(0, {'loss': Unready()})
    with self.assertRaisesRegex(AssertionError, 'read too early'):
      writer.write(1, {'loss': 1.0})  # negative control: now it is read
    writer.close()

  def test_resume_drops_the_steps_to_be_repeated(self):
    self.write_steps(0, 1, 2, 3)
    self.write_steps(2, 3, 4, resume_step=2)
    interrupted = self.file.read_bytes()
    self.write_steps(0, 1, 2, 3, 4)
    self.assertEqual(self.steps(), [0, 1, 2, 3, 4])
    self.assertEqual(interrupted, self.file.read_bytes())

  @parameterized.parameters('{"step": 3, "lo', '{"step": 3, "loss": 1.5}')
  def test_a_last_line_cut_by_a_kill_is_removed(self, torn):
    # The second has lost its newline only, and may have lost digits.
    self.write_steps(0, 1, 2)
    with self.file.open('a') as file:
      file.write(torn)
    self.write_steps(4, resume_step=4)
    self.assertEqual(self.steps(), [0, 1, 2, 4])

  def test_a_corrupt_line_inside_is_an_error_and_the_file_is_kept(self):
    self.write_steps(0, 1, 2)
    lines = self.file.read_text().splitlines()
    text = '\n'.join([lines[0], lines[1][:7], lines[2], ''])
    self.file.write_text(text)
    with self.assertRaisesRegex(ValueError, r'metrics\.jsonl, line 2, got'):
      metrics.MetricWriter(self.folder, 2)
    self.assertEqual(self.file.read_text(), text)

  def test_a_failed_rewrite_leaves_the_old_file(self):
    self.write_steps(0, 1, 2)
    before = self.file.read_bytes()
    with mock.patch.object(metrics.os, 'replace', side_effect=OSError('full')):
      with self.assertRaises(OSError):
        metrics.MetricWriter(self.folder, 1)
    self.assertEqual(self.file.read_bytes(), before)

  def test_lines_of_a_killed_process_stay(self):
    code = ('import sys, os, signal\n'
            'from rljax.training import metrics\n'
            'writer = metrics.MetricWriter(sys.argv[1])\n'
            'for step in range(4):\n'
            '  writer.write(step, {"loss": 1.0})\n'
            'os.kill(os.getpid(), signal.SIGKILL)\n')
    subprocess.run([sys.executable, '-c', code, str(self.folder)], check=False)
    self.assertEqual(self.steps(), [0, 1, 2])

  def test_steps_only_go_forward(self):
    with metrics.MetricWriter(self.folder, 5) as writer:
      with self.assertRaisesRegex(ValueError, 'after 4, got 4'):
        writer.write(4, {})
      writer.write(5, {})
      with self.assertRaisesRegex(ValueError, 'after 5, got 5'):
        writer.write(5, {})

  @parameterized.parameters(np.nan, np.inf, -np.inf)
  def test_a_loss_that_is_not_finite_ends_the_run_one_step_later(self, value):
    writer = metrics.MetricWriter(
        self.folder, last_checkpoint=lambda: 'runs/a/4')
    writer.write(4, {'loss': jnp.float32(value), 'reward': 1.0})
    with self.assertRaisesRegex(
        ValueError, f"finite 'loss', got {value} at step 4.*runs/a/4"):
      writer.write(5, {'loss': 0.0})
    writer.close()
    self.assertEqual(self.steps(), [4])  # written, so that it can be seen

  def test_check_finite_before_a_save(self):
    with metrics.MetricWriter(self.folder, finite=('loss', 'kl')) as writer:
      writer.check_finite(3, {'loss': jnp.float32(1), 'other': np.nan})
      with self.assertRaisesRegex(ValueError, "'kl'.*step 3.*no checkpoint"):
        writer.check_finite(3, {'loss': 1.0, 'kl': jnp.float32(jnp.nan)})

  def test_closing_raises_for_the_last_step_too(self):
    with self.assertRaisesRegex(ValueError, 'at step 0'):
      with metrics.MetricWriter(self.folder) as writer:
        writer.write(0, {'loss': np.nan})

  def test_an_error_under_way_is_not_replaced(self):
    with self.assertRaisesRegex(RuntimeError, 'the cause'):
      with metrics.MetricWriter(self.folder) as writer:
        writer.write(0, {'loss': np.nan})
        raise RuntimeError('the cause')
    self.assertEqual(self.steps(), [0])

  def test_other_hosts_write_nothing(self):
    with mock.patch.object(jax, 'process_index', return_value=1):
      self.write_steps(0, 1)
    self.assertEmpty(list(self.folder.iterdir()))

  def board_events(self):
    events = []
    for path in sorted((self.folder / 'tensorboard').iterdir()):
      data = path.read_bytes()
      while data:  # length, its checksum, record, its checksum
        size = int.from_bytes(data[:8], 'little')
        events.append(proto.event_pb2.Event.FromString(data[12:12 + size]))
        data = data[16 + size:]
    return events

  def board_losses(self):
    return [(e.step, v.simple_value) for e in self.board_events()
            for v in e.summary.value if v.tag == 'loss']

  def test_tensorboard_gets_scalars_and_a_purge_on_resume(self):
    self.write_steps(0, 1, 2)
    self.write_steps(1, 2, resume_step=1)
    self.assertCountEqual(
        self.board_losses(), [(0, 0), (1, 0.5), (2, 1), (1, 0.5), (2, 1)])
    starts = [e.step for e in self.board_events()
              if e.session_log.status == proto.event_pb2.SessionLog.START]
    self.assertIn(1, starts)

  def test_tensorboard_gets_arrays_as_histograms(self):
    with metrics.MetricWriter(self.folder) as writer:
      writer.write(0, {'load': np.array([[0.0, 1.0], [1.0, 2.0]]),
                       'gaps': np.array([1.0, np.nan])})
    found = {v.tag: v.histo for e in self.board_events()
             for v in e.summary.value}
    self.assertEqual(set(found), {'load'})
    self.assertEqual((found['load'].num, found['load'].sum), (4, 4.0))

  def test_flush_puts_both_files_on_disk(self):
    # Else a run killed after its checkpoint lacks the steps before it.
    with metrics.MetricWriter(self.folder) as writer:
      writer.write(0, {'loss': 1.0})
      writer.flush()
      self.assertEqual(self.steps(), [0])
      self.assertEqual(self.board_losses(), [(0, 1.0)])

  def test_progress_counts_the_steps_done_before(self):
    bar = metrics.progress(range(3, 5), 'rl')
    self.assertEqual((bar.n, bar.total), (3, 5))
    self.assertEqual(list(bar), [3, 4])


class CompilationCounterTest(parameterized.TestCase):

  def test_counts_shapes_by_function_name(self):
    @jax.jit
    def doubled(x):
      return x * 2

    @jax.jit
    def constant_shape(x):
      return x + 1

    with metrics.CompilationCounter() as counter:
      for size in (3, 5, 3, 5):
        doubled(np.ones(size, np.float32))
        constant_shape(np.ones(7, np.float32))
    self.assertEqual(counter.counts['doubled'], 2)
    self.assertEqual(counter.counts['constant_shape'], 1)
    self.assertGreater(counter.seconds['doubled'], 0)
    self.assertNotIn('compilation_probe', counter.counts)

  def test_counts_only_inside(self):
    @jax.jit
    def outside(x):
      return x * 3

    outside(np.ones(2, np.float32))
    with metrics.CompilationCounter() as counter:
      outside(np.ones(2, np.float32))  # compiled before
    outside(np.ones(4, np.float32))
    self.assertEqual(counter.counts['outside'], 0)

  def test_a_changed_static_argument_is_counted(self):
    def scaled(x, scale):
      return x * scale

    with metrics.CompilationCounter() as counter:
      static = jax.jit(scaled, static_argnums=1)
      static(np.ones(2, np.float32), 2)
      static(np.ones(2, np.float32), 3)
    self.assertEqual(counter.counts['scaled'], 2)

  def test_silence_of_jax_is_an_error(self):
    with mock.patch.object(metrics, '_COMPILE_EVENT', '/renamed'):
      with self.assertRaisesRegex(RuntimeError, "'/renamed'"):
        metrics.CompilationCounter().__enter__()

  def test_the_cache_serves_the_next_process_and_still_counts(self):
    code = ('import sys\n'
            'import jax, numpy as np\n'
            'from rljax.training import metrics\n'
            'metrics.enable_compilation_cache(sys.argv[1])\n'
            'hits = []\n'
            'jax.monitoring.register_event_listener(\n'
            '    lambda event, **_: hits.append(event))\n'
            'def cubed(x):\n'
            '  return x ** 3\n'
            'with metrics.CompilationCounter() as counter:\n'
            '  jax.jit(cubed)(np.ones(3, np.float32))\n'
            'print(hits.count("/jax/compilation_cache/cache_hits"),\n'
            '      counter.counts["cubed"])\n')
    folder = self.enterContext(tempfile.TemporaryDirectory())
    run = lambda: subprocess.run(
        [sys.executable, '-c', code, folder], capture_output=True, text=True,
        check=True).stdout.split()
    self.assertEqual(run(), ['0', '1'])
    self.assertEqual(run(), ['2', '1'])  # the probe and the function


if __name__ == '__main__':
  absltest.main()
