"""SIGTERM becomes a flag in the main thread, and only while it is watched."""
import os
import signal
import subprocess
import sys
import threading

from absl.testing import absltest

from rljax.training import preemption


class PreemptionTest(absltest.TestCase):

  def test_sigterm_sets_the_flag_and_goes_on(self):
    with preemption.Preemption() as stop:
      self.assertFalse(stop.requested)
      os.kill(os.getpid(), signal.SIGTERM)
      self.assertTrue(stop.requested)
      os.kill(os.getpid(), signal.SIGTERM)  # launchers repeat themselves
      self.assertTrue(stop.requested)

  def test_the_handler_before_is_put_back(self):
    received = []
    mine = lambda number, frame: received.append(number)
    before = signal.signal(signal.SIGTERM, mine)
    self.addCleanup(signal.signal, signal.SIGTERM, before)
    with self.assertRaises(KeyError):
      with preemption.Preemption() as stop:
        raise KeyError('an error inside')
    self.assertIs(signal.getsignal(signal.SIGTERM), mine)
    os.kill(os.getpid(), signal.SIGTERM)
    self.assertEqual(received, [signal.SIGTERM])
    self.assertFalse(stop.requested)

  def test_refuses_another_thread(self):
    messages = []

    def enter():
      try:
        preemption.Preemption().__enter__()
      except ValueError as error:
        messages.append(str(error))

    thread = threading.Thread(target=enter, name='worker')
    thread.start()
    thread.join()
    self.assertRegex(messages[0], "main thread, got 'worker'")

  def test_without_it_sigterm_kills(self):
    # Negative control, and the case of a process that watches: exit code 0.
    code = ('import os, signal, sys\n'
            'from rljax.training import preemption\n'
            'if sys.argv[1] == "watch":\n'
            '  with preemption.Preemption() as stop:\n'
            '    os.kill(os.getpid(), signal.SIGTERM)\n'
            '    sys.exit(0 if stop.requested else 3)\n'
            'os.kill(os.getpid(), signal.SIGTERM)\n')
    run = lambda word: subprocess.run(
        [sys.executable, '-c', code, word], check=False).returncode
    self.assertEqual(run('watch'), 0)
    self.assertEqual(run('ignore'), -signal.SIGTERM)


if __name__ == '__main__':
  absltest.main()
