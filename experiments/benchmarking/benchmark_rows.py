"""Rows of the benchmark: their ratios, what is published, and its table.

A row says what was measured (`row`, `metric`, `higher_is_better`), by how much
(`rljax`, `peers` by name), and what the machine allowed in the same run
(`limit`). From these follow

  ratio_to_best_peer  above 1: ours is ahead
  share_of_limit      1: as fast as the machine allows
  memory_ratio        the leanest peer's memory over ours; above 1: less
"""
from __future__ import annotations

import json
import pathlib
import re

from rljax.evaluation import report

NAMES = ('moe_train', 'moe32_train', 'dense_train', 'decode', 'decode_skewed',
         'grpo_step', 'dpo_step', 'reward_step', 'compile_depth',
         'head_memory', 'grouped_matmul')
_BEGIN, _END = '<!-- benchmark: begin -->', '<!-- benchmark: end -->'


def completed(row: dict) -> dict:
  """Adds what follows from the numbers; keeps what the subject has said."""
  sign = 1 if row['higher_is_better'] else -1
  best = max(row['peers'].values(), key=lambda x: sign * x, default=None)
  limit, memory = row.get('limit'), row.get('peak_mb', {})
  leanest = min((mb for who, mb in memory.items() if who != 'rljax'),
                default=None)
  return {
      'limit': limit,
      'ratio_to_best_peer': best and (row['rljax'] / best) ** sign,
      'share_of_limit': limit and (row['rljax'] / limit) ** sign,
      'memory_ratio': leanest and leanest / memory['rljax']} | row


def merged(old: list[dict], fresh: list[dict]) -> list[dict]:
  """Fresh rows instead of old ones of their name, in the order of NAMES."""
  names = {row['row'] for row in fresh}
  rows = [row for row in old if row['row'] not in names] + fresh
  place = lambda row: NAMES.index(row['row']) if row['row'] in NAMES else (
      len(NAMES))
  return sorted(rows, key=place)


def save(found: dict, folder: pathlib.Path, readme: pathlib.Path):
  """Publishes a report: the rows as JSON, and their table in the README.

  Rows that this run did not measure stay as they are.
  """
  path = folder / 'benchmark.json'
  old = json.loads(path.read_text())['rows'] if path.exists() else []
  # Where this machine has its interpreters is nobody's business.
  command = re.sub(r'(--peer=\w+=)\S+', r'\1<python>', found['command'])
  about = dict(command=command, machine=found['machine'])
  rows = merged(old, [row | about for row in found['rows']])
  folder.mkdir(parents=True, exist_ok=True)
  report.write_json(path, dict(rows=rows))
  report.write_text(readme, with_table(readme.read_text(), rows))


def with_table(text: str, rows: list[dict]) -> str:
  """The text with the table between its two marks.

  Raises:
    ValueError: there are no marks, or more than one pair.
  """
  if text.count(_BEGIN) != 1 or text.count(_END) != 1 or (
      text.index(_BEGIN) > text.index(_END)):
    raise ValueError(f'Expected {_BEGIN} once, and {_END} once after it. Put '
                     'them where the table shall stand.')
  before, _, rest = text.partition(_BEGIN)
  return f'{before}{_BEGIN}\n{table(rows)}{rest[rest.index(_END):]}'


def table(rows: list[dict]) -> str:
  """Markdown."""
  lines = ['| row | rljax | peers | ratio | of the limit | peak MB |',
           '|---|---|---|---|---|---|']
  for row in rows:
    missing = [f'{who} not measured' for who in row.get('missing_peers', [])]
    share = row['share_of_limit']
    lines.append('| ' + ' | '.join([
        f'`{row["row"]}`: {row["metric"]}', _number(row['rljax']),
        ', '.join([*_listed(row['peers']), *missing]),
        _number(row['ratio_to_best_peer']),
        '' if share is None else f'{share:.0%}',
        ', '.join(_listed(row.get('peak_mb', {})))]) + ' |')
  return '\n'.join(lines) + '\n'


def _listed(values: dict) -> list[str]:
  return [f'{name} {_number(x)}' for name, x in values.items()]


def _number(x: float | None) -> str:
  """Three digits, or all of those before the point."""
  if x is None:
    return ''
  return f'{x:,.0f}' if abs(x) >= 100 else f'{x:.3g}'
