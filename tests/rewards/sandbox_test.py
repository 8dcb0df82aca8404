"""Nothing gets out of a sandbox but what it prints and returns.

Where the kernel refuses namespaces, only the refusal and the limits are tested.
"""
import os
import pathlib
import socket
import sys
import tempfile
import threading
import time
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from rljax.rewards import sandbox
from rljax.rewards import sandbox_inside

LIMITS = sandbox.Limits(seconds=2.0, memory_bytes=256 << 20,
                        output_bytes=1 << 20)


def has_walls() -> bool:
  try:
    sandbox.Sandbox().run_script('')
  except sandbox.SandboxError:
    return False
  return True


needs_walls = pytest.mark.skipif(
    not has_walls(), reason='this kernel refuses namespaces')


def box(isolation='namespaces', **limits):
  return sandbox.Sandbox(isolation, sandbox.Limits(
      **(LIMITS.__dict__ | limits)))


class EitherIsolationTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.box = box('namespaces' if has_walls() else 'limits')

  def test_a_script_reads_and_prints(self):
    self.assertEqual(
        self.box.run_script('print(int(input()) * 2)', '21\n'),
        sandbox.Outcome('done', '42\n'))

  def test_input_that_nobody_reads_is_no_failure(self):
    self.assertEqual(self.box.run_script('print(1)', 'x' * 500_000).value,
                     '1\n')

  def test_more_than_a_pipe_holds_goes_in_and_out(self):
    text = 'x' * 500_000
    self.assertEqual(self.box.run_script(
        'import sys; sys.stdout.write(sys.stdin.read())', text).value, text)

  def test_stdin_ends(self):
    self.assertEqual(self.box.run_script('print(len(input() + input()))',
                                         'one line\n').kind, 'crashed')

  @parameterized.parameters(
      ('exit()', 'done'), ('import sys; sys.exit(0)', 'done'),
      ('import os; os._exit(0)', 'done'),
      ('import sys; sys.exit(3)', 'crashed'),
      ('1 / 0', 'crashed'), ('what is this', 'crashed'),
      ('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)', 'crashed'),
      ('while True: pass', 'timeout'),
      ('import time; time.sleep(60)', 'timeout'),
      ('import os, time; os.close(1); time.sleep(60)', 'timeout'),
      ('while True: print("x" * 10_000)', 'crashed'),
      ('x = bytearray(1 << 30)', 'crashed'),
      ('open("x", "wb").write(bytes(8 << 20))', 'crashed'))
  def test_what_becomes_of(self, program, kind):
    begin = time.monotonic()
    self.assertEqual(self.box.run_script(program).kind, kind)
    self.assertLess(time.monotonic() - begin, 20)

  def test_functions_keep_their_state_between_calls(self):
    found = self.box.call(
        'seen = []\ndef f(x):\n  seen.append(x)\n  return tuple(seen)',
        [('f', (1,)), ('f', ({'a': {2.5}},))])
    self.assertEqual(found.value, [
        ('value', (1,)), ('value', (1, {'a': {2.5}}))])

  def test_an_exception_is_named_and_the_next_call_is_made(self):
    found = self.box.call('def f(x): return 1 / x', [('f', (0,)), ('f', (2,))])
    self.assertEqual(found.value, [('raised', 'ZeroDivisionError'),
                                   ('value', 0.5)])

  @parameterized.parameters(
      'class Yes:\n  def __eq__(self, other): return True\n'
      'def f(): return Yes()',
      'class Yes(int):\n  def __eq__(self, other): return True\n'
      'def f(): return Yes()',
      'class Yes(list):\n  pass\ndef f(): return [Yes()]',
      'def f():\n  x = []\n  for _ in range(1000): x = [x]\n  return x')
  def test_other_types_do_not_leave(self, program):
    (kind, name), = self.box.call(program, [('f', ())]).value
    self.assertEqual((kind, name), ('raised', 'TypeError'))

  @parameterized.parameters(
      ('def g(): pass', 'crashed'), ('f = 3', 'crashed'),
      ('def f(): exit()', 'crashed'),
      ('import os\ndef f(): os._exit(0)', 'crashed'),
      ('def f():\n  while True: pass', 'timeout'),
      ('def f(): return "x" * (4 << 20)', 'crashed'))
  def test_functions_that_do_not_answer(self, program, kind):
    self.assertEqual(self.box.call(program, [('f', ())]).kind, kind)

  def test_a_reply_written_beforehand_does_not_count(self):
    # The wire is there to be found; what is asked later has another nonce.
    program = '\n'.join([
        'import os', 'for fd in range(3, 64):', '  try:',
        '    os.write(fd, b"0123456789abcdef {\\"value\\": 1}\\n" * 9)',
        '  except OSError: pass', 'def f(): return 2'])
    self.assertNotEqual(self.box.call(program, [('f', ())]).value,
                        [('value', 1)])

  def test_a_check_calls_the_program_from_outside_of_it(self):
    setup, check = 'def twice(x): return 2 * x', 'assert f(3) == twice(3)'
    for program, passed in (('def f(x): return x + x', True),
                            ('def f(x): return x + 2', False),
                            ('def f(x): raise ValueError', False)):
      self.assertEqual(self.box.check(program, setup, check, ['f']),
                       sandbox.Outcome('done', passed))

  def test_a_check_sees_the_exceptions_of_the_program(self):
    check = ('try:\n  f()\nexcept ValueError:\n  pass\n'
             'else:\n  raise AssertionError')
    self.assertTrue(self.box.check(
        'def f(): raise ValueError', '', check, ['f']).value)
    self.assertFalse(self.box.check(
        'def f(): return 1', '', check, ['f']).value)

  @parameterized.parameters(
      'import sys\nsys.modules["__main__"]._check = None\n'
      'def f(x): return None',
      'import builtins\nbuiltins.AssertionError = None\n'
      'def f(x): return None',
      'import gc\nfor d in gc.get_objects():\n'
      '  if isinstance(d, dict) and "check" in d: d["check"] = ""\n'
      'def f(x): return None')
  def test_a_program_cannot_reach_its_check(self, program):
    found = self.box.check(program, '', 'assert f(1) == 2', ['f'])
    self.assertNotEqual(found, sandbox.Outcome('done', True))

  def test_from_several_threads(self):
    found = {}
    def run(i):
      found[i] = self.box.run_script(f'print({i})').value
    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    self.assertEqual(found, {i: f'{i}\n' for i in range(6)})

  def test_leaves_no_process_descriptor_or_folder_behind(self):
    self.box.run_script('')
    with tempfile.TemporaryDirectory() as folder:
      with mock.patch.object(tempfile, 'tempdir', folder):
        before = len(os.listdir('/proc/self/fd')) if (
            sys.platform == 'linux') else 0
        for program in ('', 'while True: pass',
                        'import subprocess\n'
                        'subprocess.Popen(["sleep", "1234"])'):
          box('namespaces' if has_walls() else 'limits',
              seconds=0.5).run_script(program)
        self.assertEqual(os.listdir(folder), [])
    if sys.platform == 'linux':
      self.assertLen(os.listdir('/proc/self/fd'), before)
      self.assertNotIn('1234', ' '.join(
          path.read_text() for path in pathlib.Path('/proc').glob(
              '[0-9]*/cmdline') if path.exists()).split('\0'))


@needs_walls
class WallsTest(parameterized.TestCase):

  def run_script(self, program, **limits):
    return box(**limits).run_script(program)

  def test_no_network(self):
    with socket.socket() as server:
      server.bind(('127.0.0.1', 0))
      server.listen()
      port = server.getsockname()[1]
      program = (f'import socket\nsocket.create_connection(("127.0.0.1", '
                 f'{port}), 1)\nprint("out")')
      self.assertEqual(self.run_script(program).kind, 'crashed')
      # The control: without walls it gets through.
      self.assertEqual(box('limits').run_script(program).value, 'out\n')

  def test_no_file_of_the_user_can_be_read(self):
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder) / 'tests.jsonl'
      path.write_text('the answer is 42')
      program = f'print(open({str(path)!r}).read())'
      self.assertEqual(self.run_script(program).kind, 'crashed')
      self.assertEqual(box('limits').run_script(program).value,
                       'the answer is 42\n')

  @parameterized.parameters('/usr/x', '/x', '/etc/x', '/proc/sys/kernel/x')
  def test_nothing_can_be_written_but_in_its_folder(self, path):
    self.assertEqual(self.run_script(f'open({path!r}, "w")').kind, 'crashed')
    self.assertEqual(self.run_script(
        'open("x", "w").write("y"); print(open("x").read())').value, 'y\n')

  def test_no_process_but_its_own_is_seen(self):
    found = self.run_script(
        'import os; print(sorted(x for x in os.listdir("/proc") '
        'if x.isdigit()))').value
    self.assertEqual(found, "['1', '2']\n")
    self.assertEqual(self.run_script(
        f'import os; os.kill({os.getpid()}, 0)').kind, 'crashed')

  def test_it_is_nobody(self):
    user, group, capabilities = self.run_script(
        'import os\nprint(os.getuid(), os.getgid(), [line.split()[1] for line '
        'in open("/proc/self/status") if line.startswith("CapEff")][0])'
    ).value.split()
    self.assertNotIn('0', (user, group))
    self.assertEqual(int(capabilities, 16), 0)

  def test_a_fork_bomb_goes_out(self):
    begin = time.monotonic()
    found = self.run_script('import os\nwhile True:\n  os.fork()', seconds=1.0)
    self.assertIn(found.kind, ('crashed', 'timeout'))
    self.assertLess(time.monotonic() - begin, 20)
    self.assertEqual(self.run_script('print(1)').value, '1\n')

  def test_a_daemon_ends_with_its_program(self):
    program = ('import os, time\nif os.fork() == 0:\n  os.setsid()\n'
               '  time.sleep(4321)\nprint(1)')
    self.assertEqual(self.run_script(program).value, '1\n')
    time.sleep(0.2)
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
      try:
        self.assertNotIn('4321', path.read_text())
      except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended meanwhile

  def test_the_environment_is_empty(self):
    with mock.patch.dict(os.environ, {'SECRET_TOKEN': 'abc'}):
      self.assertNotIn('SECRET_TOKEN', self.run_script(
          'import os; print(os.environ)').value)


class RefusalTest(parameterized.TestCase):

  def test_walls_that_cannot_be_put_up_are_an_error(self):
    broken = 'raise PermissionError("unshare: Operation not permitted")'
    sandbox._require_walls.cache_clear()
    self.addCleanup(sandbox._require_walls.cache_clear)
    with mock.patch.object(sandbox, '_source', return_value=broken):
      with self.assertRaisesRegex(
          sandbox.SandboxError, "unshare: Operation not.*isolation='limits'"):
        box().run_script('print(1)')

  def test_a_start_that_fails_later_is_nobodys_fault(self):
    with mock.patch.object(sandbox, '_source', return_value='1 / 0'):
      found = box('limits').run_script('print(1)')
    self.assertEqual(found, sandbox.Outcome(
        'infra_error', 'ZeroDivisionError: division by zero'))

  @parameterized.parameters(
      (socket, 'socketpair'), (tempfile, 'TemporaryDirectory'),
      (sandbox.subprocess, 'Popen'))
  def test_what_the_machine_has_no_more_of_is_nobodys_fault(self, where, name):
    error = OSError(24, 'Too many open files')
    with tempfile.TemporaryDirectory() as folder:
      with (mock.patch.object(tempfile, 'tempdir', folder),
            mock.patch.object(where, name, side_effect=error)):
        found = box('limits').run_script('print(1)')
      self.assertEqual(os.listdir(folder), [])
    self.assertEqual(found.kind, 'infra_error')
    self.assertIn('Too many open files', found.value)

  def test_an_unknown_isolation_is_refused(self):
    with self.assertRaisesRegex(ValueError, "namespaces.*got 'docker'"):
      sandbox.Sandbox('docker')

  def test_limits_of_nothing_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'seconds > 0, got 0'):
      box(seconds=0)


class ValuesTest(parameterized.TestCase):

  @parameterized.parameters(*((value,) for value in (
      None, True, 10**30, 1.5, 'ä', b'\x00', 1 + 2j, ((1, [2]), {3: {4}}),
      {(1, 2): frozenset({'a'})}, float('inf'))))
  def test_comes_back(self, value):
    again = sandbox_inside.decode(sandbox_inside.encode(value))
    self.assertEqual(again, value)
    self.assertIs(type(again), type(value))


if __name__ == '__main__':
  absltest.main()
