r"""GSM8K answers: one number, compared as an exact decimal.

  number = sign? $? digit (digit or comma)* (dot digits)? %?

The number is looked for after the `####` marker; without a marker in the box;
without a box it is the last number of the response. A marker or a box that
holds no single number is no answer: nothing further is tried, lest a stray
number be read as one.

Reference: GSM8K (arXiv 2110.14168), section 2 for the marker.
"""
from __future__ import annotations

import decimal
import re

from rljax.rewards import extraction
from rljax.rewards import verdict

MARKER = '####'
# A minus sign after a word, a digit or a bracket is an operation, not a sign.
_NUMBER = re.compile(
    r'((?:(?<![\w)\]}])[-\u2212+])?)\\?\$?((?:(?<=\$)[-\u2212])?)'
    r'([0-9][0-9,]*(?:\.[0-9]+)?)')


def judge(*, record: dict, text: str,
          first_marker: bool = False) -> verdict.Judgement:
  """Decides at once; needs no worker."""
  gold = _gold(record)
  if gold is None:
    return verdict.Judgement('bad_gold', None)
  extracted = extract(text, first_marker=first_marker)
  if extracted is None:
    return verdict.Judgement('unparsable', None)
  equal = decimal.Decimal(extracted) == gold
  return verdict.Judgement('ok' if equal else 'wrong', extracted)


def check_gold(record: dict) -> verdict.Judgement:
  """The gold must hold a number."""
  usable = _gold(record) is not None
  return verdict.Judgement('ok' if usable else 'bad_gold', record['answer'])


def extract(text: str, *, first_marker: bool = False) -> str | None:
  """The answer as a plain decimal string, or None.

  Args:
    text: the response alone, without the prompt.
    first_marker: read the first marker, for models that run on into a next
      question; otherwise the last one.
  """
  tail = extraction.after_think(text)
  if tail is None:
    return None
  if MARKER in tail:
    part = tail.split(MARKER)[1 if first_marker else -1]
    lines = part.strip().splitlines()
    found = numbers(lines[0]) if lines else []
    return found[0] if found else None
  if extraction.boxes(tail):
    content = extraction.last_boxed(tail)
    found = numbers(content.rpartition('=')[2]) if content else []
    return found[0] if len(found) == 1 else None
  found = numbers(tail)
  return found[-1] if found else None


def numbers(text: str) -> list[str]:
  """All numbers of the text, as decimal strings without commas."""
  return [('-' if {'-', '\u2212'} & {outer, inner} else '')
          + digits.replace(',', '')
          for outer, inner, digits in _NUMBER.findall(text)]


def _gold(record: dict) -> decimal.Decimal | None:
  found = numbers(record['answer'].rpartition(MARKER)[2])
  return decimal.Decimal(found[0]) if len(found) == 1 else None
