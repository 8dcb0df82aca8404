"""SIGTERM as a flag, so that a run told to stop saves first.

  with preemption.Preemption() as stop:
    for step in ...:
      ...
      if stop.requested:
        saver.save(step, state, progress, force=True)
        return

A handler that saved by itself could run in the middle of an update, when the
state is half donated. The flag is read between steps, where the state is whole.
"""
from __future__ import annotations

import signal
import threading


class Preemption:
  """Turns SIGTERM into `requested`; a context manager of the main thread.

  Launchers often send the signal more than once; only SIGKILL cuts the save.
  """

  def __init__(self):
    self.requested = False
    self._previous = None

  def __enter__(self) -> Preemption:
    if threading.current_thread() is not threading.main_thread():
      raise ValueError(
          'Expected Preemption in the main thread, got '
          f'{threading.current_thread().name!r}: Python lets no other thread '
          'handle signals. Enter it where the program starts.')
    self._previous = signal.signal(signal.SIGTERM, self._request)
    return self

  def __exit__(self, *unused):
    # None: the old handler was not set from Python and cannot be put back.
    signal.signal(signal.SIGTERM, self._previous or signal.SIG_DFL)

  def _request(self, number, frame):
    del number, frame
    self.requested = True
