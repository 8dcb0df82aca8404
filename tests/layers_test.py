"""Which part may import which: only downwards, never sideways."""
import ast
import pathlib

from absl.testing import absltest
from absl.testing import parameterized

ROOT = pathlib.Path(__file__).parents[1]
BOTTOM = {'ops', 'processes', 'types'}
MIDDLE = BOTTOM | {'losses', 'models', 'packing', 'sharding'}
# Part of rljax -> the other parts that it may import.
MAY_IMPORT = {
    'types': set(), 'prompts': set(), 'processes': set(), 'journal': set(),
    'ops': {'types'},
    'losses': BOTTOM, 'models': BOTTOM, 'packing': BOTTOM, 'sharding': BOTTOM,
    'training': MIDDLE, 'rollout': MIDDLE, 'interop': MIDDLE,
    # Curation keeps what a verifier accepts.
    'data': {'types', 'prompts', 'rewards'}, 'rewards': {'types', 'prompts'},
    'agents': {'journal', 'rollout', 'rewards', 'prompts', 'types'},
    'superego': {'agents', 'prompts', 'types'},
    'evaluation': BOTTOM | {'agents', 'journal', 'superego', 'rewards',
                            'rollout', 'models'}}
WITHOUT_JAX = {'data', 'rewards'}


def imports(source):
  """Every dotted name that a module imports, inside functions too."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      module = '.' * node.level + (node.module or '')
      yield from (f'{module}.{alias.name}' for alias in node.names)


def violations(part, source):
  """What a module of this part imports against the table."""
  for name in imports(source):
    top, _, rest = name.partition('.')
    other = rest.split('.')[0]
    if (top == 'rljax' and other not in MAY_IMPORT[part] | {part}
        or top in ('', 'experiments', 'configs', 'tests')
        or name.startswith('absl.flags')
        or top == 'jax' and part in WITHOUT_JAX):
      yield name


class LayersTest(parameterized.TestCase):

  def test_the_tree_is_clean(self):
    files = sorted((ROOT / 'rljax').rglob('*.py'))
    self.assertGreater(len(files), 30)
    found = []
    for path in files:
      part = path.relative_to(ROOT / 'rljax').parts[0].removesuffix('.py')
      if part == '__init__':
        self.assertEmpty(path.read_text())
        continue
      self.assertIn(part, MAY_IMPORT, f'{path}: give it a row in the table')
      found += [f'{path.relative_to(ROOT)} imports {name}'
                for name in violations(part, path.read_text())]
    self.assertEmpty(found)

  def test_configs_import_literals_only(self):
    for path in (ROOT / 'configs').rglob('*.py'):
      for name in imports(path.read_text()):
        self.assertTrue(
            name.startswith(('ml_collections', 'configs.common', '__future__')),
            f'{path.relative_to(ROOT)} imports {name}')

  @parameterized.parameters(
      ('ops', 'from rljax.training import update'),
      ('ops', 'from rljax import training'),
      ('ops', 'import rljax.training.update as u'),
      ('ops', 'def f():\n  from rljax.training.update import make_update_fn'),
      ('losses', 'from rljax.models import moe'),      # sideways
      ('models', 'from rljax import packing'),         # sideways
      ('data', 'import jax.numpy as jnp'),
      ('rewards', 'from jax import numpy'),
      ('data', 'from rljax import models'),
      ('training', 'from rljax.rollout import sampler'),
      ('evaluation', 'from rljax.training import state'),
      ('training', 'from experiments.job import launch'),
      ('models', 'import configs.common'),
      ('training', 'from absl import flags'),
      ('ops', 'from ..training import update'))
  def test_a_forbidden_import_is_found(self, part, source):
    self.assertLen(list(violations(part, source)), 1)

  @parameterized.parameters(
      ('ops', 'import jax.numpy as jnp\nfrom rljax.ops import masking'),
      ('training', 'from rljax import losses, models, packing, sharding'),
      ('evaluation', 'from rljax.rollout import statistics'),
      ('rewards', 'from rljax.types import RewardResult'))
  def test_an_allowed_import_passes(self, part, source):
    self.assertEmpty(list(violations(part, source)))


if __name__ == '__main__':
  absltest.main()
