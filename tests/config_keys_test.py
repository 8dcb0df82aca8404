"""A switch that nothing reads may not exist, in no config.

A section whose keys become keyword arguments is compared with the signature
they go to. Every other key must be read by name, `config.<section>.<key>`, in
the scripts of the config's family.
"""
import ast
import dataclasses
import functools
import importlib
import inspect

from absl.testing import absltest
from absl.testing import parameterized
from ml_collections import config_dict

from experiments import train_reward_model
from experiments.preference import preference_pairs
from experiments.reward import reward_model_forms
from rljax import losses
from rljax import packing
from rljax import sharding
from rljax.data import reward_benchmarks
from rljax.data import toy_comparisons
from rljax.models import denoiser
from rljax.models import lora
from rljax.models import variants
from rljax.models import vision_variants
from rljax.ops import sampling
from rljax.rewards import scorer
from rljax.training import checkpoint
from rljax.training import entropy_control
from rljax.training import forward as forwards
from rljax.training import optimizer as optimizers
from rljax.training import reward
from tests import configs_test

# Family of configs -> what of experiments/ reads them; a folder, all in it.
SCRIPTS = {
    'evaluation': ('evaluate', 'policy/judging', 'policy/responses', 'job'),
    'gan': ('train_gan_rm', 'gan', 'job'),
    'pairs': ('make_pairs', 'policy/reward_from_model', 'policy/responses',
              'job'),
    'pipeline': ('ring_lite',),
    'policy': ('train_policy', 'policy', 'job'),
    'preference': ('train_preference', 'preference', 'job'),
    'reward': ('train_reward_model', 'reward/reward_model_forms',
               'reward/reward_model_held_out', 'job'),
    'reward_benchmarks': ('evaluate_rewards',
                          'evaluation/evaluate_rewards_models'),
    'supervised': ('sft', 'job'),
}
# What a script calls the config, or the stage of a pipeline, it is given.
_ROOTS = ('config', 'settings', 'stage', 's')


def keywords(function):
  """Names of a function's arguments."""
  return set(inspect.signature(function).parameters)


def accepted_by_gan(section, config):
  """As `accepted`, of the parts of a generator and its reward."""
  name, _, part = section.rpartition('.')
  if part == 'loss':
    family = {'reward': 'discriminator', 'tune': 'denoising'}[name]
    return {'name', *losses.get(family, config[name].loss.name).hparams}
  if part == 'optimizer':
    return (keywords(optimizers.make_optimizer) - {'options'}
            | keywords(optimizers.find(config[name].optimizer.name)))
  fields = lambda record: {field.name for field in dataclasses.fields(record)}
  receivers = {
      'checkpoint': lambda: keywords(checkpoint.Checkpointer),
      'encoder': lambda: {'checkpoint', 'seed', 'variant'} | fields(
          vision_variants.VisionConfig),
      'generator.model': lambda: fields(denoiser.DenoiserConfig),
      'generator.optimizer.schedule': lambda: keywords(
          optimizers.make_schedule),
  }
  return receivers[section]() if section in receivers else None


def accepted(family, section, config):
  """Keys that the receiver of a section takes; None if none takes it whole."""
  if family == 'gan':
    return accepted_by_gan(section, config)
  if section == 'loss':
    kind = family if family != 'reward' else (
        reward_model_forms.FORMS[config.form])
    return {'name', *losses.get(kind, config.loss.name).hparams}
  if section == 'critic.loss':
    return {'name', *losses.get('value', config.critic.loss.name).hparams}
  if section in ('optimizer', 'critic.optimizer'):
    name = (config if section == 'optimizer' else config.critic).optimizer.name
    return (keywords(optimizers.make_optimizer) - {'options'}
            | keywords(optimizers.find(name)))
  if section == 'data.source' and family == 'preference':
    opener = preference_pairs.SOURCES[config.data.source.name]
    more = {'data_dir', 'tasks', 'train_size'} if (
        config.data.source.name == 'corrupted') else set()
    return {'name'} | (keywords(opener) - {'options'}) | more
  if section == 'data.source' and family == 'reward':
    opener = train_reward_model.SOURCES[config.data.source.name]
    more = keywords(toy_comparisons.records) if (
        config.data.source.name == 'toy') else set()
    return {'name'} | (keywords(opener) - {'options'}) | more
  if section == 'data.source':
    builder = importlib.import_module(
        f'rljax.data.builders.{config.data.source.name}.builder')
    return {'name'} | keywords(builder.make_builder)
  receivers = {
      'benchmarks': lambda: set(reward_benchmarks.READERS),
      'correction': lambda: {'name', 'level', 'cap', 'low', 'high'},
      'entropy_control': lambda: keywords(entropy_control.next_coef) - {
          'coef', 'entropy'},
      'checkpoint': lambda: keywords(checkpoint.Checkpointer),
      'critic.optimizer.schedule': lambda: keywords(optimizers.make_schedule),
      'lora': lambda: {'base', 'base_step'} | keywords(lora.create) - {
          'params', 'key', 'whole'},
      'evaluation.sampling': lambda: keywords(sampling.make_params),
      'pairs.sampling': lambda: keywords(sampling.make_params),
      'mesh': lambda: keywords(sharding.make_mesh),
      'model': lambda: {'variant'} | {
          field.name for field in dataclasses.fields(variants.ModelConfig)},
      'optimizer.schedule': lambda: keywords(optimizers.make_schedule),
      'packing.select': lambda: keywords(packing.select),
      'regularize': lambda: keywords(
          (reward if family == 'reward' else forwards).compose),
      'reward': lambda: keywords(scorer.create),
      'sharding': lambda: set(sharding.RULES),
  }
  return receivers[section]() if section in receivers else None


def chain(node, names):
  """`config.data.source` as 'data.source'; None for what is not of a config."""
  parts = []
  while isinstance(node, ast.Attribute):
    parts.append(node.attr)
    node = node.value
  if not isinstance(node, ast.Name) or node.id not in names:
    return None
  return '.'.join([*filter(None, [names[node.id]]), *reversed(parts)])


def assignments(tree):
  """Pairs (name, value), also of `a, b = x, y`."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
      target, value = node.targets[0], node.value
      both = (isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple))
      pairs = zip(target.elts, value.elts, strict=True) if both else [
          (target, value)]
      yield from ((t.id, v) for t, v in pairs if isinstance(t, ast.Name))


def sources(name):
  """The file of a script, or those of a folder."""
  place = configs_test.ROOT / 'experiments' / name
  found = sorted(place.glob('*.py')) if place.is_dir() else [
      place.with_suffix('.py')]
  assert found, name
  return found


@functools.cache
def read_by(scripts):
  """All that the functions of some scripts read of a config."""
  found = set()
  for path in (path for script in scripts for path in sources(script)):
    for function in ast.walk(ast.parse(path.read_text())):
      if not isinstance(function, ast.FunctionDef):
        continue
      names = dict.fromkeys(_ROOTS, '')
      for name, value in assignments(function):
        if name not in _ROOTS and chain(value, names):
          names[name] = chain(value, names)  # options = config.evaluation
      found |= {chain(node, names) for node in ast.walk(function)
                if isinstance(node, ast.Attribute)}
  return found - {None}


def unread(family, config, section=''):
  """The keys of a config that nothing reads."""
  takes = accepted(family, section, config) if section else None
  place = config
  for part in filter(None, section.split('.')):
    place = place[part]
  read, bad = read_by(SCRIPTS[family]), []
  for key, value in place.items():
    name = f'{section}.{key}' if section else key
    if takes is not None and key not in takes:
      bad.append(name)
    elif takes is None and not any(
        found == name or found.startswith(f'{name}.') for found in read):
      bad.append(name)
    # The stages of a pipeline are configs of their own.
    elif isinstance(value, config_dict.ConfigDict) and family != 'pipeline':
      bad += unread(family, config, name)
  return bad


class KeysTest(parameterized.TestCase):

  @parameterized.parameters(*configs_test.VARIANTS)
  def test_every_key_is_read(self, file, arg):
    config = configs_test.module(file).get_config(arg)
    bad = {}
    if 'pipeline' in file:
      bad['pipeline'] = unread('pipeline', config)
    for i, (family, stage) in enumerate(configs_test.stages(file, config)):
      # A stage has its name for the folder that the pipeline gives it.
      names = [key for key in unread(family, stage) if key != 'name']
      bad[f'{i} {family}'] = names
    self.assertEmpty({stage: keys for stage, keys in bad.items() if keys})

  @parameterized.parameters(
      '', 'checkpoint', 'correction', 'critic', 'critic.loss',
      'critic.optimizer', 'critic.optimizer.schedule', 'data', 'data.source',
      'entropy_control', 'evaluation.sampling', 'init', 'loss', 'lora', 'mesh',
      'model', 'optimizer', 'optimizer.schedule', 'packing', 'packing.select',
      'regularize', 'reward', 'reward_model', 'rollout', 'sharding')
  def test_a_key_that_nothing_reads_is_found(self, section):
    family = 'evaluation' if section.startswith('eval') else 'policy'
    file = dict(evaluation='configs/evaluation/mini.py',
                policy='configs/policy/c3po_tiny.py')[family]
    config = configs_test.module(file).get_config()
    self.assertEmpty(unread(family, config))
    place = config
    for part in filter(None, section.split('.')):
      place = place[part]
    place.unused_switch = True
    name = f'{section}.unused_switch' if section else 'unused_switch'
    self.assertEqual(unread(family, config), [name])

  @parameterized.parameters(
      *(('reward', 'reward/bradley_terry_tiny.py', section) for section in (
          '', 'data', 'data.source', 'init', 'loss', 'packing', 'regularize')),
      *(('gan', 'gan/gan_rm_digits.py', section) for section in (
          '', 'bootstrap', 'checkpoint', 'data', 'diagnostics', 'encoder',
          'generator', 'generator.model', 'generator.optimizer',
          'generator.optimizer.schedule', 'pool', 'reward', 'reward.loss',
          'reward.optimizer', 'tune', 'tune.loss', 'tune.optimizer')))
  def test_a_key_of_another_family_that_nothing_reads_is_found(
      self, family, file, section):
    config = configs_test.module(f'configs/{file}').get_config()
    self.assertEmpty(unread(family, config))
    place = config
    for part in filter(None, section.split('.')):
      place = place[part]
    place.unused_switch = True
    name = f'{section}.unused_switch' if section else 'unused_switch'
    self.assertEqual(unread(family, config), [name])

  def test_a_key_of_another_script_is_found(self):
    config = configs_test.module('configs/evaluation/mini.py').get_config()
    config.rollout.temperature = 0.5  # only training reads it there
    config.checkpoint = dict(every=1)
    self.assertEqual(unread('evaluation', config),
                     ['checkpoint', 'rollout.temperature'])


if __name__ == '__main__':
  absltest.main()
