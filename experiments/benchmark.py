r"""Times alternatives of one part of the library against each other.

  python -m experiments.benchmark dispatch --workdir=runs/benchmark_dispatch

A subject is a function below: it yields cases, and each case has contestants
that compute the same. They take turns, so that whatever else the machine does
is shared out, and every number is a ratio to the first one's as well: of the
medians, and of the minima, which a busy machine changes least. `report.json`
and `report.md` say what ran where. `--smoke` only shows that a subject works.
"""
from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools
import time

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from rljax.evaluation import report
from rljax.models import moe


@dataclasses.dataclass(frozen=True)
class Case:
  """What is timed: each contestant returns the same arrays, `()` -> tree."""
  name: str
  contestants: dict[str, Callable]  # the first one is the yardstick
  tolerance: float                  # between them, relative to the largest


def dispatch(smoke: bool) -> Iterator[Case]:
  """Mixture of experts: forward and backward of each dispatch."""
  on_cpu = jax.default_backend() == 'cpu'
  dtype, tolerance = (jnp.float32, 1e-4) if on_cpu else (jnp.bfloat16, 0.05)
  width, hidden, experts, top_k = (8, 4, 4, 2) if smoke else (256, 128, 32, 4)

  @functools.partial(jax.jit, static_argnums=0)
  def gradients(how, x_MD, experts_MX, gates_MX, valid_M, *weights):
    def total(x_MD, gates_MX, *weights):
      y_MD = how(x_MD, experts_MX, gates_MX, valid_M, *weights)
      return jnp.sum(jnp.square(y_MD.astype(jnp.float32)))
    return jax.value_and_grad(total, argnums=(0, 1, 2, 3))(
        x_MD, gates_MX, *weights)

  for num_tokens in (6, 24) if smoke else (16, 512, 4096):
    rng = np.random.default_rng(num_tokens)
    draw = lambda *shape, rng=rng: jnp.asarray(rng.normal(size=shape), dtype)
    order_ME = np.argsort(rng.random((num_tokens, experts)), axis=1)
    inputs = (
        draw(num_tokens, width), jnp.asarray(order_ME[:, :top_k], jnp.int32),
        jnp.full((num_tokens, top_k), 1 / top_k, dtype),
        jnp.asarray(rng.random(num_tokens) < 0.9),
        draw(experts, width, 2, hidden) / width ** 0.5,
        draw(experts, hidden, width) / hidden ** 0.5)
    yield Case(
        f'{num_tokens} tokens, {width} wide, {top_k} of {experts} experts of '
        f'{hidden}, {jnp.dtype(dtype).name}',
        {how.__name__: functools.partial(gradients, how, *inputs)
         for how in (moe.dense, moe.block, moe.ragged)}, tolerance)


SUBJECTS = {'dispatch': dispatch}


def compare(case: Case, repeats: int) -> list[dict]:
  """A row of numbers for each contestant.

  Raises:
    ValueError: they do not compute the same.
  """
  names = list(case.contestants)
  first = {name: _timed(case.contestants[name]) for name in names}
  for name in names[1:]:
    _check_same(case, name, first[names[0]][1], first[name][1])
  seconds = {name: [] for name in names}
  for i in range(repeats):
    shift = i % len(names)  # nobody always runs after the same one
    for name in names[shift:] + names[:shift]:
      seconds[name].append(_timed(case.contestants[name])[0])
  middle = {name: float(np.median(seconds[name])) for name in names}
  least = {name: min(seconds[name]) for name in names}
  return [{
      'case': case.name, 'contestant': name,
      'median ms': 1e3 * middle[name], 'min ms': 1e3 * least[name],
      'median ratio': middle[name] / middle[names[0]],
      'min ratio': least[name] / least[names[0]],
      'first call s': first[name][0], 'repeats': repeats} for name in names]


def _timed(contestant):
  begin = time.perf_counter()
  out = jax.block_until_ready(contestant())
  return time.perf_counter() - begin, out


def _check_same(case: Case, name: str, want, got):
  for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    # NaN compares as false, and so is refused.
    if not np.abs(a - b).max() <= case.tolerance * np.abs(a).max():
      raise ValueError(
          f'Expected {name} to compute what {next(iter(case.contestants))} '
          f'does within {case.tolerance} of its largest value, got '
          f'{np.abs(a - b).max()} off {np.abs(a).max()} in "{case.name}". '
          'Correct it before timing it.')


def table(rows: list[dict]) -> str:
  """The numbers, one contestant a line, under the name of each case."""
  columns = ['median ms', 'min ms', 'median ratio', 'min ratio', 'first call s']
  lines = []
  for i, row in enumerate(rows):
    if i == 0 or row['case'] != rows[i - 1]['case']:
      lines += [row['case'], '  '.join(f'{c:>12}' for c in ['', *columns])]
    lines.append('  '.join([f'{row["contestant"]:>12}'] + [
        f'{row[column]:12.3f}' for column in columns]))
  return '\n'.join(lines)


def run(subject: str, workdir: str, *, smoke: bool = False) -> list[dict]:
  """Runs a subject, prints its table and writes the report."""
  if subject not in SUBJECTS:
    raise ValueError(f'Expected a subject out of {sorted(SUBJECTS)}, got '
                     f'{subject!r}. Name one of them.')
  begin = time.perf_counter()
  rows = []
  for case in SUBJECTS[subject](smoke):
    found = compare(case, repeats=2 if smoke else 15)
    print(table(found), flush=True)
    rows += found
  report.write_report(
      workdir, title=f'Benchmark: {subject}', command=report.command_line(),
      seed=0, seconds={subject: time.perf_counter() - begin}, compilations={},
      sections={'results': rows})
  return rows


def main():
  """Parses the subject and the flags."""
  workdir_flag = flags.DEFINE_string('workdir', None, 'Folder of the report.',
                                     required=True)
  smoke_flag = flags.DEFINE_bool('smoke', False, 'Tiny sizes, two repeats.')

  def body(arguments):
    if len(arguments) != 2:
      raise app.UsageError(f'Expected one subject out of {sorted(SUBJECTS)}, '
                           f'got {arguments[1:]}.')
    run(arguments[1], workdir_flag.value, smoke=smoke_flag.value)

  app.run(body)


if __name__ == '__main__':
  main()
