r"""Whether the reasoning of a solution is right, asked of a language model.

  problem, solution  ->  several independent calls  ->  verdicts 1, 0 or -1

The judge sees no reference answer. What it writes ends with \boxed{yes} or
\boxed{no}; a reply without is asked for again, and is -1 if it stays so: never
a yes. How verdicts become one is decided in `evaluation.cot_pass_at_k`.

A file may keep the verdicts: a run that was stopped goes on (`verdicts`).

Reference: CoT-Pass@K (arXiv 2506.14245), appendix A.3. The prompt is ours.
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
from rljax.agents import verdicts

YES, NO, INVALID = 1, 0, verdicts.INVALID
_WORDS = {'yes': YES, 'no': NO}
_WRAPPED = re.compile(r'\\(?:text|textbf|mathrm|mathbf|boxed)\{([^{}]*)\}')


def judge(
    problems: Sequence[str],
    solutions: Sequence[str],
    model: language_model.LanguageModel,
    *,
    judge_id: str,
    num_calls: int = 3,
    num_retries: int = 2,
    temperature: float = 0.6,
    max_tokens: int | None = 4_096,
    seed: int = 0,
    cache: str | pathlib.Path | None = None,
    on_verdict: Callable[[], None] | None = None,
) -> np.ndarray:
  """verdict_NV, int8: 1, 0 or -1 of each call for each solution.

  Args:
    problems: as the solver saw them.
    solutions: one for each.
    model: the judge.
    judge_id: names the judge in the cache; another judge, another name.
    num_calls: V, independent verdicts on a solution.
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
  if len(problems) != len(solutions) or num_calls < 1 or num_retries < 0:
    raise ValueError(
        'Expected a solution for each problem, num_calls >= 1 and num_retries '
        f'>= 0, got {len(problems)} problems, {len(solutions)} solutions, '
        f'{num_calls} and {num_retries}. Correct them.')
  texts = [request(*pair) for pair in zip(problems, solutions, strict=True)]
  found = verdicts.collect(
      [(text, call) for text in texts for call in range(num_calls)], model,
      parse, judge_id=judge_id, num_retries=num_retries,
      temperature=temperature, max_tokens=max_tokens, seed=seed, cache=cache,
      on_verdict=on_verdict)
  return np.array(found, np.int8).reshape(-1, num_calls)


def request(problem: str, solution: str) -> str:
  """What the judge is asked; the marks cannot be forged by the solution."""
  digest = hashlib.sha256(f'{problem}\0{solution}'.encode()).hexdigest()
  return prompts.load('judge_reasoning').substitute(
      problem=problem, solution=solution, mark=f'#{digest[:12]}#')


def parse(reply: str) -> int:
  """The verdict in the last box behind the thinking; -1 if there is none."""
  return _WORDS.get(verdicts.boxed(reply, _WRAPPED), INVALID)
