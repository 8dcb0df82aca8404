"""A reward model or a judge on benchmarks, from local files, with intervals.

  python -m experiments.evaluate_rewards \\
      --config=configs/evaluation/rewards_mini.py --workdir=runs/rewards \\
      --config.benchmarks.rm_bench=data/rm_bench/total_dataset.json \\
      --config.asked.path=<answers.jsonl>

Writes `results.json`, `report.md` and plots; `answers.jsonl` keeps what was
asked, and the same command goes on from there. `config.asked.name` says who is
asked: `recorded` reads answers from a file, `trained` asks a run of
`experiments.train_reward_model`, a scorer or a judge, and `server` has a
language model judge pairs in both orders; `config.ranking` says which pairs of
more than two responses. The unit that is resampled is the item.
"""
from __future__ import annotations

import dataclasses
import pathlib
import time

from experiments.evaluation import evaluate_rewards_answers as answers_lib
from experiments.evaluation import evaluate_rewards_measures as measures
from experiments.evaluation import evaluate_rewards_models as asked_lib
from experiments.evaluation import evaluate_rewards_recorded as recorded
from experiments.evaluation import measurement
from experiments.job import launch
from rljax.data import reward_benchmarks as files
from rljax.evaluation import plots
from rljax.evaluation import report
from rljax.evaluation import reward_benchmarks as rules

NAMES = ('recorded', 'trained', 'server')


def run(config, workdir: str,
        model: answers_lib.Model | None = None) -> dict:
  """Asks the model, measures, and writes the report.

  Args:
    config: as `configs/evaluation/rewards_mini.py`.
    workdir: of journal, results, report and plots.
    model: who is asked, instead of whom `config.asked` names.

  Returns:
    benchmark -> what was measured, as plain dicts.

  Raises:
    ValueError: no benchmark, a bad line, or answers that are missing.
  """
  check(config, model)
  folder = pathlib.Path(workdir).expanduser().resolve()
  items = {name: files.read(name, path)
           for name, path in config.benchmarks.items() if path}
  for name, some in items.items():
    rehearse(name, some, config.seed, config.ranking)
  options = dict(num_votes=config.num_votes, seed=config.seed,
                 ranking=config.ranking)
  if model is None and config.asked.name == 'server':
    model = asked_lib.server(config, folder / 'verdicts.jsonl')
  if model is None and config.asked.name == 'trained':
    model = asked_lib.trained(config)
  results, seconds = {}, {}
  for name, some in items.items():
    begin = time.perf_counter()
    answers = recorded.read(
        config.asked.path, name, some, **options) if model is None else (
            answers_lib.ask(model, name, some, folder / answers_lib.FILE,
                            chunk=config.chunk, **options))
    other = recorded.read(
        config.against, name, some, **options) if config.against else None
    results[name] = report.plain(measure(config, name, some, answers, other))
    seconds[name] = time.perf_counter() - begin
  folder.mkdir(parents=True, exist_ok=True)
  report.write_json(folder / 'results.json', results)
  report.write_report(
      folder, title='evaluate_rewards', command=report.command_line(),
      seed=config.seed, seconds=seconds, compilations={},
      sections=sections(results), plots=draw(results, folder / 'plots'))
  for name, found in results.items():
    launch.say(f'   {name}: {line(found)}')
  return results


def check(config, model=None):
  """Refuses, before anything is asked, what cannot be done."""
  options = config.asked
  if not any(config.benchmarks.values()):
    raise ValueError(
        'Expected the file of a benchmark, got none. Add for instance '
        '--config.benchmarks.judge_bench=<file>.')
  if model is None and options.name not in NAMES:
    raise ValueError(f'Expected asked.name among {NAMES}, got '
                     f'{options.name!r}. Correct it.')
  if model is None and options.name != 'server' and not options.path:
    raise ValueError(f'Expected asked.path with asked.name={options.name!r}, '
                     'got nothing. Name a file of answers, or the folder of a '
                     'run.')
  if model is None and options.name == 'server' and not (
      options.base_url and options.model):
    raise ValueError(
        "Expected asked.base_url and asked.model with asked.name='server', got "
        f'{options.base_url!r} and {options.model!r}. Give both.')
  if config.benchmarks.vl_reward_bench and (
      model is not None or options.name != 'recorded'):
    who = repr(options.name) if model is None else f'the model {model.name!r}'
    raise ValueError(
        "Expected asked.name='recorded' with vl_reward_bench, whose images "
        f'nobody can be shown here yet, got {who}. Record the answers of a '
        'model elsewhere, or leave the benchmark out.')
  if config.num_votes < 1 or config.chunk < 1:
    raise ValueError('Expected num_votes >= 1 and chunk >= 1, got '
                     f'{config.num_votes} and {config.chunk}.')


def rehearse(name: str, items, seed: int, ranking: str):
  """Applies the rules to made-up answers: what they refuse, they refuse now."""
  measures.check_ranking(name, items, ranking)
  if name == 'best_of_n':
    measures.check_sizes(items)
    return
  made_up = lambda item: answers_lib.Answer(
      scores=tuple(range(len(item.responses), 0, -1)))
  measures.tallies(name, items, list(map(made_up, items)), seed=seed,
                   ranking=ranking)


def measure(config, name: str, items, answers, other) -> dict:
  """Everything that is said of a benchmark."""
  seed, ranking = config.seed, config.ranking
  if name == 'best_of_n':
    curve = measures.best_of_n(items, answers, seed=seed,
                               ranking=ranking)
    return dict(counts=measures.counts(items, answers),
                curve=dataclasses.asdict(curve))
  tallies = measures.tallies(name, items, answers, seed=seed,
                             ranking=ranking)
  found = dict(
      counts=measures.counts(items, answers),
      scores={rule: rules.summarize(tally, seed)
              for rule, tally in tallies.items()})
  if name in measures.PAIRS:
    found['calibration'] = measures.calibrations(
        answers, seed=seed, num_bins=config.num_bins)
    found['bias'] = measures.biases(items, answers, seed=seed)
  if other is not None:
    theirs = measures.tallies(name, items, other, seed=seed,
                              ranking=ranking)
    # Ours minus theirs; rules that only one kind of model has are left out.
    found['against'] = {
        rule: rules.difference(theirs[rule], tally, seed)
        for rule, tally in tallies.items() if rule in theirs}
  return found


def sections(results: dict) -> dict[str, list[dict]]:
  """The tables of the report; `results.json` holds the rest."""
  tables = {}
  for name, found in results.items():
    tables[f'{name}: counts'] = [found['counts']]
    if 'curve' in found:
      curve = found['curve']
      tables[f'{name}: best of n'] = [
          {key: curve[key] for key in ('num_prompts', 'num_samples', 'ties',
                                       'best_n', 'lost')}]
      tables[f'{name}: over n'] = [
          point for point in curve['points']
          if point['n'] & (point['n'] - 1) == 0]
      continue
    tables[f'{name}: scores'] = [
        dict(rule=rule, average=average, score=score)
        for rule, scores in found['scores'].items()
        for average, score in scores.items()]
    if 'against' in found:
      tables[f'{name}: against the other model'] = [
          dict(rule=rule, average=average, difference=value and value[
              'interval'], p_value=value and value['p_value'])
          for rule, values in found['against'].items()
          for average, value in values.items()]
    if found.get('calibration'):
      tables[f'{name}: calibration'] = [
          {'of': when} | {key: value for key, value in found['calibration'][
              when].items() if key != 'bins'} for when in ('before', 'after')]
    if 'bias' in found:
      tables |= _bias_tables(name, found['bias'])
  return tables


def _bias_tables(name: str, bias: dict) -> dict[str, list[dict]]:
  length = {key: value for key, value in bias['length'].items()
            if key != 'by_difference'}
  tables = {f'{name}: length': [length],
            f'{name}: accuracy by right minus wrong length': bias['length'][
                'by_difference'],
            f'{name}: policies': bias['policies']}
  if bias['position']:
    tables[f'{name}: position'] = [bias['position']]
  return {title: rows for title, rows in tables.items() if rows}


def draw(results: dict, folder: pathlib.Path) -> list[pathlib.Path]:
  """Reliability of each benchmark of pairs, and best of n."""
  made = []
  for name, found in results.items():
    if found.get('calibration'):
      made.append(plots.reliability(
          {f'T = {part["temperature"]:.3g}': part['bins']
           for when in ('before', 'after')
           for part in [found['calibration'][when]]},
          folder, name=f'reliability_{name}'))
    if 'curve' in found:
      made.append(plots.over_optimisation(found['curve']['points'], folder))
  return made


def line(found: dict) -> str:
  """What a user reads of a benchmark."""
  if 'curve' in found:
    curve = found['curve']
    return (f'most gold at n = {curve["best_n"]} of {curve["num_samples"]}, '
            f'beyond it {measurement.text(curve["lost"]["interval"])}'
            if curve['lost'] else 'too few prompts for halves')
  rule, scores = next(iter(found['scores'].items()))
  said = ', '.join(f'{average} {measurement.text(score)}'
                   for average, score in scores.items() if score)
  counts = found['counts']
  return (f'{rule}: {said}; {counts["ties"]} ties and {counts["unparsed"]} '
          f'missing verdicts')


if __name__ == '__main__':
  launch.main(run)
