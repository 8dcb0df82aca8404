"""What is wrong ends with a message, and with the last good checkpoint intact.

Each message must say what was expected, what came and what to do; the patterns
below name all three.
"""
import functools
import json
import os
import pathlib
import shutil
import time
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from experiments import evaluate
from experiments import sft
from experiments import train_policy
from rljax.rewards import math
from rljax.rewards import verdict
from rljax.training import metrics
from tests.end_to_end import runs
from tests.end_to_end import smoke


def problems(count=16) -> list[dict]:
  return [dict(prompt=f'Say {i}.', answer=str(i), solution=f'\\boxed{{{i}}}')
          for i in range(count)]


def write(path: pathlib.Path, rows) -> pathlib.Path:
  """JSONL of rows; text stands for itself."""
  path.write_text(''.join(
      (row if isinstance(row, str) else json.dumps(row)) + '\n'
      for row in rows))
  return path


def make_config(stage: str, path: pathlib.Path):
  """A stage of the smoke pipeline that reads its problems from `path`."""
  config = smoke.get_config(stage)
  config.data.source = dict(name='jsonl', path=str(path), verifier='math',
                            data_dir=str(path.parent / 'data'))
  config.data.domains = None
  if stage == 'sft':
    config.data.fresh_solutions = False
    config.num_steps = 2
    config.checkpoint.every = 1
  return config


class BadInputTest(parameterized.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path, one_device):
    self.folder = tmp_path
    self.path = write(tmp_path / 'problems.jsonl', problems())

  def sft_fails(self, pattern, change=lambda config: None):
    config = make_config('sft', self.path)
    change(config)
    with self.assertRaisesRegex((ValueError, KeyError), pattern):
      sft.run(config, self.folder / 'run')
    self.assertFalse((self.folder / 'run' / 'checkpoints' / '1').exists())

  def rl_fails(self, pattern, change=lambda config: None):
    config = make_config('rl_math', self.path)
    change(config)
    with self.assertRaisesRegex(ValueError, pattern):
      train_policy.run(config, self.folder / 'run')

  def test_unknown_config_and_misspelt_override_on_the_command_line(self):
    start = functools.partial(
        runs.launch, 'sft', self.folder, f'--workdir={self.folder / "run"}')
    mistakes = {
        '--config=configs/pipeline/ring_light_mini.py:smoke':
            r"Expected a config file, got 'configs/pipeline/ring_light_mini.py'"
            r".*Did you mean 'configs/pipeline/ring_lite_mini.py'",
        f'--config={runs.CONFIG}:sft --config.optimizer.learning_rat=1':
            'Did you mean "learning_rate" instead of "learning_rat"',
    }
    processes = {text: start(*text.split()) for text in mistakes}
    for text, pattern in mistakes.items():
      with self.subTest(text):
        self.assertRegex(runs.finish(processes[text], code=1), pattern)
    self.assertFalse((self.folder / 'run').exists())

  @parameterized.parameters(
      ('model', dict(variant='tinny'), "variant 'tinny'.*tiny.*Did you mean"),
      ('model', dict(variant='tiny', num_layer=3), 'Did you mean.*num_layers'),
      ('model', dict(variant='tiny', vocab_size=99), 'vocab_size=2'),
      ('loss', dict(name='crossentropy'), 'crossentropy.*cross_entropy'),
      ('optimizer', dict(name='adamm', learning_rate=1.0), 'adamm.*adamw'),
      ('mesh', dict(data=3), 'Mesh .* does not divide 1 devices.*config.mesh'),
      ('tokenizer', 'no/such/folder', 'no/such/folder'))
  def test_unknown_names(self, section, value, pattern):
    self.sft_fails(pattern, lambda config: config.update({section: value}))

  def test_unknown_data_sets_and_domains(self):
    self.sft_fails("data set among .*'gsm8k'.*got 'gms8k'.*correct the name",
                   lambda c: c.data.source.update(name='gms8k'))
    self.sft_fails("domain among .*math.*got .*'maths'",
                   lambda c: c.data.update(domains=('maths',)))

  def test_a_prompt_longer_than_its_limit(self):
    rows = problems()
    rows[5]['prompt'] = 'Say ' + 'five, ' * 20
    write(self.path, rows)
    # 4 + 6 * 20 bytes, the begin token, two of the template and one to answer.
    self.sft_fails("at most 112 tokens, got 12[0-9] in record 'jsonl-000006'.*"
                   "too_long='drop'")
    self.sft_fails('Expected a record of at most 4 tokens.*got none.*raise',
                   lambda c: c.data.update(max_prompt_length=4,
                                           too_long='drop'))

  def test_an_empty_data_set(self):
    write(self.path, [])
    self.sft_fails('at least one record in .*problems.jsonl, got an empty')

  def test_fewer_problems_than_a_step_needs(self):
    write(self.path, problems(3))
    self.sft_fails('at least 8 records for one step.*got 3.*lower the batch')

  @parameterized.parameters(
      ('{"prompt": "Say',
       'problems.jsonl, line 3, got text that cannot be read.*repair'),
      ({'prompt': 'Say 2.'}, "field 'answer' in .*jsonl, line 3.*add it"),
      ({'prompt': 'Say 2.', 'answer': 2},
       "'answer' of .*jsonl, line 3.*got 2; write"),
      ({'prompt': 'Say 2.', 'anwser': '2', 'answer': '2'},
       "jsonl, line 3, got 'anwser'; correct its name"))
  def test_a_corrupt_line(self, line, pattern):
    rows = problems()
    rows[2] = line
    write(self.path, rows)
    self.sft_fails(pattern)

  def test_an_answer_that_is_wrong_as_its_own_gold(self):
    rows = problems()
    rows[4]['answer'] = rows[9]['answer'] = r'\frac{1}{'
    write(self.path, rows)
    self.rl_fails(r"2 of 16 in jsonl/.* \(first: 'jsonl-000005' \(.*jsonl, "
                  r"line 5\), 'jsonl-000010' \(.*jsonl, line 10\)\).*Correct "
                  'these answers or remove')

  def test_a_record_without_a_solution_to_learn_from(self):
    rows = problems()
    del rows[6]['solution']
    rows[6]['id'] = 'mine'
    write(self.path, rows)
    self.sft_fails(r"none in 1 of 16, first in 'mine' \(.*problems.jsonl, line "
                   r"7\); add the field 'solution'")

  @parameterized.parameters(
      (95, 'token_budget >= max_response_length.*got 95 < 96. Raise'),
      (1_537, r'token_budget <= .*16 \* 96, got 1537: .*Lower'))
  def test_a_budget_that_no_rollout_suits(self, budget, pattern):
    self.rl_fails(pattern, lambda c: c.packing.select.update(
        token_budget=budget))

  def test_rows_that_cannot_hold_a_step(self):
    self.rl_fails('row_length >= .*208, got 207.*Raise',
                  lambda c: c.packing.update(row_length=207))
    self.rl_fails('num_rows >= 1[0-9], .*got 4. Raise it',
                  lambda c: c.packing.update(num_rows=4))

  def test_evaluation_without_a_checkpoint(self):
    config = make_config('evaluation', self.path)
    config.evaluation.split = 'train'
    with self.assertRaisesRegex(ValueError, 'config.init.checkpoint.*Add'):
      evaluate.run(config, self.folder / 'run')
    config.init.checkpoint = str(self.folder / 'nowhere')
    with self.assertRaisesRegex(
        ValueError, 'Expected checkpoints in .*nowhere, found none. Train'):
      evaluate.run(config, self.folder / 'run')


class CheckpointTest(absltest.TestCase):
  """A run of two steps, and what may happen to it."""

  @pytest.fixture(autouse=True)
  def share(self, tmp_path, tmp_path_factory, one_device, compilation_cache):
    trained = tmp_path_factory.getbasetemp() / 'trained'
    path = trained / 'problems.jsonl'
    if not trained.exists():
      trained.mkdir()
      write(path, problems())
      sft.run(make_config('sft', path), trained / 'run')
    self.workdir = tmp_path / 'run'
    shutil.copytree(trained / 'run', self.workdir)
    self.config = make_config('sft', path)

  def steps(self):
    return sorted(p.name for p in (self.workdir / 'checkpoints').iterdir())

  def test_of_another_model(self):
    before = runs.checkpoint(self.workdir / 'checkpoints', 2)
    self.config.model = dict(variant='tiny', num_layers=3)
    with self.assertRaisesRegex(
        ValueError, r"(?s)other settings.*model.num_layers: there '-', now 3"
        '.*or another --workdir'):
      sft.run(self.config, self.workdir)
    self.config.init.checkpoint = str(self.workdir / 'checkpoints')
    with self.assertRaisesRegex(ValueError, 'num_layers: checkpoint 2'):
      sft.run(self.config, self.workdir.parent / 'other')
    self.assertEqual(self.steps(), ['1', '2'])
    runs.assert_same_bits(
        runs.checkpoint(self.workdir / 'checkpoints', 2), before)

  def test_half_written_by_a_process_that_was_killed(self):
    folder = self.workdir / 'checkpoints'
    want = runs.checkpoint(folder, 2)
    os.rename(folder / '2', folder / '2.orbax-checkpoint-tmp-1')
    shutil.rmtree(folder / '2.orbax-checkpoint-tmp-1' / 'params')
    sft.run(self.config, self.workdir)
    self.assertEqual(self.steps(), ['1', '2'])
    runs.assert_same_bits(runs.checkpoint(folder, 2), want)

  def test_damaged_after_it_was_written(self):
    folder = self.workdir / 'checkpoints'
    want = runs.checkpoint(folder, 2)
    file = max((folder / '2' / 'params').rglob('*'),
               key=lambda path: path.is_file() and path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])
    with self.assertRaisesRegex(
        ValueError, r'complete checkpoint in .*checkpoints/2, but .* bytes '
        r'instead of .* Step 1 .* is intact: delete'):
      sft.run(self.config, self.workdir)
    shutil.rmtree(folder / '2')  # as the message says
    sft.run(self.config, self.workdir)
    runs.assert_same_bits(runs.checkpoint(folder, 2), want)

  def test_a_loss_that_is_not_finite_stops_before_the_state_is_saved(self):
    before = runs.checkpoint(self.workdir / 'checkpoints', 2)
    self.config.num_steps = 4
    rate = self.config.optimizer.learning_rate
    self.config.optimizer.learning_rate = 1e38
    with self.assertRaisesRegex(
        ValueError, "Expected a finite '(loss|param_norm)', got (inf|nan) at "
        'step 2. The last good checkpoint is .*checkpoints/2; continue from '
        'there with a lower learning rate'):
      sft.run(self.config, self.workdir)
    self.assertEqual(self.steps(), ['1', '2'])
    runs.assert_same_bits(
        runs.checkpoint(self.workdir / 'checkpoints', 2), before)
    self.config.optimizer.learning_rate = rate
    sft.run(self.config, self.workdir)
    self.assertEqual(self.steps(), ['1', '2', '3', '4'])
    self.assertEqual(
        [line['step'] for line in runs.lines(self.workdir)], [0, 1, 2, 3])


class VerifierTest(absltest.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path, one_device, compilation_cache):
    self.folder = tmp_path

  def test_one_that_hangs_crashes_or_lies_costs_its_sample_and_is_counted(self):
    config = make_config('rl_math', write(
        self.folder / 'problems.jsonl', problems()))
    config.num_steps = 2
    config.reward.timeout = 1.0
    # The first five of the 16 samples of step 0; the others are wrong. One says
    # by its exit code that all is well, and one cannot be asked at all.
    calls = iter([functools.partial(time.sleep, 3_600),
                  functools.partial(os._exit, 3),
                  functools.partial(os._exit, 0),
                  functools.partial(divmod, 1, 0),
                  functools.partial(__import__, 'no_such_verifier')])

    def judge(*, record, text):
      del record, text
      call = next(calls, None)
      return verdict.Judgement(None if call else 'wrong', 'x', call)

    with mock.patch.object(math, 'judge', judge):
      train_policy.run(config, self.folder / 'run')
    first, second = metrics.read(self.folder / 'run' / metrics.FILE_NAME)
    found = {name: value for name, value in first.items()
             if name.startswith('verdict_')}
    self.assertEqual(found, dict(
        verdict_timeout=1, verdict_crashed=3, verdict_infra_error=1,
        verdict_wrong=11))
    self.assertEqual(second['verdict_wrong'], 16)
    self.assertEqual(first['ungradable'], 1)
    # An hour's sleep cost the limit and the start of other workers.
    self.assertLess(first['reward_seconds'], 60)
    report = json.loads((self.folder / 'run' / 'report.json').read_text())
    self.assertEqual(report['verdicts'],
                     dict(timeout=1, crashed=3, infra_error=1, wrong=27))


if __name__ == '__main__':
  absltest.main()
