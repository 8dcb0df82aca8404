"""Every config, variant and sweep entry: built by shapes, never run."""
import functools
import importlib.util
import pathlib
import re

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
from ml_collections import config_dict

from configs import common
from experiments import evaluate_rewards
from experiments import sweep
from experiments import train_gan_rm
from experiments import train_policy
from experiments import train_reward_model
from experiments.gan import gan_rounds
from experiments.job import launch
from experiments.policy import policy_pieces
from experiments.policy import responses
from experiments.preference import preference_pairs
from experiments.reward import reward_model_forms
from rljax import losses
from rljax import models
from rljax import rewards
from rljax import sharding
from rljax.data import candidates
from rljax.data import sources
from rljax.data import tokenizer as tokenizers
from rljax.models import transformer
from rljax.ops import sampling
from rljax.training import forward as forwards
from rljax.training import optimizer as optimizers
from rljax.training import preference
from rljax.training import update as updates
from rljax.types import PackedRows
from rljax.types import PolicyBatch
from rljax.types import PreferenceBatch
from rljax.types import SupervisedBatch
from rljax.types import TrainState

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(str(path.relative_to(ROOT))
               for path in ROOT.glob('configs/*/*.py'))
PAPER_DEVICES = 256


@functools.cache
def module(file):
  """A config file as a module."""
  spec = importlib.util.spec_from_file_location('config', ROOT / file)
  found = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(found)
  return found


def arguments(file):
  """'' and what the docstring names: `:smoke`, <file>:smoke, '  :smoke'."""
  own = re.escape(file)
  named = re.findall(rf'(?:`|{own}|^  ):(\w+)', module(file).__doc__, re.M)
  return ['', *dict.fromkeys(named)]


def stages(file, config):
  """The parts of a config that one script each runs: (family, config)."""
  family = pathlib.Path(file).parent.name
  if 'benchmarks' in config:  # of reward models; it builds no model by itself
    return [('reward_benchmarks', config)]
  if family != 'pipeline':
    return [(family, config)]
  return [('supervised', config.sft), ('evaluation', config.choice),
          *(('policy', stage) for stage in config.rl),
          ('evaluation', config.evaluation)]


VARIANTS = [(file, arg) for file in FILES for arg in arguments(file)]
SWEEPS = [file for file in FILES if hasattr(module(file), 'get_sweep')]


def devices(config):
  """As many names of the one device as the mesh asks for."""
  fixed = config.mesh.fsdp * config.mesh.expert * config.mesh.tensor
  return jax.devices()[:1] * (1 if fixed == 1 else PAPER_DEVICES)


def named(config):
  """With what has to be named on the command line."""
  config = config.copy_and_resolve_references()
  config.benchmarks.judge_bench = config.asked.path = 'file.jsonl'
  config.asked.base_url, config.asked.model = 'http://host/v1', 'name'
  return config


def built(family, config):
  """Builds what the family's script builds, without running any of it."""
  if family == 'reward_benchmarks':
    evaluate_rewards.check(named(config))
    return
  if family == 'gan':
    train_gan_rm.check(config)
    gan_rounds.build(config, num_classes=10)
    return
  if family == 'reward':
    reward_built(config)
    return
  mesh = sharding.make_mesh(**config.mesh, devices=devices(config))
  model = models.create(**config.model)
  abstract = transformer.abstract_params(model)
  sharding.tree_sharding(mesh, abstract, sharding.make_rules(config.sharding))
  if config.tokenizer == 'byte':
    vocab_size = tokenizers.load('byte').vocab_size
    assert vocab_size <= model.config.vocab_size, 'embedding too small'
  if family == 'preference':
    assert config.data.source.name in preference_pairs.SOURCES
    build_pairs(config, mesh, model)
    return
  assert config.data.source.name in sources.names()
  if family != 'supervised':
    with rewards.create(**config.reward):
      responses.make_sampler(
          launch.Job('build', ROOT, mesh, (), model, tokenizers.load('byte'),
                     {}), config)
  if family == 'policy':
    train_policy.check(config)
  if family == 'pairs':
    return
  if family == 'evaluation':
    assert max(config.evaluation.ks) <= config.evaluation.num_samples
  else:
    parts = launch.num_microbatches(config, mesh)
    # Numbers that change no shape need no second trace.
    plain = config.copy_and_resolve_references()
    plain.unlock()
    plain.optimizer.learning_rate = 1.0
    if family == 'policy':
      plain.packing.select = dict(token_budget=1)
      plain.rollout = dict(policy_pieces.sampling_options(config),
                           max_new_tokens=1)
    sections = ('model', 'loss', 'regularize', 'optimizer', 'packing',
                *(['rollout'] if family == 'policy' else []))
    update_by_shapes(family, parts, config_dict.FrozenConfigDict(
        {name: plain[name] for name in sections}))


def reward_built(config):
  """Traces a whole step of a reward model, at full size."""
  mesh = sharding.make_mesh(**config.mesh, devices=devices(config))
  job = launch.Job('build', ROOT, mesh, (), models.create(**config.model),
                   tokenizers.load('byte'), {})
  parts = launch.num_microbatches(config, mesh)
  form = reward_model_forms.create(config, job, parts)
  if config.data.source.name == 'file':  # of the user's
    config = config.copy_and_resolve_references().unlock()
    config.data.source = common.toy_comparisons(100, held_out=4)
  _, train, held_out, _ = train_reward_model.read(config)
  items, _ = candidates.all_of(train[:config.data.lists_per_step], form.make)
  assert held_out and len(items) == config.data.lists_per_step
  check_update(form.job.model, form.loss_fn, config, parts, form.batch(items))


def build_pairs(config, mesh, model):
  """What `experiments.train_preference` builds before it reads data."""
  job = launch.Job('build', ROOT, mesh, (), model, tokenizers.load('byte'), {})
  layout = preference_pairs.make_layout(config, job)
  preference_pairs.make_limits(config, job)
  pair_update_by_shapes(layout, config_dict.FrozenConfigDict(
      {name: config[name] for name in (
          'model', 'loss', 'regularize', 'optimizer')}))


@functools.cache
def pair_update_by_shapes(layout, config):
  """Traces a whole optimiser step on pairs, at full size."""
  model = models.create(**config.model)
  shape_BT = (layout.num_rows, layout.row_length)
  ints, floats, flags = (jax.ShapeDtypeStruct(shape_BT, dtype)
                         for dtype in (jnp.int32, jnp.float32, jnp.bool_))
  batch = PreferenceBatch(
      tokens_BT=ints, position_BT=ints, segment_BT=ints, pair_BT=ints,
      chosen_BT=flags, mask_BT=flags, share_BT=floats, ref_logp_BT=floats,
      weight_BP=jax.ShapeDtypeStruct(
          (layout.num_rows, layout.pairs_per_row), jnp.float32),
      guide_logp_BT=floats, load_BLE=None,
      prefix_BT=ints if layout.share_prompt else None,
      kl_B=jax.ShapeDtypeStruct((layout.num_rows,), jnp.float32))
  objective = losses.get('preference', **config.loss)
  loss = forwards.compose(forwards.make_forward(model), objective.loss,
                          **config.regularize)
  check_update(model, loss, config, layout.num_microbatches, batch,
               preference.DIVERGENCE in objective.reads)


def check_update(model, loss, config, num_microbatches, batch,
                 takes_reference=False):
  """One step keeps the shapes of its state."""
  optimizer = optimizers.make_optimizer(**config.optimizer)
  params = sharding.unbox(transformer.abstract_params(model))
  update = updates.make_update_fn(loss, optimizer,
                                  takes_reference=takes_reference,
                                  num_microbatches=num_microbatches)
  state = TrainState(step=jax.ShapeDtypeStruct((), jnp.int32), params=params,
                     opt_state=jax.eval_shape(optimizer.init, params))
  after, metrics = jax.eval_shape(update, state, batch, jax.random.key(0),
                                  *[params] * takes_reference)
  kinds = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert kinds(after) == kinds(state), 'an update changes the state it is given'
  assert metrics['loss'].shape == ()


@functools.cache
def update_by_shapes(family, num_microbatches, config):
  """Traces a whole optimiser step, at full size."""
  model = models.create(**config.model)
  rows, length = config.packing.num_rows, config.packing.row_length
  objective = losses.get(family, **config.loss)
  ints, floats, flags = (jax.ShapeDtypeStruct((rows, length), dtype)
                         for dtype in (jnp.int32, jnp.float32, jnp.bool_))
  load = jax.ShapeDtypeStruct(
      (rows, model.config.num_layers, model.config.num_experts), jnp.float32)
  inputs = dict(tokens_BT=ints, position_BT=ints, segment_BT=ints)
  if family == 'policy':
    weights = jax.eval_shape(objective.token_weights, PackedRows(
        **inputs, mask_BT=flags, response_BT=flags,
        advantage_BT=floats, sampled_logp_BT=floats,
        num_responses=jax.ShapeDtypeStruct((), jnp.int32),
        token_budget=config.packing.select.token_budget,
        max_response_length=config.rollout.max_new_tokens))
    batch = PolicyBatch(
        **inputs, weight_BT=weights, share_BT=floats, advantage_BT=floats,
        old_logp_BT=floats, load_BLE=load,
        ref_logp_BT=floats if objective.hparams['kl_coef'] else None)
  else:
    batch = SupervisedBatch(**inputs, weight_BT=floats, share_BT=floats,
                            load_BLE=load)
  sampled = sampling.make_params(**policy_pieces.sampling_options(
      config)) if family == 'policy' else None
  loss = forwards.compose(forwards.make_forward(model, sampled),
                          objective.loss, **config.regularize)
  check_update(model, loss, config, num_microbatches, batch)


class BuildTest(parameterized.TestCase):

  @parameterized.parameters(*VARIANTS)
  def test_variant_builds(self, file, arg):
    for family, config in stages(file, module(file).get_config(arg)):
      built(family, config)

  @parameterized.parameters(*SWEEPS)
  def test_every_sweep_entry_builds_from_the_locked_config(self, file):
    config = module(file).get_config().lock()
    entries = sweep.entries(ROOT / file)
    self.assertNotEmpty(entries)
    for entry in entries:
      changed = sweep.apply(config, entry)
      for name, value in entry.items():
        got = eval(f'changed.{name}', {'changed': changed})  # rl[0].seed
        self.assertEqual(got.to_dict() if isinstance(value, dict) else got,
                         value)
      for family, stage in stages(file, changed):
        built(family, stage)

  @parameterized.parameters(*FILES)
  def test_unknown_variant_is_refused_by_name(self, file):
    with self.assertRaisesRegex(ValueError, "Unknown variant 'smok'.*use|none"):
      module(file).get_config('smok')

  @parameterized.parameters(*FILES)
  def test_the_docstring_has_the_command_of_the_file_itself(self, file):
    self.assertIn(f'--config={file}', module(file).__doc__)

  def test_variants_are_found_in_docstrings(self):
    self.assertEqual(arguments('configs/policy/c3po_tiny.py'), ['', 'smoke'])
    self.assertEqual(
        arguments('configs/policy/ring_lite_paper.py'),
        ['', 'per_data_rank', 'global', 'per_data_rank_stage_2',
         'global_stage_2'])

  @parameterized.named_parameters(
      ('rows that do not split', {'packing.rows_per_device': 3},
       'rows_per_device=3'),
      ('a model that does not exist', {'model.variant': 'minni'}, "'mini'"),
      ('an advantage that does not exist', dict(advantage='group'), 'group'),
      ('rows too short', {'packing.row_length': 64}, 'straddles'),
      ('too few rows', {'packing.num_rows': 8}, 'num_rows'),
      ('a budget beyond the rollout', {'packing.select.token_budget': 10_000},
       'could ever fill'),
      ('a keyword of another loss', dict(loss=dict(name='dapo', clip_eps=1.0)),
       'clip_eps'))
  def test_what_cannot_be_built_is_found(self, entry, message):
    config = module('configs/policy/c3po_tiny.py').get_config().lock()
    with self.assertRaisesRegex(Exception, message):
      built('policy', sweep.apply(config, entry))


class MeshTest(parameterized.TestCase):

  @parameterized.parameters(1, 2, 4, 8)
  def test_small_configs_run_on_any_number_of_devices(self, count):
    mesh = sharding.make_mesh(devices=jax.devices()[:count])
    for file, arg in VARIANTS:
      if 'paper' in file or '/gan/' in file:  # a generator has one device
        continue
      for family, config in stages(file, module(file).get_config(arg)):
        if family == 'reward_benchmarks':
          continue
        if family not in ('evaluation', 'pairs'):
          launch.num_microbatches(config, mesh)
        if family in ('policy', 'evaluation', 'pairs'):
          self.assertEqual(config.rollout.num_slots % count, 0)

  def test_every_row_of_the_axis_table_can_be_set(self):
    config = common.run().lock()
    self.assertEqual(set(config.sharding), set(sharding.RULES))
    self.assertEqual(sharding.make_rules(config.sharding),
                     sharding.make_rules())
    config.sharding.embed = ('data', 'fsdp')
    config.sharding.vocab = ()
    rules = dict(sharding.make_rules(config.sharding))
    self.assertEqual((rules['embed'], rules['vocab']), (('data', 'fsdp'), None))


class SharingTest(absltest.TestCase):

  def test_the_evaluation_config_asks_what_the_demo_asks(self):
    demo = module('configs/pipeline/ring_lite_mini.py').get_config().evaluation
    alone = module('configs/evaluation/mini.py').get_config()
    for name in ('model', 'data', 'reward', 'rollout', 'evaluation'):
      self.assertEqual(alone[name], demo[name], name)

  def test_sections_are_fresh_copies(self):
    first, second = common.policy(), common.policy()
    first.optimizer.schedule.warmup_steps = 99
    self.assertNotEqual(second.optimizer.schedule.warmup_steps, 99)

  def test_an_unset_choice_can_be_set_on_a_locked_config(self):
    # A plain None could not be: the command line knows no type for it.
    config = module('configs/policy/c3po_tiny.py').get_config().lock()
    self.assertIsNone(config.data.domains)
    self.assertEqual(config.get_type('seed'), int)
    self.assertEqual(config.data.get_type('domains'), tuple)
    config.data.domains = ('math',)
    self.assertIsInstance(config, config_dict.ConfigDict)


if __name__ == '__main__':
  absltest.main()
