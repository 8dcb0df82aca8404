"""The worker's side of the benchmark; imports nothing that a peer may lack.

A worker is a script in a process of its own. It gets a job, answers with facts
about itself, then does the job once for every line that the driver sends, and
answers each time. Lines are JSON; what libraries print goes to the log.
"""
import json
import os
import sys


class Driver:
  """The one who asks: `job`, then `wait` and `answer` in turns."""

  def __init__(self):
    self._answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # prints must not look like answers
    self.job = json.loads(sys.stdin.readline())

  def answer(self, **facts):
    """Says that the job is done; adds the memory that it took."""
    facts['peak_mb'] = _peak_mb()
    print(json.dumps(facts), file=self._answers, flush=True)

  def wait(self) -> bool:
    """Until the job shall be done once more; False: never again."""
    request = sys.stdin.readline().strip()
    if request == 'forget':  # what it took to start and to compile
      with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')
      self.answer()
      return self.wait()
    return request == 'run'


def serve(jobs):
  """Does the job whose name is a key of `jobs`: name -> job(driver)."""
  driver = Driver()
  jobs[driver.job['kind']](driver)


def _peak_mb() -> float:
  """Largest resident memory of this process since it was last forgotten."""
  with open('/proc/self/status') as file:
    line, = (line for line in file if line.startswith('VmHWM'))
  return int(line.split()[1]) / 1024
