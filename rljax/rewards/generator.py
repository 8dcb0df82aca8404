"""Problems made by reasoning-gym, scored by the generator's own scorer.

A record's metadata is what the generator wrote ("source_dataset" names it), its
prompt the question. If the prompt says more than the question, the metadata is
instead {"family": name, "entry": {question, answer, metadata}}. Either may add
"config", the data set's keyword arguments, if the scorer depends on them.

Right means a score of at least 0.99. The reward stays 0 or 1: many scorers pay
0.01 for any answer at all, which would lift the baseline of a group in which
nothing is right.

Some scorers evaluate the response as Python. So they run in workers, behind the
worker's audit hook, and a response that calls or reaches into Python is refused
here.

Reference: github.com/open-thought/reasoning-gym, `score_answer`.
"""
from __future__ import annotations

import functools
import json
import re

from rljax.rewards import extraction
from rljax.rewards import verdict

PRELOAD = ('reasoning_gym',)
THRESHOLD = 0.99
_PYTHON = re.compile(
    r'__|\blambda\b|\b(?:eval|exec|open|compile|getattr|setattr|delattr|vars|'
    r'globals|locals|dir|type|super|input|print|help|exit|quit|breakpoint|'
    r'import_module)\s*\(')


def judge(*, record: dict, text: str) -> verdict.Judgement:
  """Decides equality at once; leaves the rest to the generator's scorer."""
  prediction = extraction.answer(text)
  if not prediction:
    return verdict.Judgement('unparsable', prediction)
  if prediction == record['answer'].strip():
    return verdict.Judgement('ok', prediction)
  if (_PYTHON.search(prediction)
      or extraction.screen(prediction, max_length=10_000) is not None):
    return verdict.Judgement('unparsable', prediction)
  return verdict.Judgement(None, prediction, _call(record, prediction))


def check_gold(record: dict) -> verdict.Judgement:
  """The scorer must accept the answer of its own generator."""
  answer = record['answer'].strip()
  if not answer or _PYTHON.search(answer):
    return verdict.Judgement('bad_gold', answer)
  return verdict.Judgement(None, answer, _call(record, answer))


def grade(*, family: str, entry: str, config: str, prediction: str) -> str:
  """Returns ok or wrong. Runs in a worker; may hang."""
  score = _dataset(family, config).score_answer(prediction, json.loads(entry))
  return 'ok' if score >= THRESHOLD else 'wrong'


@functools.lru_cache(maxsize=256)
def _dataset(family: str, config: str):
  import reasoning_gym

  return reasoning_gym.create_dataset(family, **json.loads(config))


def _call(record: dict, prediction: str):
  metadata = json.loads(record['metadata'])
  if 'source_dataset' in metadata:
    family = metadata['source_dataset']
    entry = {'question': record['prompt'], 'answer': record['answer'],
             'metadata': metadata}
  elif {'family', 'entry'} <= metadata.keys():
    family, entry = metadata['family'], metadata['entry']
  else:
    raise ValueError(
        f'Record {record["id"]!r}: expected metadata with "source_dataset", or '
        f'with "family" and "entry", got the keys {sorted(metadata)}; build '
        'the record with the reasoning-gym builder or change its verifier.')
  return functools.partial(
      grade, family=family, entry=json.dumps(entry),
      config=json.dumps(metadata.get('config', {})), prediction=prediction)
