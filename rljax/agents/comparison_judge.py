r"""Which of two responses is better, in the words of a language model.

  pairs as they are shown  ->  replies  ->  preference: 1, 0, 1/2 or NaN

The preference is for the response shown first: 1 and 0 are verdicts, 1/2 is a
tie, NaN a reply without a verdict, which is never a win for either side. What
the judge writes ends with \boxed{A}, \boxed{B} or \boxed{tie}; the box is
looked for behind the thinking and nowhere in front of it.

Reference: Zheng et al. (arXiv 2306.05685); the prompt is ours.
"""
from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import hashlib
import pathlib
import re

import numpy as np

from rljax import prompts
from rljax.agents import language_model
from rljax.agents import pair_judge
from rljax.agents import verdicts

_PREFERENCES = {'a': 1.0, 'b': 0.0, 'tie': 0.5}
_WORDS = {word: code for code, word in enumerate(_PREFERENCES)}
_VALUES = np.array([*_PREFERENCES.values(), np.nan])  # INVALID is the last
_WRAPPED = re.compile(
    r'\\(?:text|textbf|mathrm|mathbf|boxed)\{([^{}]*)\}|'
    r'(?:response|answer|assistant) (\w+)', re.IGNORECASE)


def compare(
    pairs: Sequence[pair_judge.Pair],
    model: language_model.LanguageModel,
    *,
    judge_id: str,
    calls: Sequence[int] | None = None,
    num_retries: int = 2,
    temperature: float = 0.0,
    max_tokens: int | None = 2_048,
    seed: int = 0,
    cache: str | pathlib.Path | None = None,
    on_verdict: Callable[[], None] | None = None,
) -> np.ndarray:
  """preference_N for the first of each pair.

  Args:
    pairs: in the order in which they are shown; ask for both orders.
    model: the judge.
    judge_id: names the judge in the cache; another judge, another name.
    calls: numbers of the calls, where one pair is asked for several times;
      None: each pair once.
    num_retries: further tries of a call whose reply had no verdict.
    temperature: of the replies.
    max_tokens: of a reply.
    seed: of the replies; each call and each try has its own.
    cache: JSONL of verdicts; None keeps nothing.
    on_verdict: called once for every verdict, for a progress bar.

  Raises:
    ValueError: sizes that cannot be.
    LanguageModelError: the judge gave no reply; what it said is kept.
  """
  calls = [0] * len(pairs) if calls is None else calls
  if len(calls) != len(pairs) or num_retries < 0 or min(calls, default=0) < 0:
    raise ValueError(
        'Expected a call number for each pair and num_retries >= 0, got '
        f'{len(calls)} for {len(pairs)} and {num_retries}. Correct them.')
  found = verdicts.collect(
      [(request(pair), call) for pair, call in zip(pairs, calls, strict=True)],
      model, parse, judge_id=judge_id, num_retries=num_retries,
      temperature=temperature, max_tokens=max_tokens, seed=seed, cache=cache,
      on_verdict=on_verdict)
  return _VALUES[np.array(found, int)]


def request(pair: pair_judge.Pair) -> str:
  """What the judge is asked; the marks cannot be forged by a response."""
  parts = (str(pair.prompt), pair.first, pair.second)
  digest = hashlib.sha256('\0'.join(parts).encode()).hexdigest()
  return prompts.load('judge_pair').substitute(
      prompt=parts[0], first=parts[1], second=parts[2],
      mark=f'#{digest[:12]}#')


def parse(reply: str) -> int:
  """Code of the verdict in the last box behind the thinking, or INVALID."""
  return _WORDS.get(verdicts.boxed(reply, _WRAPPED), verdicts.INVALID)
