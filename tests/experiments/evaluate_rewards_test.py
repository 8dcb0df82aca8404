"""All benchmarks in one command, with scores, verdicts and probabilities."""
import json
import pathlib
import string
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
import pytest

from configs.evaluation import rewards_mini
from experiments import evaluate_rewards
from experiments import train_reward_model
from experiments.evaluation import evaluate_rewards_answers as answers_lib
from experiments.evaluation import evaluate_rewards_measures as measures
from experiments.evaluation import evaluate_rewards_models as asked_lib
from rljax import prompts
from rljax.agents import language_model
from rljax.data import reward_benchmarks as files
from rljax.evaluation import calibration
from tests import configs_test

_SUBSETS = ('alpacaeval-easy', 'llmbar-natural', 'donotanswer', 'math-prm')
_SOURCES = ('mmlu-pro-law', 'livebench-math', 'livecodebench')
_OF_TEXT = [name for name in files.READERS if name != 'vl_reward_bench']


def text(quality, length=3):
  """A response that says how good it is, in words of some length."""
  return f'quality {quality} ' + 'x' * length


def rows(name):
  """A small file of each published form; better responses say so."""
  if name == 'reward_bench':
    return [dict(id=i, prompt=f'P{i}', chosen=text(2, i), rejected=text(1, 4),
                 subset=_SUBSETS[i % 4], chosen_model='ab'[i % 2],
                 rejected_model='ba'[i % 2]) for i in range(12)]
  if name == 'reward_bench_2':
    plain = [dict(id=str(i), prompt=f'P{i}', chosen=[text(3)], subset='Math',
                  rejected=[text(1), text(2), text(0)]) for i in range(4)]
    ties = [dict(id=f'{kind}:{i}', prompt=f'T{i}', subset='Ties',
                 chosen=[text(3)] * (2 if kind == 'tied' else 1),
                 rejected=[text(1)]) for i in range(2)
            for kind in ('tied', 'ref')]
    return plain + ties
  if name == 'judge_bench':
    return [dict(pair_id=f'j{i}', source=_SOURCES[i % 3], question=f'P{i}',
                 response_A=text(1 + i % 2), response_B=text(2 - i % 2),
                 label='A>B' if i % 2 else 'B>A') for i in range(12)]
  if name == 'rm_bench':
    return [dict(id=f'r{i}', prompt=f'P{i}', domain=('chat', 'code')[i % 2],
                 chosen=[text(2), text(3), text(4)],
                 rejected=[text(0), text(1), text(2)]) for i in range(4)]
  if name == 'vl_reward_bench':
    return [dict(id=f'v{i}', query=f'P{i}', response=[text(1), text(2)],
                 human_ranking=[1, 0], image_path=f'images/povid/{i}.jpg')
            for i in range(4)]
  return [dict(id=f'b{i}', prompt=f'P{i}', gold=[0.0, 1.0, 3.0, -2.0],
               responses=[text(q) for q in (1, 2, 3, 4)]) for i in range(6)]


def quality(response):
  return float(response.split()[1])


def scalar(name='scalar'):
  """Scores a response by what it says of itself."""
  calls = []
  def scorer(texts):
    calls.append(len(texts))
    return np.array([quality(response) for _, response in texts])
  return answers_lib.Model(name, scorer=scorer), calls


def judge(preference, name='judge'):
  """A judge of (better of the first, better of the second, call)."""
  return answers_lib.Model(name, judge=lambda pairs, calls: np.array([
      preference(quality(pair.first), quality(pair.second), call)
      for pair, call in zip(pairs, calls, strict=True)]))


class EvaluateRewardsTest(parameterized.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path):
    self.folder = tmp_path

  def config(self, *names, **changes):
    config = rewards_mini.get_config()
    for name in names:
      path = self.folder / f'{name}.jsonl'
      path.write_text(''.join(json.dumps(row) + '\n' for row in rows(name)))
      config.benchmarks[name] = str(path)
    config.update(changes)
    return config.lock()

  def run_it(self, model, *names, workdir='run', **changes):
    return evaluate_rewards.run(self.config(*names, **changes),
                                str(self.folder / workdir), model)

  def recorded(self, model, *names):
    """What is measured of answers that somebody else has asked for."""
    config, path = self.config(*names), self.folder / f'{model.name}.jsonl'
    for name in names:
      answers_lib.ask(
          model, name, files.read(name, config.benchmarks[name]), path,
          num_votes=config.num_votes, seed=0, chunk=9, ranking=config.ranking)
    return self.run_it(None, *names, asked=dict(path=str(path)))

  def test_a_scalar_model_on_all_benchmarks(self):
    model, _ = scalar()
    found = self.run_it(model, *_OF_TEXT)
    of = lambda name, rule, average: found[name]['scores'][rule][average][
        'estimate']
    self.assertEqual(of('reward_bench', 'official', 'overall'), 1.0)
    self.assertEqual(of('judge_bench', 'official', 'macro'), 1.0)
    # Right 2, 3, 4 against wrong 0, 1, 2: all but the tie of 2 and 2, which is
    # in the upper corner: hard is 2 of 3, overall 8 of 9.
    self.assertAlmostEqual(of('rm_bench', 'hard', 'macro'), 2 / 3)
    self.assertAlmostEqual(of('rm_bench', 'official', 'macro'), 8 / 9)
    self.assertAlmostEqual(of('rm_bench', 'ties half', 'macro'), 8.5 / 9)
    # Ties: two equal right scores, spread 0: 1.01; Math: 1.
    self.assertAlmostEqual(of('reward_bench_2', 'official', 'macro'), 1.005)
    # The proxy prefers 1 < 2 < 3 < 4, whose gold is 0, 1, 3, -2.
    curve = found['best_of_n']['curve']
    gold = [point['gold']['estimate'] for point in curve['points']]
    # Of two: -2 in 3 of 6 pairs, 3 in 2, 1 in 1: (−6 + 6 + 1) / 6.
    np.testing.assert_allclose(gold, [0.5, 1 / 6, (-2 * 3 + 3) / 4, -2])
    self.assertEqual(curve['best_n'], 1)
    self.assertLess(curve['lost']['interval']['high'], 0)
    for name in ('results.json', 'report.md', 'report.json', 'answers.jsonl',
                 'plots/over_optimisation.png',
                 'plots/reliability_judge_bench.png'):
      self.assertTrue((self.folder / 'run' / name).exists(), name)

  def test_a_judge_that_always_takes_the_first(self):
    found = self.run_it(judge(lambda a, b, call: 1.0), 'judge_bench',
                        'reward_bench', 'rm_bench')
    scores = found['judge_bench']['scores']
    for rule in ('official', 'both orders right', 'swap average'):
      self.assertEqual(scores[rule]['micro']['estimate'], 0.0)
    position = found['judge_bench']['bias']['position']
    self.assertEqual(position['first_wins']['estimate'], 1.0)
    self.assertEqual(position['first_both'], 1.0)
    self.assertIsNone(found['judge_bench']['calibration'])
    half = found['rm_bench']['scores']['ties half']['macro']['estimate']
    self.assertEqual(half, 0.5)
    # One order, drawn: neither all nor nothing.
    official = found['reward_bench']['scores']['official']['overall']
    self.assertBetween(official['estimate'], 0.01, 0.99)

  def test_a_judge_of_probabilities(self):
    # 0.9 for the better one, plus what it likes of the first place.
    found = self.run_it(judge(lambda a, b, call: 0.85 if a > b else 0.25),
                        'judge_bench', 'reward_bench_2', 'best_of_n',
                        ranking='anchor')
    self.assertEqual(
        found['judge_bench']['scores']['swap average']['micro']['estimate'],
        1.0)
    after = found['judge_bench']['calibration']['after']
    self.assertEqual(after['accuracy'], 1.0)
    self.assertEqual(
        found['reward_bench_2']['scores']['official']['Math']['estimate'], 1.0)
    # Against the anchor all better ones look alike: equal scores share.
    self.assertGreater(found['best_of_n']['curve']['ties'], 0.5)

  def test_missing_verdicts_are_counted_both_ways(self):
    found = self.recorded(judge(
        lambda a, b, call: np.nan if call == 4 else float(a > b)),
                          'vl_reward_bench')['vl_reward_bench']
    self.assertEqual(found['counts']['unparsed'], 4)
    self.assertIsNone(found['scores']['official, k=5']['micro'])  # all left out
    self.assertEqual(found['scores']['strict, k=5']['micro']['estimate'], 1.0)
    self.assertEqual(found['scores']['official, k=3']['micro']['estimate'],
                     1.0)
    silent = self.run_it(judge(lambda a, b, call: np.nan, 'silent'),
                         'reward_bench', workdir='silent')['reward_bench']
    self.assertEqual(silent['scores']['official']['overall']['estimate'], 0.5)
    self.assertEqual(
        silent['scores']['undecided wrong']['overall']['estimate'], 0.0)

  def by_words(self, **asked):
    """What a language model says of judge_bench, and how often it was asked."""
    calls = []

    def model(requests, *, on_reply=None):
      for i, request in enumerate(requests):
        calls.append(request)
        content = request.messages[0]['content']
        first, second = (float(part.split()[0])
                         for part in content.split('quality ')[1:3])
        on_reply(i, language_model.Reply((language_model.Response(
            r'\boxed{%s}' % ('A' if first > second else 'B'), 'stop'),), 1, 1))

    config = self.config('judge_bench', asked=dict(
        base_url='http://host/v1', model='m') | asked)
    made = asked_lib.from_language_model(
        config, model, self.folder / 'verdicts.jsonl')
    found = evaluate_rewards.run(config, str(self.folder / 'run'), made)
    return found['judge_bench'], len(calls)

  def test_a_language_model_judges_through_its_words(self):
    found, calls = self.by_words()
    self.assertEqual(found['scores']['official']['macro']['estimate'], 1.0)
    self.assertEqual(calls, 24)
    self.assertLen((self.folder / 'verdicts.jsonl').read_text().splitlines(),
                   24)

  def test_a_judge_that_is_asked_in_another_way_is_another_judge(self):
    self.by_words()
    with self.subTest('a key is no other way'):
      self.assertEqual(self.by_words(api_key_env='KEY')[1], 0)
    for change in (dict(model='n'), dict(temperature=0.5), dict(max_tokens=9),
                   dict(num_retries=0), dict(base_url='http://other/v1')):
      with self.subTest(str(change)):
        self.assertEqual(self.by_words(**change)[1], 24)
        self.assertEqual(self.by_words(**change)[1], 0)
    with self.subTest('another prompt'):
      prompt = string.Template('Which? $mark $prompt $first $second')
      with mock.patch.object(prompts, 'load', return_value=prompt):
        self.assertEqual(self.by_words()[1], 24)
    lines = (self.folder / 'run' / 'answers.jsonl').read_text().splitlines()
    names = list(dict.fromkeys(json.loads(line)['model'] for line in lines))
    self.assertLen(names, 7)
    self.assertRegex(names[0], '^m at http://host/v1, temperature=0.0, '
                     'max_tokens=2048, num_retries=2, prompt [0-9a-f]{8}$')

  def test_a_pair_judge_of_logits(self):
    # GRAM's form: z_A - z_B = 2 (first - second) + 1 for the place.
    made = asked_lib.from_pair_judge(lambda pairs: np.array([
        [2 * (quality(p.first) - quality(p.second)) + 1, 0] for p in pairs]),
                                          'gram')
    found = self.run_it(made, 'judge_bench')['judge_bench']
    self.assertEqual(found['scores']['swap average']['micro']['estimate'], 1.0)
    first = found['bias']['position']['first_wins']['estimate']
    self.assertEqual(first, 0.5)  # 3 and -1: the place never decides

  def test_what_was_asked_is_not_asked_again(self):
    model, calls = scalar()
    first = self.run_it(model, 'rm_bench', chunk=3)
    self.assertEqual(calls, [18, 6])  # 4 items of six responses, three at once
    again = self.run_it(model, 'rm_bench', chunk=3)
    self.assertEqual(first, again)
    self.assertLen(calls, 2)
    other, others = scalar('another')
    self.run_it(other, 'rm_bench', chunk=3)
    self.assertLen(others, 2)

  def test_a_run_that_broke_goes_on(self):
    model, calls = scalar()
    def breaks(texts):
      if calls:
        raise RuntimeError('the device is gone')
      return model.scorer(texts)

    with self.assertRaisesRegex(RuntimeError, 'gone'):
      self.run_it(answers_lib.Model('scalar', scorer=breaks), 'judge_bench',
                  chunk=5)
    with (self.folder / 'run' / 'answers.jsonl').open('a') as file:
      file.write('{"benchmark": "judge')
    found = self.run_it(model, 'judge_bench', chunk=5)
    self.assertEqual(calls, [10, 10, 4])
    self.assertEqual(found['judge_bench']['counts']['items'], 12)

  def test_recorded_answers_are_those_of_the_run(self):
    made = judge(lambda a, b, call: 0.5 + 0.4 * np.sign(a - b))
    asked = self.run_it(made, 'judge_bench', 'rm_bench')
    self.assertEqual(self.run_it(
        None, 'judge_bench', 'rm_bench', workdir='again', asked=dict(
            path=str(self.folder / 'run' / 'answers.jsonl'))), asked)

  def test_nobody_is_asked_about_an_image_without_being_shown_it(self):
    model, calls = scalar()
    with self.assertRaisesRegex(
        ValueError, "vl_reward_bench.*'scalar'.*Record"):
      self.run_it(model, 'vl_reward_bench')
    self.assertEmpty(calls)
    for name in ('trained', 'server'):
      config = self.config('vl_reward_bench', asked=dict(
          name=name, path='run', base_url='http://localhost:1/v1', model='m'))
      with self.assertRaisesRegex(
          ValueError, f"asked.name='recorded'.*got '{name}'.*Record"):
        evaluate_rewards.check(config)
    with self.subTest('recorded answers are measured'):
      found = self.recorded(model, 'vl_reward_bench')['vl_reward_bench']
      self.assertEqual(
          found['scores']['official, k=1']['micro']['estimate'], 1.0)

  def test_two_models_on_the_same_items(self):
    good, _ = scalar()
    bad = answers_lib.Model('bad', scorer=lambda texts: np.array(
        [-quality(response) for _, response in texts]))
    self.run_it(bad, 'judge_bench', workdir='bad')
    found = self.run_it(good, 'judge_bench', against=str(
        self.folder / 'bad' / 'answers.jsonl'))['judge_bench']['against']
    micro = found['official']['micro']
    self.assertEqual(micro['interval']['estimate'], 1.0)
    self.assertLess(micro['p_value'], 0.01)

  def test_two_models_in_one_file_are_refused_as_either(self):
    self.run_it(scalar('one')[0], 'judge_bench')
    self.run_it(scalar('two')[0], 'judge_bench')
    path = str(self.folder / 'run' / 'answers.jsonl')
    for model, named in ((None, dict(asked=dict(path=path))),
                         (scalar()[0], dict(against=path))):
      with self.assertRaisesRegex(ValueError, "'one' from line 1, 'two' from"):
        self.run_it(model, 'judge_bench', workdir='again', **named)

  def test_texts_that_are_too_long_have_no_score(self):
    # Of each pair the longer one, twice; kept as null, and read back.
    model = answers_lib.Model('short', scorer=lambda texts: np.array([
        np.nan if len(response) > 14 else quality(response)
        for _, response in texts]))
    found = self.run_it(model, 'reward_bench', 'reward_bench_2')
    # Chosen responses have i x behind 10 letters: 7 of 12 are too long.
    self.assertEqual(found['reward_bench']['counts']['unparsed'], 7)
    self.assertEqual(
        found['reward_bench']['calibration']['left_out'], 7)
    self.assertEqual(self.run_it(model, 'reward_bench', 'reward_bench_2'),
                     found)
    self.assertIn('null', (self.folder / 'run' / 'answers.jsonl').read_text())
    with self.assertRaisesRegex(ValueError, 'no order'):
      self.run_it(answers_lib.Model('silent', scorer=lambda texts: np.full(
          len(texts), np.nan)), 'best_of_n')

  def test_ties_among_the_pairs_to_fit_on_leave_calibration_out(self):
    # The other half is right, and would be measured.
    better = np.where(calibration.split(20, 0), 0.5, 0.8)
    scored = [answers_lib.Answer(scores=(p, 0.5)) for p in better]
    judged = [answers_lib.Answer(votes=((0, 1, 0, p), (1, 0, 0, 1 - p)))
              for p in better]
    for answers in (scored, judged):
      found = [measures.calibrations(answers, seed=seed, num_bins=10)
               for seed in (0, 1)]
      self.assertIsNone(found[0])
      self.assertEqual(found[1]['after'].num_pairs, 10)

  def test_infinite_scores_are_refused(self):
    bad = answers_lib.Model('bad', scorer=lambda texts: np.full(
        len(texts), np.inf))
    with self.assertRaisesRegex(ValueError, 'with 24 infinite'):
      self.run_it(bad, 'judge_bench')

  @parameterized.parameters(
      (dict(benchmarks={}), 'file of a benchmark'),
      (dict(asked=dict(name='gpt')), "got 'gpt'"),
      (dict(asked=dict(name='recorded')), 'asked.path'),
      (dict(asked=dict(name='trained')), 'folder of a run'),
      (dict(asked=dict(name='server')), 'asked.base_url'))
  def test_what_cannot_be_asked_is_refused_at_once(self, changes, message):
    config = rewards_mini.get_config()
    config.benchmarks.judge_bench = 'file.jsonl'
    if 'benchmarks' in changes:
      config.benchmarks.judge_bench = ''
    config.update({key: value for key, value in changes.items() if value})
    with self.assertRaisesRegex(ValueError, message):
      evaluate_rewards.check(config)

  def test_rules_refuse_before_anything_is_asked(self):
    model, calls = scalar()
    config = self.config('best_of_n', 'reward_bench_2')
    path = pathlib.Path(config.benchmarks.reward_bench_2)
    path.write_text(''.join(path.read_text().splitlines(keepends=True)[:-1]))
    with self.assertRaisesRegex(ValueError, r"\['ref:1'\] alone"):
      evaluate_rewards.run(config, str(self.folder / 'run'), model)
    self.assertEmpty(calls)


class TrainedTest(parameterized.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path):
    self.folder = tmp_path

  @parameterized.parameters('bradley_terry_tiny', 'gram_tiny')
  def test_a_model_of_ours_is_asked(self, name):
    # Texts of a length for its rows; what it says after two steps is nothing.
    run = str(self.folder / 'model')
    train_reward_model.run(
        configs_test.module(f'configs/reward/{name}.py').get_config('smoke'),
        run)
    config = rewards_mini.get_config('trained')
    config.asked.path = run
    path = self.folder / 'judge_bench.jsonl'
    path.write_text(''.join(json.dumps(row | dict(
        question='Q', response_A='ab', response_B='bb')) + '\n'
                            for row in rows('judge_bench')[:4]))
    config.benchmarks.judge_bench = str(path)
    found = evaluate_rewards.run(config, str(self.folder / 'run'))
    self.assertEqual(found['judge_bench']['counts']['items'], 4)
    self.assertEqual(found['judge_bench']['counts']['unparsed'], 0)
    written = json.loads((self.folder / 'run' / 'answers.jsonl').read_text(
        ).splitlines()[0])
    self.assertIn('scores' if 'bradley' in name else 'votes', written)


def judge_of_places():
  return answers_lib.Model(
      'places', judge=lambda pairs, calls: np.ones(len(pairs)))


class RankingTest(parameterized.TestCase):

  @pytest.fixture(autouse=True)
  def share(self, tmp_path):
    self.folder = tmp_path

  def run_it(self, model, ranking, name='reward_bench_2', workdir='run',
             **asked):
    """Without ties, where every response needs a score of its own."""
    path = self.folder / f'{name}.jsonl'
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows(name)
                            if row.get('subset') != 'Ties'))
    config = rewards_mini.get_config()
    config.benchmarks[name] = str(path)
    config.ranking = ranking
    config.asked.update(asked)
    return evaluate_rewards.run(
        config.lock(), str(self.folder / workdir), model)[name]

  def right(self, found):
    return found['scores']['official']['Math']['estimate']

  @parameterized.parameters(('round_robin', 12), ('anchor', 6), ('knockout', 6))
  def test_the_best_of_four_by_each(self, ranking, calls):
    # Both orders of each comparison, on four items.
    found = self.run_it(judge(lambda a, b, call: float(a > b)), ranking)
    self.assertEqual(self.right(found), 1.0)
    self.assertEqual(found['counts']['judge_calls'], 4 * calls)
    lines = (self.folder / 'run' / 'answers.jsonl').read_text().splitlines()
    self.assertEqual(sum(len(json.loads(line)['votes']) for line in lines),
                     4 * calls)
    self.assertIn('judge_calls',
                  (self.folder / 'run' / 'report.md').read_text())
    with self.subTest('read back as recorded'):
      self.assertEqual(self.run_it(
          None, ranking, workdir='again',
          path=str(self.folder / 'run' / 'answers.jsonl')), found)

  @parameterized.parameters('round_robin', 'anchor', 'knockout')
  def test_a_favour_for_a_place_is_averaged_away(self, ranking):
    # Of a probability, 0.4 more for whoever is shown first.
    biased = lambda a, b, call: 0.7 + 0.05 * np.clip(a - b, -3, 3)
    self.assertEqual(self.right(self.run_it(judge(biased), ranking)), 1.0)
    # Negative control: by one order, the right response loses in every pair
    # that it is shown second in.
    self.assertLess(1 - biased(0, 3, 0), 0.5)

  @parameterized.parameters('round_robin', 'anchor', 'knockout')
  def test_a_judge_of_places_alone_is_right_by_chance(self, ranking):
    # Right responses are listed first, and a knockout keeps the first of
    # equals: in the order of the list it would always find the right one.
    items = [files.Item(f'{i}', 'P', ('a', 'b', 'c', 'd'), 1, 'g')
             for i in range(400)]
    answers = answers_lib.ask(
        judge_of_places(), 'reward_bench_2', items, self.folder / 'a.jsonl',
        num_votes=1, seed=0, chunk=400, ranking=ranking)
    found = measures.tallies(
        'reward_bench_2', items, answers, seed=0, ranking=ranking)['official']
    self.assertAlmostEqual(np.mean(found.credit_I), 0.25, delta=0.07)

  def test_a_knockout_says_nothing_of_the_others(self):
    calls = []
    asked = answers_lib.Model('none', judge=lambda *_: calls.append(1))
    with self.assertRaisesRegex(ValueError, 'best_of_n, which need a score'):
      self.run_it(asked, 'knockout', 'best_of_n')
    config = rewards_mini.get_config()
    path = self.folder / 'ties.jsonl'
    path.write_text(''.join(json.dumps(row) + '\n'
                            for row in rows('reward_bench_2')))
    config.benchmarks.reward_bench_2, config.ranking = str(path), 'knockout'
    with self.assertRaisesRegex(ValueError, 'ties of reward_bench_2'):
      evaluate_rewards.run(config, str(self.folder / 'ties'), asked)
    with self.assertRaisesRegex(ValueError, "got 'swiss'"):
      self.run_it(asked, 'swiss')
    self.assertEmpty(calls)

  def test_votes_of_another_ranking_are_refused(self):
    self.run_it(judge(lambda a, b, call: float(a > b)), 'anchor')
    recorded = dict(path=str(self.folder / 'run' / 'answers.jsonl'))
    with self.assertRaisesRegex(ValueError, r"\(1, 2\).*line 1, as ranking="
                                "'round_robin' compares"):
      self.run_it(None, 'round_robin', workdir='other', **recorded)

  def test_equal_responses_are_not_mixed_up(self):
    item = files.Item('i', 'P', ('a', 'a', 'b'), 1, 'g')
    model = answers_lib.Model('m', judge=lambda pairs, calls: np.array(
        [0.8 if pair.first == 'b' else 0.3 for pair in pairs]))
    answer, = answers_lib.ask(
        model, 'best_of_n', [item], self.folder / 'a.jsonl', num_votes=1,
        seed=0, chunk=1, ranking='round_robin')
    self.assertLen({vote[:2] for vote in answer.votes}, 6)
    np.testing.assert_allclose(
        answers_lib.ranked(answer, item, 'round_robin', 0),
        # Twins: 0.3 and 0.7 on average a half; 'b': (0.8 + 0.7) / 2.
        [(0.5 + 0.25) / 2, (0.5 + 0.25) / 2, 0.75])

  def test_round_robin_by_hand(self):
    # 0 beats 1 with 0.8 and 2 with 0.6; 1 beats 2 with 1: means 0.7, 0.6, 0.2.
    wins = {(0, 1): 0.8, (0, 2): 0.6, (1, 2): 1.0}
    votes = [vote for (i, j), p in wins.items()
             for vote in ((i, j, 0, p), (j, i, 0, 1 - p))]
    answer = answers_lib.Answer(votes=tuple(votes))
    of = lambda count: files.Item('i', 'P', ('a', 'b', 'c')[:count], 1, 'g')
    np.testing.assert_allclose(
        answers_lib.ranked(answer, of(3), 'round_robin', 0), [0.7, 0.6, 0.2])
    with self.subTest('no verdict is a tie, as one that says so'):
      ties = [tuple(answers_lib.ranked(answers_lib.Answer(votes=tuple(
          (i, j, 0, p) for i in range(2) for j in range(2) if i != j)), of(2),
                                          'round_robin', 0))
              for p in (np.nan, 0.5)]
      self.assertEqual(ties, [(0.5, 0.5)] * 2)


if __name__ == '__main__':
  absltest.main()
