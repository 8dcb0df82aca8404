"""Verdicts asked of a language model, several times, and kept in a file.

A verdict is named by what was asked, of whom and how, and by the number of the
call: a run that was stopped goes on, another prompt or judge asks anew. A reply
without a verdict is asked for again, with another seed, and stays `INVALID`
after the last try.
"""
from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import hashlib
import json
import pathlib
import re

from rljax import journal
from rljax.agents import language_model
from rljax.rewards import extraction

INVALID = -1


def collect(
    asked: Sequence[tuple[str, int]],
    model: language_model.LanguageModel,
    parse: Callable[[str], int],
    *,
    judge_id: str,
    num_retries: int,
    temperature: float,
    max_tokens: int | None,
    seed: int,
    cache: str | pathlib.Path | None,
    on_verdict: Callable[[], None] | None,
) -> list[int]:
  """The verdict of each (what is asked, number of the call).

  Args:
    asked: the same entry twice is one verdict.
    model: the judge.
    parse: from a reply to a verdict, or `INVALID`.
    judge_id: names the judge in the cache; another judge, another name.
    num_retries: further tries of a call whose reply had no verdict.
    temperature: of the replies.
    max_tokens: of a reply.
    seed: of the replies; each call and each try has its own.
    cache: JSONL of verdicts; None keeps nothing.
    on_verdict: called once for every different entry, for a progress bar.

  Raises:
    LanguageModelError: the judge gave no reply; what it said is kept.
  """
  settings = [judge_id, temperature, max_tokens, seed, num_retries]
  text_of = {(_name(text, settings), call): text for text, call in asked}
  stride = 1 + max((call for _, call in asked), default=0)
  store, tell = _Store(cache), on_verdict or (lambda: None)
  pending = [key for key in text_of if key not in store.verdicts]
  for _ in range(len(text_of) - len(pending)):
    tell()
  for attempt in range(num_retries + 1):
    requests = [
        language_model.Request(
            messages=({'role': 'user', 'content': text_of[key]},),
            temperature=temperature, max_tokens=max_tokens,
            seed=seed + key[1] + stride * attempt)
        for key in pending]
    pending = _ask(model, requests, pending, parse, store, tell,
                   is_last=attempt == num_retries)
  return [store.verdicts[_name(text, settings), call] for text, call in asked]


def boxed(reply: str, wrapped: re.Pattern[str]) -> str:
  """The word in the last box behind the thinking; empty if there is none.

  Args:
    reply: of the judge.
    wrapped: what may stand around the word, in the box; the word is a group.
  """
  tail = extraction.after_think(reply)
  found = None if tail is None else extraction.last_boxed(tail)
  if found is None:
    return ''
  while match := wrapped.fullmatch(found := found.strip(' .!*')):
    found = next(filter(None, match.groups()), '')
  return found.casefold()


def _ask(model, requests, pending, parse, store, tell, is_last) -> list:
  """Asks for what is missing; returns what is to be asked again."""
  if not pending:
    return []
  again = []

  def keep(i, reply):
    verdict = parse(reply.responses[0].text)
    if verdict == INVALID and not is_last:
      again.append(pending[i])
      return
    store.add(*pending[i], verdict)
    tell()

  model(requests, on_reply=keep)
  return sorted(again, key=pending.index)


def _name(text: str, settings) -> str:
  return hashlib.sha256(json.dumps([text, settings]).encode()).hexdigest()[:24]


class _Store:
  """Verdicts by (what was asked, number of the call), also in a file."""

  def __init__(self, path):
    self.verdicts: dict[tuple[str, int], int] = {}
    self._path = None if path is None else pathlib.Path(path)
    if self._path is None or not self._path.exists():
      return
    for line in self._path.read_text().splitlines():
      try:
        name, call, verdict = json.loads(line)
      except (json.JSONDecodeError, ValueError):  # the line that was cut
        continue
      self.verdicts[name, call] = verdict

  def add(self, name: str, call: int, verdict: int):
    self.verdicts[name, call] = verdict
    if self._path is not None:
      journal.append(self._path, [[name, call, verdict]])
