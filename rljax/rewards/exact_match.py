"""Exact match: the boxed answer, or else the whole response, is the gold.

Typesetting (dollar signs, spaces, a full stop) is removed from both sides; no
mathematics is done. For answers that have one spelling.
"""
from __future__ import annotations

from rljax.rewards import extraction
from rljax.rewards import verdict


def judge(*, record: dict, text: str) -> verdict.Judgement:
  """Decides at once; needs no worker."""
  tail = extraction.after_think(text)
  if tail is None:
    return verdict.Judgement('unparsable', None)
  found = extraction.boxes(tail)
  extracted = extraction.last_boxed(tail) if found else tail.strip()
  if not extracted:  # before any comparison: nothing is never right
    return verdict.Judgement('unparsable', extracted)
  equal = (extraction.normalize(extracted)
           == extraction.normalize(record['answer']))
  return verdict.Judgement('ok' if equal else 'wrong', extracted)


def check_gold(record: dict) -> verdict.Judgement:
  """The gold must not be empty."""
  usable = bool(extraction.normalize(record['answer']))
  return verdict.Judgement('ok' if usable else 'bad_gold', record['answer'])
