"""The recipes under launch/, as far as that goes without a cluster."""
import importlib
import os
import pathlib
import re
import shlex
import subprocess
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import yaml

from experiments.job import launch

_ROOT = pathlib.Path(__file__).parents[1]
_RECIPES = _ROOT / 'launch'


def script_flags() -> set[str]:
  """Names of the flags that every script has, as its source defines them."""
  return set(re.findall(
      r"DEFINE_\w+\(\s*'(\w+)'", pathlib.Path(launch.__file__).read_text()))


def problems(command: list[str]) -> list[str]:
  """What is wrong with `python -m module --flag=value ...`."""
  module = command[command.index('-m') + 1]
  found = []
  if not hasattr(importlib.import_module(module), 'run'):
    found.append(f'{module} is no script')
  for argument in command[command.index('-m') + 2:]:
    name = argument.partition('=')[0].removeprefix('--')
    if name.split('.')[0] not in script_flags():
      found.append(f'{argument} is no flag of {module}')
    if name == 'config' and not (
        _ROOT / argument.partition('=')[2].partition(':')[0]).exists():
      found.append(f'{argument} is not there')
  return found


class RecipesTest(parameterized.TestCase):

  @parameterized.parameters('slurm.sh', 'xpk.sh')
  def test_shell_scripts_parse_and_ask_for_what_they_need(self, name):
    subprocess.run(['bash', '-n', _RECIPES / name], check=True)
    done = subprocess.run(['bash', _RECIPES / name], capture_output=True,
                          text=True, check=False)
    self.assertEqual(done.returncode, 2)
    self.assertIn('usage', done.stderr)

  def test_xpk_command_line(self):
    inner = ['experiments.train_policy', '--workdir=/shared/my runs',
             '--config=configs/policy/ring_lite_paper.py']
    done = subprocess.run(
        ['bash', _RECIPES / 'xpk.sh', 'c3po', *inner], capture_output=True,
        text=True, check=True, env=os.environ | dict(
            CLUSTER='c', IMAGE='i', TPU_TYPE='v5p-256', DRY_RUN='1'))
    words = shlex.split(done.stdout)
    self.assertEqual(words[:3], ['xpk', 'workload', 'create'])
    options = dict(word.removeprefix('--').partition('=')[::2]
                   for word in words[3:])
    self.assertEqual(
        {name: options[name] for name in (
            'cluster', 'docker-image', 'tpu-type', 'workload', 'num-slices')},
        {'cluster': 'c', 'docker-image': 'i', 'tpu-type': 'v5p-256',
         'workload': 'c3po', 'num-slices': '1'})
    command = shlex.split(options['command'])
    self.assertEqual(command[:2], ['python', '-m'])
    self.assertContainsSubset(inner + ['--coordinator=auto'], command)
    self.assertEqual(problems(command), [])

  def test_slurm_starts_the_script_on_every_task(self):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    (folder / 'srun').write_text('#!/bin/bash\nprintf "%q " "$@"\n')
    (folder / 'srun').chmod(0o755)
    done = subprocess.run(
        ['bash', _RECIPES / 'slurm.sh', 'experiments.sft',
         '--config=configs/supervised/sft_tiny.py', '--workdir=/shared/a b'],
        capture_output=True, text=True, check=True,
        env=os.environ | {'PATH': f'{folder}:{os.environ["PATH"]}'})
    words = shlex.split(done.stdout)
    self.assertIn('--kill-on-bad-exit=1', words)
    self.assertIn('--workdir=/shared/a b', words)
    self.assertIn('--coordinator=auto', words)
    self.assertEqual(problems(words), [])
    header = re.findall(r'^#SBATCH --([\w-]+)=(\S+)$',
                        (_RECIPES / 'slurm.sh').read_text(), re.MULTILINE)
    options = dict(header)
    # One process for each GPU is what jax takes for granted under SLURM.
    self.assertEqual(options['ntasks-per-node'], options['gpus-per-node'])
    self.assertRegex(options['signal'], r'^TERM@\d+$')

  def test_jobset_has_what_its_controller_asks_for(self):
    found = yaml.safe_load((_RECIPES / 'jobset.yaml').read_text())
    self.assertEqual(found['apiVersion'], 'jobset.x-k8s.io/v1alpha2')
    self.assertEqual(found['kind'], 'JobSet')
    self.assertRegex(found['metadata']['name'], r'^[a-z][a-z0-9-]*$')
    replicated, = found['spec']['replicatedJobs']
    self.assertContainsSubset(['name', 'replicas', 'template'], replicated)
    job = replicated['template']['spec']
    pod = job['template']['spec']
    self.assertEqual(job['completions'], job['parallelism'])
    self.assertEqual(job['backoffLimit'], 0)
    self.assertEqual(pod['restartPolicy'], 'Never')
    container, = pod['containers']
    self.assertContainsSubset(['name', 'image', 'command', 'resources'],
                              container)
    # As many chips as the topology has, over all pods.
    chips = container['resources']['limits']['google.com/tpu']
    topology = pod['nodeSelector']['cloud.google.com/gke-tpu-topology']
    total = 1
    for size in topology.split('x'):
      total *= int(size)
    self.assertEqual(chips * job['parallelism'], total)
    mounted = {mount['name'] for mount in container['volumeMounts']}
    self.assertEqual(mounted, {volume['name'] for volume in pod['volumes']})
    self.assertIn('--coordinator=auto', container['command'])
    self.assertIn('--stopped_exit_code=75', container['command'])
    self.assertEqual(problems(container['command']), [])

  def test_a_wrong_flag_script_or_config_is_seen(self):
    self.assertLen(problems([
        'python', '-m', 'experiments.job.launch', '--config=configs/none.py',
        '--cordinator=auto', '--config.seed=1']), 3)


if __name__ == '__main__':
  absltest.main()
