"""Published checkpoints and ours, into the folder that everyone reads.

  # A GGUF file: weights dequantised, tokenizer and chat template beside them.
  python -m experiments.convert --input=model.gguf --output=checkpoints/model

  # A run of ours, back into the form of the model it began with.
  python -m experiments.convert --config=configs/policy/smollm2_c3po.py \\
      --input=runs/smollm2/checkpoints --output=exports/smollm2 \\
      --like=checkpoints/smollm2 --dtype=bfloat16

  # A run that began with random parameters.
  python -m experiments.convert --config=configs/policy/c3po_tiny.py \\
      --input=runs/c3po_tiny/checkpoints --output=exports/c3po_tiny \\
      --family=bailing_moe

  # A run with adapters: merged, as above, or the adapters alone, as PEFT reads
  # them.
  python -m experiments.convert --config=configs/policy/smollm2_c3po.py \\
      --config.lora.rank=8 --input=runs/smollm2/checkpoints \\
      --output=exports/adapter --like=checkpoints/smollm2 --adapter

Training needs no conversion: `config.model.variant` and
`config.init.checkpoint` may name the folder of a published checkpoint. What is
written appears under its name when it is complete.
"""
from __future__ import annotations

import pathlib

from absl import app
from absl import flags
import jax
from ml_collections import config_flags
import optax

from experiments.job import launch
from experiments.job import starting_params
from rljax import sharding
from rljax.interop import adapters
from rljax.interop import convert
from rljax.interop import names
from rljax.interop import settings
from rljax.models import lora
from rljax.models import transformer
from rljax.training import state as states


def from_published(source, output, dtype: str):
  """A GGUF file or a folder, into a new folder."""
  config = convert.model_config(source, param_dtype=dtype)
  convert.check_export(output, family(source), config, source)
  params = convert.load(source, transformer.Transformer(config), one_device())
  convert.save(output, family(source), config, params, dtype=dtype, like=source)


def from_run(config, source, output, *, step: int, kind: str, like: str | None,
             dtype: str, adapter: bool = False):
  """The parameters of a run, or its adapters alone, into a new folder."""
  kind = family(like) if like else kind
  if kind not in names.FAMILIES:
    raise ValueError(
        f'Expected --family to be one of {sorted(names.FAMILIES)}, got '
        f'{kind!r}. Name it, or the checkpoint that the run began with by '
        '--like.')
  model = launch.create_model(config.model)
  if adapter and not config.lora.rank:
    raise ValueError('Expected --config.lora.rank of the run with --adapter, '
                     'got 0. Give it, or leave --adapter out.')
  if adapter:
    adapters.check(output, kind, model.config)
  else:
    convert.check_export(output, kind, model.config, like)
  source = pathlib.Path(source).expanduser()
  if not source.is_dir():
    raise ValueError(f'Expected the checkpoints of a run in {source}, which is '
                     'not there. Name <workdir>/checkpoints.')
  job = launch.Job('convert', source, one_device(), None, model, None,
                   launch.make_fingerprint(config, model))
  # Without a rank, what the run itself says of its adapters counts.
  state, _ = starting_params.initial_state(
      config, job, optax.identity(),
      states.named_keys(config.seed, 'init')['init'], (str(source), step))
  if adapter:
    adapters.save(output, kind, model.config, state.params, base=like or '')
  else:
    convert.save(output, kind, model.config, lora.merge(state.params),
                 dtype=dtype, like=like)


def family(path) -> str:
  """The family of a published checkpoint."""
  if pathlib.Path(path).suffix == '.gguf':
    return 'llama'
  return settings.to_config(settings.read(path))[0]


def one_device():
  """Export passes every array through the host: one device is enough."""
  return sharding.make_mesh(devices=jax.devices()[:1])


def run(flag):
  """Takes the way that the flags name."""
  if convert.is_published(flag.input):
    only = [name for name in ('config', 'like', 'family', 'adapter')
            if getattr(flag, name)] + ['step'] * (flag.step >= 0)
    if only:
      raise ValueError(
          f'Expected no --{only[0]} with {flag.input}, which is a published '
          'checkpoint and says by itself what it is: that is for runs of ours. '
          'Leave it out, or name the checkpoints of a run.')
    from_published(flag.input, flag.output, flag.dtype)
  elif flag.config is None:
    raise ValueError(
        f'Expected a published checkpoint in {flag.input}, or --config with '
        'the config of the run that wrote it. Name one of them.')
  else:
    from_run(flag.config, flag.input, flag.output, step=flag.step,
             kind=flag.family, like=flag.like, dtype=flag.dtype,
             adapter=flag.adapter)
  print(f'Wrote {flag.output}')


def main():
  config_flags.DEFINE_config_file('config', None, 'Config of the run.')
  flags.DEFINE_string('input', None, 'GGUF file, folder, or checkpoints.')
  flags.DEFINE_string('output', None, 'Folder that does not exist yet.')
  flags.DEFINE_string('like', None, 'What the run began with.')
  flags.DEFINE_string('family', '', 'One of interop.names.FAMILIES.')
  flags.DEFINE_bool('adapter', False, 'The adapters alone, as PEFT has them.')
  flags.DEFINE_integer('step', -1, 'Of the run; -1 is the newest.')
  flags.DEFINE_enum('dtype', 'float32', ('float32', 'bfloat16', 'float16'),
                    'Of the files.')
  flags.mark_flags_as_required(['input', 'output'])
  app.run(lambda _: run(flags.FLAGS))


if __name__ == '__main__':
  main()
