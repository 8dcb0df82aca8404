"""Training, decoding and GRPO steps of the same model, ours and its peers'."""
from __future__ import annotations

import numpy as np

from experiments.benchmarking.subjects import crews

_FEW_EXPERTS = dict(num_experts=8, top_k=2, expert_dim=512)
_MANY_EXPERTS = dict(num_experts=32, top_k=4, expert_dim=512)


def moe_train(interleaved, smoke, team) -> list[dict]:
  work = crews.work_of({}, smoke, _FEW_EXPERTS)
  return [_train('moe_train', interleaved, team, work)]


def moe32_train(interleaved, smoke, team) -> list[dict]:
  work = crews.work_of({}, smoke, _MANY_EXPERTS)
  return [_train('moe32_train', interleaved, team, work)]


def dense_train(interleaved, smoke, team) -> list[dict]:
  # As many parameters as `moe_train`.
  work = crews.work_of(dict(mlp_dim=4_096), smoke)
  return [_train('dense_train', interleaved, team, work)]


def decode(interleaved, smoke, team) -> list[dict]:
  work = crews.work_of(
      {}, smoke, _FEW_EXPERTS, rows=16, length=64, new_tokens=128,
      small=dict(rows=2, length=8, new_tokens=4))
  with crews.Crew(team, work, 'decode', ('transformers', 'tunix')) as crew:
    tokens = {name: np.asarray(worker.run()['tokens'])
              for name, worker in crew.workers.items()}
    crews.check_tokens(tokens)
    config, drawn = crew.config, work.rows * work.new_tokens
    found = crew.measure(interleaved)
    mean_length = work.length + work.new_tokens / 2
    limit = 1 / crews.decode_seconds(config, work.rows, mean_length, found)
    return [crew.row('decode', 'tokens per second, '
                     f'{work.rows} prompts of {work.length} tokens',
                     found, drawn, limit=work.rows * limit)]


def grpo_step(interleaved, smoke, team) -> list[dict]:
  work = crews.work_of(
      {}, smoke, _FEW_EXPERTS, rows=2, length=64, new_tokens=128, samples=8,
      small=dict(length=8, new_tokens=4, samples=2))
  with crews.Crew(team, work, 'grpo', ('trl', 'tunix')) as crew:
    drawn = [worker.run()['new_tokens'] for worker in crew.workers.values()]
    responses = work.rows * work.samples
    wanted = responses * work.new_tokens
    if min(drawn) < 0.9 * wanted:
      raise ValueError(f'Expected about {wanted} new tokens of everybody, got '
                       f'{dict(zip(crew.workers, drawn, strict=True))}. See '
                       'who stops early.')
    found = crew.measure(interleaved)
    config, length = crew.config, work.length + work.new_tokens
    # One pass each of the old policy and the reference, and the update.
    update = (1 + 1 + 3) * responses * length * crews.flops_of_token(
        config, length)
    limit = update / found.flops + work.new_tokens * crews.decode_seconds(
        config, responses, work.length + work.new_tokens / 2, found)
    return [crew.row('grpo_step', f'seconds, {work.rows} prompts x '
                     f'{work.samples} samples x {work.new_tokens} tokens',
                     found, None, limit=limit)]


def _train(name: str, interleaved, team, work: crews.Work) -> dict:
  with crews.Crew(team, work, 'train', ('transformers', 'tunix')) as crew:
    losses = {name: [worker.run()['loss'] for _ in range(3)]
              for name, worker in crew.workers.items()}
    crews.check_losses(losses)
    found = crew.measure(interleaved)
    tokens = work.rows * work.length
    limit = found.flops / (3 * crews.flops_of_token(crew.config, work.length))
    return crew.row(name, f'tokens per second, {work.rows} x {work.length}',
                    found, tokens, limit=limit) | dict(losses=losses)
