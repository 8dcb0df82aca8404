import pathlib
import tempfile
import types
from unittest import mock

from absl.testing import absltest

from experiments.job import reporting
from rljax.training import metrics


class ClockTest(absltest.TestCase):

  def test_seconds_add_up_over_steps_and_over_a_resumption(self):
    # Each stage reads the clock twice; it takes 1, 2, then 4 seconds.
    times = iter([0, 1, 1, 3, 3, 7])
    with mock.patch.object(reporting.time, 'perf_counter', lambda: next(times)):
      clock = reporting.Clock({'rollout': 10.0})
      with clock('rollout'):
        pass
      with clock('update'):
        pass
      first = clock.rates({'sampled_tokens': 30.0, 'train_tokens': 8.0})
      with clock('rollout'):
        pass
      second = clock.rates({'sampled_tokens': 30.0})
    self.assertEqual(clock.seconds, {'rollout': 15.0, 'update': 2.0})
    self.assertEqual(first, {
        'rollout_seconds': 1, 'rollout_tokens_per_second': 30,
        'update_seconds': 2, 'update_tokens_per_second': 4})
    self.assertEqual(second, {'rollout_seconds': 4,
                              'rollout_tokens_per_second': 7.5})

  def test_it_does_not_share_the_dictionary_it_was_given(self):
    given = {'rollout': 1.0}
    clock = reporting.Clock(given)
    with clock('rollout'):
      pass
    self.assertEqual(given, {'rollout': 1.0})


class CurvesTest(absltest.TestCase):

  def test_tenths_of_a_run(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    with metrics.MetricWriter(folder) as writer:
      for step in range(20):
        writer.write(step, dict(
            loss=float(step), update_seconds=9.0 if step == 0 else 2.0,
            update_tokens_per_second=5.0))
    job = types.SimpleNamespace(workdir=folder)
    self.assertEqual(reporting.curves(job, ('loss', 'kl')), [
        {'metric': 'loss', 'first tenth': 0.5, 'last tenth': 18.5}])
    self.assertEqual(reporting.step_seconds(job), [
        dict(part='update', seconds=2.0, tokens_per_second=5.0)])


if __name__ == '__main__':
  absltest.main()
