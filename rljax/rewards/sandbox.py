"""Runs programs that nobody has read: in processes that the kernel walls in.

  box = sandbox.Sandbox()                   isolation='namespaces'
  box.run_script(program, stdin)            what it printed
  box.call(program, [('f', (1, 2))])        what its functions return
  box.check(program, setup, check, names)   whether a test of them passes

Each call has processes of its own and a limit in seconds that the parent keeps.
Expected results never enter a sandbox with a program in it: what it prints and
returns is compared outside, and `check` runs the test in a sandbox of its own,
whose calls are passed on. So a program can neither look its result up nor
declare itself right.

There is no well-kept package for this without a container engine or a set-uid
tool, and a pod has neither; `sandbox_walls.py` is what it takes.
"""
from __future__ import annotations

from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

from rljax.rewards import sandbox_inside

ISOLATIONS = ('namespaces', 'limits')
_HERE = pathlib.Path(__file__).parent
_CHUNK = 1 << 16
_START_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Limits:
  """Of one program."""
  seconds: float = 5.0            # wall clock, of all that it is asked
  memory_bytes: int = 1 << 30     # address space of each of its processes
  output_bytes: int = 1 << 22     # printed, returned, or written to files
  processes: int = 32             # and threads


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of a program."""
  kind: str  # done, timeout, crashed (also: too much output), infra_error
  value: Any = None  # if done; otherwise a text that says what happened


class SandboxError(RuntimeError):
  """The walls cannot be put up on this machine."""


class _Stopped(Exception):
  """Ends a run with an outcome."""

  def __init__(self, kind: str, text: str):
    super().__init__(text)
    self.outcome = Outcome(kind, text)


class Sandbox:
  """Thread-safe; holds nothing between calls.

  Args:
    isolation: 'namespaces' (Linux): no network, no other process, none of the
      user's files. 'limits': only time, memory and output are limited; a
      program can read and send what the user can. For programs you trust.
    limits: of each program.

  Raises:
    SandboxError: of the first call, if the kernel refuses namespaces.
    ValueError: an isolation or a limit that is none.
  """

  def __init__(self, isolation: str = 'namespaces', limits: Limits = Limits()):
    if isolation not in ISOLATIONS:
      raise ValueError(f'Expected an isolation among {list(ISOLATIONS)}, got '
                       f'{isolation!r}. Correct the name.')
    for name, value in dataclasses.asdict(limits).items():
      if value <= 0:
        raise ValueError(f'Expected {name} > 0, got {value}. Raise it.')
    self._isolation = isolation
    self._limits = limits

  def run_script(self, program: str, stdin: str = '') -> Outcome:
    """Runs it as `__main__`; done, with what it printed, if it exits with 0."""
    _require_walls(self._isolation)
    def talk(process):
      process.ask({'script': program})
      return process.output(stdin.encode())
    return self._run(talk)

  def call(self, program: str,
           calls: Sequence[tuple[str, Sequence[Any]]]) -> Outcome:
    """Calls functions that it defines, one after the other.

    Args:
      program: Python.
      calls: (name, arguments); of None, numbers, text, bytes, and lists,
        tuples, sets and dicts of them.

    Returns:
      done with the list of ('value', returned) or ('raised', type name).
    """
    _require_walls(self._isolation)
    def talk(process):
      process.define(program, [name for name, _ in calls])
      replies = []
      for name, arguments in calls:
        reply = process.ask({
            'call': name, 'kwargs': {},
            'args': [sandbox_inside.encode(x) for x in arguments]})
        replies.append(_reply(reply))
      return replies
    return self._run(talk)

  def check(self, program: str, setup: str, check: str,
            names: Sequence[str]) -> Outcome:
    """Runs a test of functions that the program defines.

    Args:
      program: Python.
      setup: what the test needs; runs beside the test, before `names` become
        the program's.
      check: Python that raises an exception unless the program is right.
      names: of the functions; what they are given and return is as in `call`.

    Returns:
      done with whether it passed.
    """
    _require_walls(self._isolation)
    def talk(process):
      process.define(program, names)
      with self._start() as tester:
        message = tester.ask(
            {'check': check, 'setup': setup, 'names': list(names)})
        while 'passed' not in message:
          message = tester.ask(process.ask(message))
        return message['passed'] is True
    return self._run(talk)

  def _run(self, talk) -> Outcome:
    try:
      with self._start() as process:
        return Outcome('done', talk(process))
    except _Stopped as stopped:
      return stopped.outcome

  def _start(self):
    return _Process(self._isolation, self._limits)


class _Process:
  """One sandbox, from the outside."""

  def __init__(self, isolation: str, limits: Limits):
    self._limits = limits
    self._deadline = None  # set when it has started
    self._pending = b''
    with contextlib.ExitStack() as made:
      try:
        self._folder = tempfile.TemporaryDirectory(prefix='rljax_sandbox_')
        made.enter_context(self._folder)
        self._wire, theirs = socket.socketpair()
        made.enter_context(self._wire)
        with theirs:
          self._process = self._launch(isolation, theirs.fileno())
      except OSError as error:  # no memory, no descriptors, no room on the disk
        raise _Stopped('infra_error', f'cannot start: {error}') from error
      made.pop_all()

  def _launch(self, isolation: str, wire: int) -> subprocess.Popen:
    options = dict(
        isolation=isolation, limits=dataclasses.asdict(self._limits),
        python=_python(), prefix=sys.base_prefix,
        inside=_source('sandbox_inside.py'), wire=wire)
    return subprocess.Popen(
        [_python(), '-I', '-c', _source('sandbox_walls.py'),
         json.dumps(options)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        pass_fds=[wire], cwd=self._folder.name, start_new_session=True,
        env={'PATH': os.defpath, 'TMPDIR': self._folder.name})

  def __enter__(self) -> _Process:
    return self

  def __exit__(self, *_):
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self._process.pid, signal.SIGKILL)
    self._process.wait()
    for file in (self._process.stdin, self._process.stdout,
                 self._process.stderr):
      with contextlib.suppress(BrokenPipeError):
        file.close()
    self._wire.close()
    self._folder.cleanup()

  def define(self, program: str, names: Sequence[str]):
    """Loads the program, which must define the functions."""
    reply = self.ask({'functions': program, 'names': sorted(set(names))})
    if reply != {'missing': []}:
      raise _Stopped('crashed', f'no such functions: {reply}')

  def ask(self, message: dict) -> dict:
    """Sends a message; returns the answer of the same nonce."""
    nonce = secrets.token_hex(8)
    starting = self._deadline is None
    if starting:
      self._deadline = time.monotonic() + _START_SECONDS
    try:
      self._send(f'{nonce} {json.dumps(message)}\n'.encode())
      if starting:
        self._receive(nonce)
    except _Stopped as stopped:
      if not starting:
        raise
      raise _Stopped('infra_error', self._why()) from stopped
    if starting:
      self._deadline = time.monotonic() + self._limits.seconds
    return {} if 'script' in message else self._receive(nonce)

  def output(self, stdin: bytes) -> str:
    """What it prints until it ends, which must be with exit code 0."""
    printed = self._exchange(stdin)
    try:
      code = self._process.wait(max(self._left(), 0.01))
    except subprocess.TimeoutExpired:
      raise _Stopped('timeout', 'closed its output, but did not end') from None
    if code:
      raise _Stopped('crashed', f'exit code {code}')
    return printed.decode(errors='replace')

  def _exchange(self, stdin: bytes) -> bytes:
    """Writes and reads at the same time, so that neither side waits."""
    write, read = self._process.stdin, self._process.stdout
    for file in (write, read):
      os.set_blocking(file.fileno(), False)
    printed = bytearray()
    with selectors.DefaultSelector() as selector:
      selector.register(read, selectors.EVENT_READ)
      selector.register(write, selectors.EVENT_WRITE)
      while selector.get_map().get(read.fileno()):
        for key, _ in selector.select(self._left()):
          if key.fileobj is read:
            chunk = os.read(read.fileno(), _CHUNK)
            printed += chunk
            if not chunk:
              selector.unregister(read)
            if len(printed) > self._limits.output_bytes:
              raise _Stopped('crashed', 'too much output')
          else:
            try:
              stdin = stdin[os.write(write.fileno(), stdin[:_CHUNK]):]
            except BrokenPipeError:
              stdin = b''
            if not stdin:
              selector.unregister(write)
              write.close()
    return bytes(printed)

  def _send(self, line: bytes):
    self._wire.settimeout(self._left())
    try:
      self._wire.sendall(line)
    except TimeoutError:
      raise _Stopped('timeout', 'does not listen') from None
    except OSError as error:
      raise _Stopped('crashed', f'ended early: {error}') from error

  def _receive(self, nonce: str) -> dict:
    while b'\n' not in self._pending:
      self._wire.settimeout(self._left())
      try:
        chunk = self._wire.recv(_CHUNK)
      except TimeoutError:
        raise _Stopped('timeout', 'does not answer') from None
      except OSError as error:
        raise _Stopped('crashed', f'ended early: {error}') from error
      if not chunk:
        raise _Stopped('crashed', 'ended early')
      self._pending += chunk
      if len(self._pending) > self._limits.output_bytes:
        raise _Stopped('crashed', 'returned too much')
    line, _, self._pending = self._pending.partition(b'\n')
    name, _, text = line.partition(b' ')
    try:
      message = json.loads(text)
    except (ValueError, RecursionError):
      message = None
    if name != nonce.encode() or not isinstance(message, dict):
      raise _Stopped('crashed', 'wrote on the wire')
    return message

  def _left(self) -> float:
    seconds = self._deadline - time.monotonic()
    if seconds <= 0:
      raise _Stopped('timeout', f'after {self._limits.seconds} s')
    return seconds

  def _why(self) -> str:
    """What it said when it could not start."""
    self._process.kill()
    lines = self._process.stderr.read().decode(errors='replace').split('\n')
    return next((line for line in reversed(lines) if line), 'did not start')


def _reply(message: dict) -> tuple[str, Any]:
  try:
    (kind, content), = message.items()
    if kind == 'raised':
      return kind, str(content)
    return 'value', sandbox_inside.decode(message['value'])
  except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
    raise _Stopped('crashed', 'wrote on the wire') from None


@functools.cache
def _require_walls(isolation: str):
  """Refuses, once for all, a machine on which nothing can be isolated."""
  if isolation == 'limits':
    return
  text = 'no namespaces outside of Linux'
  if sys.platform == 'linux':
    try:
      with _Process(isolation, Limits()) as process:
        process.ask({'script': ''})
      return
    except _Stopped as stopped:
      text = stopped.outcome.value
  raise SandboxError(
      f'Expected a kernel that isolates programs, got: {text}. Allow user '
      'namespaces (or, in a container, the system call unshare), or, for '
      "programs that you trust, set config.reward.isolation='limits'.")


@functools.cache
def _source(name: str) -> str:
  return (_HERE / name).read_text(encoding='utf-8')


def _python() -> str:
  """Not that of a virtual environment: it brings the standard library alone."""
  version = f'{sys.version_info.major}.{sys.version_info.minor}'
  return os.path.realpath(
      os.path.join(sys.base_prefix, 'bin', f'python{version}'))
