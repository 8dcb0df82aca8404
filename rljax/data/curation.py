r"""Which problems are worth training on: Ring-lite's rules, one by one.

  clean          a question in one part, in readable text, whose answer cannot
                 be guessed
  duplicates     the same text, or nearly: MinHash finds candidates, their
                 shingles decide
  contamination  text in common with a benchmark that is to be measured
  answers        the verifier accepts the answer itself, and somebody finds it
  pass rates     neither solved always nor never
  annotation     domain, and difficulty = 1 - the student's pass rate

Every rule is a plain function that gives a reason to drop a problem, or None.
`curation_pipeline` runs them over files of any size.

A problem is an object with `id`, `prompt`, `answer` and optionally `domain`,
`options`, `solution`, `verifier`, `source`, and `attempts`: texts of several
models by name, graded here.

Reference: Ring-lite (arXiv 2506.14731) §2.3 names the rules; n-grams,
thresholds and patterns are ours. MinHash: Broder (1997); bands: Leskovec,
Rajaraman and Ullman, Mining of Massive Datasets, §3.4.
"""
from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib
import re
import unicodedata

FIELDS = ('answer', 'attempts', 'domain', 'hint_prompt', 'id', 'options',
          'prompt', 'solution', 'source', 'verifier')
_IMAGE = re.compile(r'!\[[^\]]*\]\(|<img\b|\\includegraphics|\[asy\]|'
                    r'\bthe (?:figure|diagram|picture|graph) (?:below|above)\b',
                    re.IGNORECASE)
_PART = re.compile(r'(?:^|\s)(?:\(([a-d]|i{1,3}|[1-4])\)|part ([a-d]))[\s:.)]',
                   re.IGNORECASE)
_OPTIONS = re.compile(r'(?:^|\s)\(?A[).:]\s.*(?:^|\s)\(?B[).:]\s', re.DOTALL)
_YES_NO = re.compile(r'\s*(?:\\text\{)?\s*(?:yes|no|true|false)\s*\}?\s*\.?\s*',
                     re.IGNORECASE)
_SEVERAL = re.compile(r'\bor\b|;|\\text\{ ?or ?\}', re.IGNORECASE)
_FEW_WORDS = 5
_VERIFIERS = ('choice', 'exact_match', 'gsm8k', 'math')
_WORD = re.compile(r'\w+|[^\w\s]')


@dataclasses.dataclass(frozen=True)
class Rules:
  """What can be chosen."""
  shingle: int = 5             # characters, for near duplicates
  similarity: float = 0.8      # Jaccard, from which two are nearly the same
  bands: int = 16              # of the signature; with `band_rows`, what is
  band_rows: int = 8           # compared at all
  ngram: int = 10              # words in common with a benchmark
  cosine: float = 0.9          # of embeddings, if there are any
  student: str = ''            # whose pass rate is the difficulty
  teacher: str = ''            # who must solve what the student never does
  most_repeats: int = 8        # of a phrase of four words

  def __post_init__(self):
    for name, low, high in (('similarity', 0, 1), ('cosine', -1, 1)):
      if not low < getattr(self, name) <= high:
        raise ValueError(f'Expected {low} < {name} <= {high}, got '
                         f'{getattr(self, name)}. Correct it.')
    for name in ('shingle', 'bands', 'band_rows', 'ngram', 'most_repeats'):
      if getattr(self, name) < 1:
        raise ValueError(f'Expected {name} >= 1, got {getattr(self, name)}. '
                         'Correct it.')
    if bool(self.student) != bool(self.teacher):
      raise ValueError(
          f'Expected both a student and a teacher, or neither, got '
          f'{self.student!r} and {self.teacher!r}. Name the other one too.')


def parse(row: object, where: str) -> dict:
  """A problem with an id of its own.

  Raises:
    ValueError: fields of other names or types.
  """
  if not isinstance(row, dict) or set(row) - set(FIELDS) or any(
      not isinstance(row.get(name, ''), str)
      for name in FIELDS if name not in ('attempts', 'options')):
    raise ValueError(
        f'Expected an object of texts with fields among {list(FIELDS)} in '
        f'{where}, got {str(row)[:200]}. Correct or remove the line.')
  attempts = row.get('attempts', {})
  if not isinstance(attempts, dict) or any(
      not isinstance(texts, list) or not all(isinstance(x, str) for x in texts)
      for texts in attempts.values()):
    raise ValueError(
        "Expected 'attempts' to be an object of lists of texts, by model, in "
        f'{where}, got {str(attempts)[:200]}. Correct the line.')
  text = row.get('prompt', '') + '\0' + row.get('answer', '')
  return {'id': hashlib.sha256(text.encode()).hexdigest()[:16]} | row


def unclean(problem: Mapping, rules: Rules) -> str | None:
  """Why a problem is no question with one answer that must be found."""
  prompt, answer = problem.get('prompt', ''), problem.get('answer', '')
  if not prompt.strip():
    return 'no question'
  if not answer.strip():
    return 'no answer'
  if any(_is_invalid(char) for char in prompt + answer):
    return 'invalid characters'
  if _IMAGE.search(prompt):
    return 'needs an image'
  if len({next(filter(None, found)).lower() for found in _PART.findall(
      prompt)}) > 1:
    return 'several parts'
  if problem.get('options') or _OPTIONS.search(prompt):
    return 'multiple choice'
  if _YES_NO.fullmatch(answer):
    return 'yes or no'
  if _SEVERAL.search(answer):
    return 'several answers'
  if _repeats(prompt) > rules.most_repeats:
    return 'repetition'
  if _is_cut(prompt):
    return 'truncated or broken LaTeX'
  return None


def normalized(text: str) -> str:
  """Lower case, compatible characters, single spaces: equal means the same."""
  text = unicodedata.normalize('NFKC', text).lower()
  return ' '.join(_WORD.findall(text))


def own_ids(pairs: Iterable[tuple[Mapping, str | None]]
            ) -> list[tuple[dict, str | None]]:
  """Of pairs (problem, reason to drop it) with one id, an id for each kept one.

  Files that number their lines use the same ids for other problems.
  """
  pairs = list(pairs)
  if sum(reason is None for _, reason in pairs) < 2:
    return pairs
  name = lambda p: hashlib.sha256(normalized(p['prompt']).encode()).hexdigest()
  return [(dict(p, id=f'{p["id"]}-{name(p)[:8]}') if reason is None else p,
           reason) for p, reason in pairs]


def shingles(text: str, size: int) -> frozenset[str]:
  """All runs of so many characters of the normalized text."""
  text = normalized(text)
  return frozenset(text[i:i + size]
                   for i in range(max(len(text) - size + 1, 1)))


def jaccard(a: frozenset, b: frozenset) -> float:
  """Share of what either has that both have."""
  return len(a & b) / max(len(a | b), 1)


def band_keys(text: str, rules: Rules) -> list[str]:
  """Two texts with a key in common may be nearly the same.

  At a similarity of s that happens with probability 1 - (1 - s^r)^b, for b
  bands of r rows.
  """
  from datasketch import minhash  # of the extra [curation]

  sketch = minhash.MinHash(num_perm=rules.bands * rules.band_rows, seed=1)
  sketch.update_batch([piece.encode()
                       for piece in sorted(shingles(text, rules.shingle))])
  rows = sketch.hashvalues.reshape(rules.bands, rules.band_rows)
  return [f'{i}:{hashlib.sha256(row.tobytes()).hexdigest()[:16]}'
          for i, row in enumerate(rows)]


def near_duplicates(problems: Iterable[Mapping], rules: Rules
                    ) -> list[tuple[str, str]]:
  """(id, id of an earlier one that is nearly the same), by order of ids.

  Of a chain of similar ones, each drops the next: what is left is apart.
  """
  ordered = sorted(problems, key=lambda problem: problem['id'])
  pieces = [shingles(problem['prompt'], rules.shingle) for problem in ordered]
  found = []
  for i, problem in enumerate(ordered):
    for j in range(i):
      if jaccard(pieces[i], pieces[j]) >= rules.similarity:
        found.append((problem['id'], ordered[j]['id']))
        break
  return found


def ngrams(text: str, size: int) -> set[str]:
  """Runs of words; the whole text where it is shorter."""
  words = normalized(text).split()
  return {' '.join(words[i:i + size])
          for i in range(max(len(words) - size + 1, 1))} - {''}


def benchmark_index(prompts: Mapping[str, Sequence[str]], rules: Rules
                    ) -> dict[str, str]:
  """n-gram -> the benchmark that has it."""
  return {piece: name for name, texts in prompts.items() for text in texts
          for piece in ngrams(text, rules.ngram)}


def contaminated(problem: Mapping, index: Mapping[str, str],
                 rules: Rules) -> str | None:
  """Which benchmark it has text in common with.

  A question of the benchmark that is shorter than an n-gram counts where it
  stands in the problem as a whole, one of few words where it is the problem.
  """
  words = normalized(problem['prompt']).split()
  name = index.get(' '.join(words))
  if name:
    return f'in benchmark {name}'
  for size in range(min(rules.ngram, len(words)), _FEW_WORDS, -1):
    for i in range(len(words) - size + 1):
      name = index.get(' '.join(words[i:i + size]))
      if name:
        return f'in benchmark {name}'
  return None


def graded(problem: Mapping, scorer) -> tuple[dict, str | None]:
  """The problem with `pass_rates` by model, and a reason to drop it.

  Args:
    problem: with an answer, and attempts if there are any.
    scorer: of training, from `rewards.create()`.

  Raises:
    ValueError: a verifier that there is none of.
    RuntimeError: no grading process started.
  """
  record = {'verifier': 'math', 'solution': '', 'metadata': '{}'} | dict(
      problem)
  if record['verifier'] not in _VERIFIERS:
    raise ValueError(f'Problem {problem["id"]!r}: expected a verifier among '
                     f'{sorted(_VERIFIERS)}, got {record["verifier"]!r}. '
                     'Correct it.')
  if scorer.check_golds([record]):
    return dict(problem), 'its verifier rejects the answer'
  rates = {}
  for name, texts in problem.get('attempts', {}).items():
    found = [result.status
             for result in scorer.score([record] * len(texts), texts)]
    if 'infra_error' in found:
      raise RuntimeError(f'Problem {problem["id"]!r}: expected a grading '
                         'process, got none that starts. See that math-verify '
                         'can be imported.')
    if found:
      rates[name] = found.count('ok') / len(found)
  out = dict(problem, pass_rates=rates)
  if rates and not any(rates.values()):
    return out, 'nobody finds the answer'
  return out, None


def too_easy_or_hard(problem: Mapping, rules: Rules) -> str | None:
  """Always solved by the student, or never by student and teacher.

  Raises:
    ValueError: no attempts of one of them.
  """
  if not rules.student:
    return None
  rates = problem.get('pass_rates', {})
  missing = [name for name in (rules.student, rules.teacher)
             if name not in rates]
  if missing:
    raise ValueError(
        f'Problem {problem["id"]!r}: expected attempts of {missing}, got those '
        f'of {sorted(rates)}. Add them, or name no student and teacher.')
  if rates[rules.student] == 1:
    return 'the student always solves it'
  if rates[rules.student] == 0 and rates[rules.teacher] == 0:
    return 'neither student nor teacher solves it'
  return None


def annotation(problem: Mapping, rules: Rules) -> dict:
  """What is known of a problem beyond its text; difficulty None if unknown."""
  rates = problem.get('pass_rates', {})
  difficulty = 1 - rates[rules.student] if rules.student else None
  return {'id': problem['id'], 'domain': problem.get('domain', ''),
          'source': problem.get('source', ''), 'difficulty': difficulty,
          'pass_rates': rates}


def training_record(problem: Mapping) -> dict:
  """What `data.builders.jsonl` reads."""
  return {name: problem[name] for name in (
      'id', 'prompt', 'answer', 'domain', 'solution', 'hint_prompt')
          if problem.get(name)}


def _is_invalid(char: str) -> bool:
  """The replacement character, and what is neither text nor white space."""
  return char == '\ufffd' or (
      unicodedata.category(char) in ('Cc', 'Cs', 'Co', 'Cn')
      and char not in '\n\r\t')


def _repeats(text: str, size: int = 4) -> int:
  """How often the most frequent run of words stands there."""
  words = normalized(text).split()
  counts: dict[tuple, int] = {}
  for i in range(len(words) - size + 1):
    run = tuple(words[i:i + size])
    counts[run] = counts.get(run, 0) + 1
  return max(counts.values(), default=0)


def _is_cut(text: str) -> bool:
  """Ends in the middle, or has LaTeX that does not close."""
  plain = re.sub(r'\\[\\{}$]', '', text)
  depth = 0
  for char in plain:
    depth += (char == '{') - (char == '}')
    if depth < 0:
      return True
  begins = re.findall(r'\\begin\{(\w+\*?)\}', plain)
  ends = re.findall(r'\\end\{(\w+\*?)\}', plain)
  return (depth != 0 or sorted(begins) != sorted(ends)
          or plain.rstrip().endswith(('...', '\u2026', ',', '\\')))
