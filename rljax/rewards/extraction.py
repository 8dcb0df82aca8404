r"""Finds the answer in a response. Pure functions that never raise.

Only the text after the last closing think tag counts, and an unclosed think tag
means there is no answer yet. The answer is the last \boxed{...}, braces
balanced; if a later box is never closed, there is none: an earlier box is a
step on the way, not the answer.

`screen` refuses what would only burn a worker's time: numbers and powers that
no answer needs, above all towers such as 9^9^9^9.
"""
from __future__ import annotations

import re

_TOKEN = re.compile(r'\\(?:boxed|fbox)\s*\{|\\.|[{}]', re.DOTALL)
_LONG_NUMBER = re.compile(r'[0-9]{1001}')
_LARGE_POWER = re.compile(r'\^[\s{(+-]*[0-9]{6}')
_CHAINED_POWER = re.compile(
    r'\^[+-]?(?:[0-9]+|\([^()^]*\)|\{[^{}^]*\})\^')


def after_think(text: str) -> str | None:
  """The text after the last closing think tag; None if thinking goes on."""
  tail = text.rpartition('</think>')[2]
  return None if '<think>' in tail else tail


def boxes(text: str) -> list[str | None]:
  """Contents of the outermost boxes in order; a last None if one is open."""
  stack = []  # (is a box, where its content starts)
  closed = []
  for match in _TOKEN.finditer(text):
    token = match.group()
    if token == '}':
      if stack:
        is_box, start = stack.pop()
        if is_box:
          while closed and closed[-1][0] > start:  # nested in this one
            closed.pop()
          closed.append((start, match.start()))
    elif token == '{':
      stack.append((False, match.end()))
    elif token.endswith('{') and len(token) > 2:
      stack.append((True, match.end()))
  end = closed[-1][1] if closed else -1
  found: list[str | None] = [text[start:stop] for start, stop in closed]
  if any(is_box and start > end for is_box, start in stack):
    found.append(None)
  return found


def last_boxed(text: str) -> str | None:
  """Content of the last box, stripped and without inner boxes around it all."""
  found = boxes(text)
  content = found[-1] if found else None
  while content is not None:
    content = content.strip()
    match = _TOKEN.match(content)
    if not (match and len(match.group()) > 2):
      break
    inner = boxes(content)
    if len(inner) != 1 or inner[0] is None or content != (
        match.group() + inner[0] + '}'):
      break
    content = inner[0]
  return content


def answer(text: str) -> str | None:
  """The last boxed content of what follows the thinking; None if none."""
  tail = after_think(text)
  return None if tail is None else last_boxed(tail)


def normalize(text: str) -> str:
  """Removes what is only typesetting, so that equal strings mean equal."""
  text = text.strip().removesuffix('.')
  for left, right in (('$$', '$$'), ('$', '$'), (r'\(', r'\)'), (r'\[', r'\]')):
    inside = text[len(left):-len(right)]
    if (text.startswith(left) and text.endswith(right)
        and len(text) > len(left + right) and '$' not in inside):
      text = inside
  text = re.sub(r'\\(?:left|right)(?![a-zA-Z])\s*', '', text)
  text = re.sub(r'\\[dt]frac(?![a-zA-Z])', r'\\frac', text)
  text = text.replace(r'\varnothing', r'\emptyset')
  text = re.sub(r'\\[!,;:]|~', ' ', text)
  text = re.sub(r'\s+', ' ', text).strip()
  return text.removesuffix('.').rstrip()


def screen(text: str, *, max_length: int = 2_000) -> str | None:
  """Why `text` must not be evaluated, or None if it may be."""
  if len(text) > max_length:
    return f'longer than {max_length} characters'
  compact = re.sub(r'\s+', '', text).replace('**', '^')
  if _LONG_NUMBER.search(compact):
    return 'a number of more than 1000 digits'
  if _LARGE_POWER.search(compact):
    return 'an exponent of more than 5 digits'
  if _CHAINED_POWER.search(compact) or _has_tower(compact):
    return 'an exponent tower'
  return None


def _has_tower(text: str) -> bool:
  """A power inside an exponent that consists of numbers alone."""
  groups = []     # open brackets: is it an exponent?
  exponents = []  # where the contents of those that are begin
  last_letter = -1
  for index, char in enumerate(text):
    if char in '{(':
      groups.append(text[index - 1:index] == '^')
      if groups[-1]:
        exponents.append(index + 1)
    elif char in '})':
      if groups and groups.pop():
        exponents.pop()
    elif char == '^' and exponents and last_letter < exponents[-1]:
      return True
    elif char.isalpha():
      last_letter = index
  return False
