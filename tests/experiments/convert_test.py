"""A run goes out, comes back, and begins another run; or nothing is written."""
import json
import pathlib
import shutil
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
from safetensors import numpy as safetensors

from configs.policy import c3po_tiny
from experiments import convert
from experiments.job import launch
from experiments.job import starting_params
from rljax import models
from rljax import sharding
from rljax.interop import convert as interop
from rljax.training import checkpoint
from rljax.training import optimizer as optimizers
from rljax.training import state as states
from tests import toys
from tests.end_to_end import runs


class FlagsStandIn:
  """Parsed flags."""

  def __init__(self, **values):
    self.__dict__ = dict(config=None, like=None, family='', step=-1,
                         dtype='float32', adapter=False) | values


class ConvertTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.config = c3po_tiny.get_config('smoke')
    self.config.mesh.data = 1
    self.mesh = sharding.make_mesh(devices=jax.devices()[:1])

  def trained(self):
    """Checkpoints as a run writes them; returns the parameters."""
    model, params = toys.model_and_params('tiny')
    state, _ = states.init_state(
        model, optimizers.make_optimizer(**self.config.optimizer),
        jax.random.key(0), self.mesh, params=params)
    job = self.job()
    with checkpoint.Checkpointer(self.folder / 'checkpoints',
                                 fingerprint=job.fingerprint) as saver:
      saver.save(3, state, {}, force=True)
    return params

  def job(self):
    with mock.patch.object(sharding, 'make_mesh',
                                    return_value=self.mesh):
      return launch.start(self.config, self.folder / 'run', 'rl')

  def test_a_run_is_exported_and_another_begins_with_it(self):
    params = self.trained()
    out = self.folder / 'out'
    convert.run(FlagsStandIn(
        config=self.config, input=str(self.folder / 'checkpoints'),
        output=str(out), family='bailing_moe'))
    self.config.init.checkpoint = str(out)
    self.config.model = dict(variant=str(out), remat='full')
    job = self.job()
    self.assertEqual(job.model.config.remat, 'full')
    state, _ = starting_params.initial_state(
        self.config, job, optimizers.make_optimizer('sgd', 0.1),
        jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, state.params, params)

    convert.run(FlagsStandIn(input=str(out), output=str(self.folder / 'half'),
                             dtype='bfloat16'))
    half = interop.load(self.folder / 'half', job.model, self.mesh)
    jax.tree.map(np.testing.assert_array_equal, half, jax.tree.map(
        lambda x: x.astype('bfloat16').astype('float32'), params))

  def refuse(self, message, **values):
    """Convert says so, and leaves the folder as it is."""
    before = sorted(self.folder.rglob('*'))
    with self.assertRaisesRegex(ValueError, message):
      convert.run(FlagsStandIn(**(
          dict(output=str(self.folder / 'new/out')) | values)))
    self.assertEqual(sorted(self.folder.rglob('*')), before)

  def test_what_is_missing_or_wrong_about_a_run_is_named(self):
    self.trained()
    run, config = str(self.folder / 'checkpoints'), self.config
    self.refuse('or --config with the config of the run', input=run)
    self.refuse('--family.*--like', input=run, config=config)
    self.refuse('mlp_dim', input=run, config=config, family='llama')
    self.refuse(r'step 9 in .*found \[3\]', input=run, config=config,
                family='bailing_moe', step=9)
    self.refuse('elsewhere, which is not there', config=config,
                input=str(self.folder / 'elsewhere'), family='bailing_moe')
    self.refuse('does not exist yet', input=run, config=config,
                output=str(self.folder), family='bailing_moe')
    config.model.top_k = 3
    self.refuse('top_k: checkpoint 2, this run 3', input=run, config=config,
                family='bailing_moe')

  def test_a_run_is_not_exported_as_another_model(self):
    self.trained()
    other = models.create('tiny', vocab_size=288)
    _, params = toys.model_and_params('tiny', vocab_size=288)
    interop.save(self.folder / 'other', 'bailing_moe', other.config, params)
    self.refuse('vocab_size 288 instead of 272', config=self.config,
                input=str(self.folder / 'checkpoints'),
                like=str(self.folder / 'other'))

  def test_the_command_line_converts_and_ends_with_an_error(self):
    params = self.trained()
    config = f'{runs.REPOSITORY}/configs/policy/c3po_tiny.py:smoke'
    arguments = (f'--config={config}', f'--input={self.folder}/checkpoints',
                 '--family=bailing_moe')
    out = self.folder / 'out'
    printed = runs.finish(runs.launch(
        'convert', self.folder, *arguments, f'--output={out}'))
    self.assertIn(f'Wrote {out}', printed)
    jax.tree.map(np.testing.assert_array_equal,
                 interop.load(out, models.create('tiny'), self.mesh), params)
    file, = out.glob('*.safetensors')
    file.write_bytes(file.read_bytes()[:-1])
    printed = runs.finish(runs.launch(
        'convert', self.folder, f'--input={out}',
        f'--output={self.folder}/again'), code=1)
    self.assertIn('the file is cut or damaged. Fetch it again.', printed)
    self.assertFalse((self.folder / 'again').exists())


class BadPublishedTest(parameterized.TestCase):
  """What is wrong with a published checkpoint; nothing is left behind."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    scratch = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    cls.sound = {}
    for name, variant, kind, overrides in (
        ('bailing_moe', 'tiny', 'bailing_moe', {}),
        ('llama', 'tiny_dense', 'llama', {}),
        ('llama_untied', 'tiny_dense', 'llama', dict(tied_head=False))):
      model, params = toys.model_and_params(variant, **overrides)
      cls.sound[name] = scratch / name
      interop.save(cls.sound[name], kind, model.config, params,
                   max_file_bytes=80_000)

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.input = self.folder / 'in'

  def refuse(self, kind, message, spoil, **values):
    shutil.copytree(self.sound[kind], self.input)
    spoil()
    flag = FlagsStandIn(**dict(input=str(self.input),
                               output=str(self.folder / 'out')) | values)
    with self.assertRaisesRegex(ValueError, message):
      convert.run(flag)
    self.assertEqual([path.name for path in self.folder.iterdir()], ['in'])

  def file(self, number=1):
    return sorted(self.input.glob('*.safetensors'))[number]

  def settings(self, **changes):
    path = self.input / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

  def tensors(self, name, change):
    """Rewrites the file that holds a tensor, with that tensor changed."""
    for file in self.input.glob('*.safetensors'):
      found = safetensors.load_file(file)
      if name in found:
        safetensors.save_file(found | {name: change(found[name])}, file)

  def test_without_a_fault_it_is_written(self):
    for kind, sound in self.sound.items():
      out = self.folder / kind
      convert.run(FlagsStandIn(input=str(sound), output=str(out)))
      self.assertEqual(sorted(x.name for x in out.iterdir()),
                       ['config.json', 'model.safetensors'])

  def test_a_missing_file(self):
    self.refuse('bailing_moe', 'model-00002-of-.*is missing',
                lambda: self.file().unlink())

  def test_a_cut_file(self):
    self.refuse('bailing_moe', 'model-00002-of.*the file is cut',
                lambda: self.file().write_bytes(self.file().read_bytes()[:-9]))

  def test_a_wrong_dtype(self):
    self.refuse('llama', 'model.norm.weight.*got I8', lambda: self.tensors(
        'model.norm.weight', lambda x: x.astype(np.int8)))

  @parameterized.parameters('bailing_moe', 'llama')
  def test_another_vocabulary(self, kind):
    self.refuse(kind, r'\[272, .*instead of \[300, .*vocab_size',
                lambda: self.settings(vocab_size=300))

  def test_a_tied_head_said_to_be_its_own(self):
    self.refuse('llama', 'lm_head.weight.*found none.*tie_word_embeddings',
                lambda: self.settings(tie_word_embeddings=False))

  def test_a_head_of_its_own_said_to_be_tied(self):
    self.refuse('llama_untied', 'lm_head.weight.*to equal',
                lambda: self.settings(tie_word_embeddings=True))

  def test_an_existing_output(self):
    with mock.patch.object(interop, 'load') as load:  # refused before reading
      self.refuse('llama', 'does not exist yet', lambda: None,
                  output=str(self.input))
    load.assert_not_called()

  @parameterized.parameters(
      (dict(like='x'), '--like'), (dict(family='llama'), '--family'),
      (dict(step=3), '--step'))
  def test_what_is_for_runs_alone_is_not_ignored(self, values, message):
    self.refuse('llama', f'no {message} with', lambda: None, **values)


if __name__ == '__main__':
  absltest.main()
