import contextlib
import io
import types
from unittest import mock

from absl.testing import absltest

from experiments.job import prompt_records
from rljax.data import tokenizer as tokenizers
from tests.end_to_end import smoke
from tests.experiments import graded as graded_lib


class OpenRecordsTest(absltest.TestCase):

  def test_dropped_prompts_are_counted_aloud(self):
    rows = [graded_lib.record(i) | dict(
        prompt='x' * (200 if i == 1 else 5), answer='1', family='f',
        difficulty=0, verifier='math', solution='', metadata='{}')
        for i in range(3)]
    config = smoke.get_config('sft')
    config.data.too_long = 'drop'
    job = types.SimpleNamespace(tokenizer=tokenizers.load('byte'))
    printed = io.StringIO()
    with (mock.patch.object(
        prompt_records.sources, 'open_source', lambda **options:
        prompt_records.sources.from_records('three', rows)),
        contextlib.redirect_stdout(printed)):
      found = prompt_records.open_records(config, job, 'train')
    self.assertEqual([record['id'] for record in found], ['r0', 'r2'])
    self.assertIn('dropped  1 prompts longer than 112', printed.getvalue())


if __name__ == '__main__':
  absltest.main()
