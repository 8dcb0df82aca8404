import pathlib
import tempfile
import types
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized

from experiments.job import run_folder
from tests.end_to_end import smoke


class SaveTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.calls = mock.Mock()
    self.calls.saver.every = 10
    self.calls.saver.latest_step.return_value = 7
    self.calls.saver.folder = 'somewhere'
    self.stop = types.SimpleNamespace(requested=False)

  def save(self, step, **options):
    run_folder.save(self.calls.saver, self.calls.writer, self.stop, 'state',
                    step, {'loss': 1.0}, {}, **options)
    return [call[0] for call in self.calls.method_calls]

  def test_a_step_off_the_multiples_waits_for_nothing(self):
    self.assertEqual(self.save(7), [])

  def test_metrics_are_on_disk_before_the_state(self):
    self.assertEqual(self.save(9), ['writer.check_finite', 'writer.flush',
                                    'saver.save'])
    self.assertEqual(self.calls.saver.save.call_args.args[0], 10)

  def test_the_last_step_is_saved_wherever_it_falls(self):
    self.assertIn('saver.save', self.save(7, last=True))

  def test_a_loss_that_is_not_finite_is_never_saved(self):
    self.calls.writer.check_finite.side_effect = ValueError('not finite')
    with self.assertRaisesRegex(ValueError, 'not finite'):
      self.save(9)
    self.calls.saver.save.assert_not_called()

  @parameterized.parameters(False, True)
  def test_a_request_to_stop_saves_and_waits_before_it_leaves(self, last):
    # On the last step too: a pipeline must not go on to its next stage.
    self.stop.requested = True
    with self.assertRaisesRegex(run_folder.Preempted, 'step 7 in somewhere'):
      self.save(6, last=last)
    names = [call[0] for call in self.calls.method_calls]
    self.assertLess(names.index('saver.save'), names.index('saver.wait'))


  def test_no_library_goes_on_without_a_request_to_stop(self):
    # jax catches each Exception where it reads its cache.
    self.assertFalse(issubclass(run_folder.Preempted, Exception))


class ClaimTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(
        tempfile.TemporaryDirectory()))
    self.config = smoke.get_config('rl_math')

  def end(self):
    (self.folder / 'checkpoints' / str(self.config.num_steps)).mkdir(
        parents=True)
    (self.folder / 'report.json').write_text('{}')

  def test_a_run_may_be_continued_further_elsewhere_and_faster(self):
    run_folder.claim(self.config, self.folder)
    self.config.num_steps += 5
    self.config.mesh.data = 1
    self.config.checkpoint.every = 7
    self.config.packing.rows_per_device = 1
    run_folder.claim(self.config, self.folder)

  @parameterized.parameters(
      ('loss.kl_coef', 0.5), ('optimizer.b2', 0.5),
      ('init.checkpoint', 'elsewhere'), ('seed', 3), ('data.domains', ('x',)),
      ('name', 'rl_code_science'))
  def test_another_run_is_refused_and_says_what_differs(self, key, value):
    run_folder.claim(self.config, self.folder)
    self.end()
    self.config.update_from_flattened_dict({key: value})
    for function in (run_folder.claim, run_folder.finished):
      with self.assertRaisesRegex(ValueError, f'other settings:\n  {key}: '):
        function(self.config, self.folder)

  def test_where_nothing_was_saved_another_run_may_begin(self):
    run_folder.claim(self.config, self.folder)
    self.config.loss.kl_coef = 0.5  # the first start failed, say on its data
    run_folder.claim(self.config, self.folder)
    self.end()
    self.assertTrue(run_folder.finished(self.config, self.folder))

  def test_a_rate_may_be_turned_down_to_go_on_but_is_not_what_was_run(self):
    run_folder.claim(self.config, self.folder)
    self.end()
    self.config.optimizer.learning_rate /= 2
    with self.assertRaisesRegex(ValueError, 'optimizer.learning_rate: there'):
      run_folder.finished(self.config, self.folder)
    run_folder.claim(self.config, self.folder)

  def test_a_folder_is_finished_with_its_last_step_and_report(self):
    self.assertFalse(run_folder.finished(self.config, self.folder))
    self.end()
    self.assertFalse(run_folder.finished(
        self.config, self.folder))  # whose is it?
    run_folder.claim(self.config, self.folder)
    self.assertTrue(run_folder.finished(self.config, self.folder))
    self.config.num_steps += 1
    self.assertFalse(run_folder.finished(self.config, self.folder))


if __name__ == '__main__':
  absltest.main()
