"""The records that prompts are made of, as `config.data` names them."""
from __future__ import annotations

import pathlib

from experiments.job import launch
from rljax.data import chat
from rljax.data import pipeline
from rljax.data import sources


def open_records(config, job: launch.Job, split: str, scorer=None, *,
                 hinted: bool = False):
  """The records of a split: chosen domains, checked lengths and golds.

  With `hinted`, the prompts that hold a hint must fit as well.

  Raises:
    ValueError: a prompt over the limit, or an answer that its own verifier
      rejects; both name the record.
  """
  options = dict(config.data.source)
  folder = pathlib.Path(options.pop('data_dir')).expanduser()
  source = sources.open_source(data_dir=str(folder), split=split, **options)
  source = pipeline.choose(source, domains=config.data.domains)
  hint = lambda record: sources.hint_prompt(record) if hinted else ''
  length = lambda record: max(
      len(chat.prompt_tokens(job.tokenizer, text))
      for text in (record['prompt'], hint(record) or record['prompt']))
  source, dropped = pipeline.limit(
      source, length, config.data.max_prompt_length,
      too_long=config.data.too_long)
  if dropped:
    launch.say(f'   dropped  {dropped} prompts longer than '
               f'{config.data.max_prompt_length} tokens')
  bad = scorer.check_golds(list(source)) if scorer is not None else []
  if bad:
    first = ', '.join(sources.describe(record) for record in source
                      if record['id'] in bad[:5])
    raise ValueError(
        f'Expected every answer to pass its own verifier, but {len(bad)} of '
        f'{len(source)} in {source.name} do not (first: {first}). Correct '
        'these answers or remove the records.')
  return source
