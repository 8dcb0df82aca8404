"""Plants one fault at a time and asks whether the tests notice.

  python -m tests.mutants            (make mutants)
  python -m tests.mutants --only=clip,GAE

A fault is a line of `FAULTS`: a file, what stands there, what is put in its
place, and the tests that are expected to fail. A fault that they let through is
a survivor; any survivor makes the exit code 1. Faults are planted in a copy.
"""
from __future__ import annotations

from collections.abc import Sequence
from concurrent import futures
import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from absl import app
from absl import flags
import tqdm

ROOT = pathlib.Path(__file__).parents[1]
_COPIED = ('rljax', 'tests', 'configs', 'experiments', 'notebooks',
           'pyproject.toml', 'setup.cfg', 'README.md', 'Makefile')
_TIMEOUT_S = 600
_ONLY = flags.DEFINE_list('only', [''], 'Faults whose name has one of these.')
_WORKERS = flags.DEFINE_integer('workers', 2, 'Faults tried side by side.')


@dataclasses.dataclass(frozen=True)
class Fault:
  """One wrong line."""
  name: str
  file: str
  old: str
  new: str
  tests: str  # arguments of pytest, separated by spaces


_LOSS = 'rljax/losses/policy/{}.py'.format
_LOSS_TESTS = 'tests/losses/policy/{0}_test.py tests/losses'.format
_SURROGATE = 'tests/ops/surrogate_test.py tests/losses/policy'
_REWARD_BENCHMARKS = 'rljax/evaluation/reward_benchmarks.py'
_REWARD_RULES = 'tests/evaluation/reward_benchmarks_test.py'

FAULTS = (
    # Objectives.
    Fault('clip inverted', 'rljax/ops/surrogate.py',
          'jnp.minimum(plain_BT, clipped_BT',
          'jnp.maximum(plain_BT, clipped_BT',
          _SURROGATE),
    Fault('upper clip is the lower', 'rljax/ops/surrogate.py',
          '1 - clip_low, 1 + clip_high)\n  plain', '1 - clip_low, 1 + clip_low)'
          '\n  plain', _SURROGATE),
    Fault('sign of the gain', 'rljax/ops/surrogate.py',
          'return penalty - gain, metrics', 'return penalty + gain, metrics',
          _SURROGATE),
    Fault('KL of the wrong order', 'rljax/ops/divergences.py',
          'masked_difference(ref_logp_BT, logp_BT, inside_BT)',
          'masked_difference(logp_BT, ref_logp_BT, inside_BT)',
          'tests/ops/divergences_test.py'),
    Fault('mean for sum', 'rljax/ops/masking.py',
          'return jnp.sum(weight_BT * jnp', 'return jnp.mean(weight_BT * jnp',
          'tests/ops/masking_test.py tests/losses/contract_test.py'),
    Fault('mask behind the operation', 'rljax/ops/masking.py',
          'return jnp.where(inside_BT, a_BT - b_BT, 0.0)',
          'return a_BT - b_BT', 'tests/ops/masking_test.py tests/losses'),
    Fault('PPO by the response', _LOSS('ppo'),
          'return masking.uniform_weights(rows.mask_BT)',
          'return jnp.asarray(rows.mask_BT, jnp.float32)',
          _LOSS_TESTS('ppo')),
    Fault('value clipped by the minimum', 'rljax/losses/value/clipped.py',
          'else jnp.maximum(', 'else jnp.minimum(',
          'tests/losses/value/clipped_test.py'),
    Fault('the end of a response is bootstrapped', 'rljax/ops/gae.py',
          'response_BT & ~done_BT, after_BT', 'response_BT, after_BT',
          'tests/ops/gae_test.py'),
    Fault('GAE over the whole row', 'rljax/ops/gae.py',
          'response_BT & (following_BT == segment_BT)', 'segment_BT > 0',
          'tests/ops/gae_test.py'),
    Fault('GRPO without the length', _LOSS('grpo'),
          'jnp.maximum(num_responses * length_BT, 1.0)',
          'jnp.maximum(num_responses, 1.0)', _LOSS_TESTS('grpo')),
    Fault('C3PO by the tokens that survived', _LOSS('c3po'),
          'jnp.asarray(rows.mask_BT, jnp.float32) / rows.token_budget',
          'jnp.asarray(rows.mask_BT, jnp.float32) / jnp.sum(rows.mask_BT)',
          _LOSS_TESTS('c3po')),
    Fault('Dr. GRPO by the length', _LOSS('dr_grpo'),
          '* rows.max_response_length', '* jnp.sum(rows.mask_BT)',
          _LOSS_TESTS('dr_grpo')),
    Fault('GSPO by token', _LOSS('gspo'), 'log_ratio_BT=mean_BT)',
          'log_ratio_BT=log_ratio_BT)', _LOSS_TESTS('gspo')),
    Fault('GSPO by the sum', _LOSS('gspo'), 'jnp.maximum(count_BT, 1.0)',
          '1.0', _LOSS_TESTS('gspo')),
    Fault('CISPO without the stop-gradient', _LOSS('cispo'),
          'jnp.exp(jax.lax.stop_gradient(', 'jnp.exp((',
          _LOSS_TESTS('cispo')),
    Fault('REINFORCE without advantages', _LOSS('reinforce'),
          'batch.advantage_BT * logp_BT)', 'logp_BT)',
          _LOSS_TESTS('reinforce')),
    Fault('guided tokens clipped', _LOSS('guide'),
          'jnp.where(guided_BT, shaped_BT, gain_BT)', 'gain_BT',
          _LOSS_TESTS('guide')),
    Fault('shaping of the inverse ratio', 'rljax/ops/shaping.py',
          'jax.nn.sigmoid(log_ratio - jnp.log(gamma))',
          'jax.nn.sigmoid(jnp.log(gamma) - log_ratio)',
          'tests/ops/shaping_test.py'),
    Fault('quantile counts padding', 'rljax/ops/shaping.py',
          'count = jnp.sum(inside)', 'count = inside.size',
          'tests/ops/shaping_test.py'),
    Fault('entropy lowered', 'rljax/losses/auxiliary.py',
          'coef = entropy_coef if literal_sign else -entropy_coef',
          'coef = entropy_coef', 'tests/losses/auxiliary_test.py'),
    Fault('balance through the load', 'rljax/losses/auxiliary.py',
          'jnp.sum(jax.lax.stop_gradient(load_LE) * stats.mean_prob_LE)',
          'jnp.sum(load_LE * stats.mean_prob_LE)',
          'tests/losses/auxiliary_test.py'),
    Fault('entropy control upside down',
          'rljax/training/entropy_control.py', 'step if is_low else -step',
          '-step if is_low else step',
          'tests/training/entropy_control_test.py'),
    Fault('KTO estimates less than nothing', 'rljax/ops/pairs.py',
          'jnp.maximum(mean, 0)', 'mean', 'tests/losses/preference'),
    Fault('TDPO holds chosen responses back',
          'rljax/losses/preference/tdpo.py',
          'jax.lax.stop_gradient(kl.chosen_BP)', 'kl.chosen_BP',
          'tests/losses/preference/losses_test.py'),
    Fault('CPO unlearns the chosen response', 'rljax/losses/preference/cpo.py',
          'loss_BP -= nll_coef', 'loss_BP += nll_coef',
          'tests/losses/preference/losses_test.py'),
    Fault('ORPO unlearns the chosen response',
          'rljax/losses/preference/orpo.py', '-nll_coef * mean.chosen_BP',
          'nll_coef * mean.chosen_BP',
          'tests/losses/preference/losses_test.py'),
    Fault('β_r is β', 'rljax/losses/preference/tgdpo.py',
          'reward_beta = beta if reward_beta is None else reward_beta',
          'reward_beta = beta', 'tests/losses/preference/losses_test.py'),
    Fault('weights clipped lower than told',
          'rljax/losses/preference/tgdpo.py',
          '-weight_clip, weight_clip)', '-3 * weight_clip, weight_clip)',
          'tests/losses/preference/losses_test.py'),
    Fault('weights clipped higher than told',
          'rljax/losses/preference/tgdpo.py',
          '-weight_clip, weight_clip)', '-weight_clip, 9 * weight_clip)',
          'tests/losses/preference/losses_test.py'),
    Fault('weights of masked tokens are reported',
          'rljax/losses/preference/tgdpo.py',
          'pairs.extremes(weight_BT, counted)',
          'pairs.extremes(weight_BT, batch)',
          'tests/losses/preference/losses_test.py'),
    Fault('a loss that learns the opposite may be had',
          'rljax/losses/preference/__init__.py',
          'not is_number or value < 0 or', 'not is_number or',
          'tests/losses/preference/contract_test.py'),
    Fault('divergence of the other sign', 'rljax/ops/vocabulary.py',
          "other['cross'] / other['total'] - between_M",
          "other['cross'] / other['total'] + between_M",
          'tests/ops/vocabulary_test.py'),
    Fault('a token scored for every empty place', 'rljax/ops/vocabulary.py',
          'fill_value=asked_BT.size)[0]', 'fill_value=0)[0]',
          'tests/ops/vocabulary_test.py'),
    Fault('prompts scored as responses', 'rljax/training/batch.py',
          'return batch.mask_BT', 'return batch.segment_BT > 0',
          'tests/training/pairs_test.py'),
    # Adapters.
    Fault('adapters of the wrong scale', 'rljax/models/lora.py',
          'math.sqrt(rank) if rank_stabilized else rank',
          'rank if rank_stabilized else math.sqrt(rank)',
          'tests/models/lora_test.py'),
    Fault('adapters begin too wide', 'rljax/models/lora.py',
          'for x in into) ** -0.5', 'for x in into) ** -0.1',
          'tests/models/lora_test.py'),
    Fault('the prefix shared with itself', 'rljax/ops/pairs.py',
          'side_BT ^ 1', 'side_BT', 'tests/ops/pairs_test.py'),
    Fault('-1 is the newest at each start', 'experiments/job/pins.py',
          'stored.get(key, NEWEST)', 'NEWEST',
          'tests/experiments/job/pins_test.py'),
    Fault('the reference keeps its adapters', 'rljax/models/lora.py',
          'jnp.copy, params.trained | {COLLECTION: zeros}))',
          'jnp.copy, params.trained))', 'tests/models/lora_test.py'),
    Fault('the base has a gradient', 'rljax/models/lora.py',
          'base = jax.lax.stop_gradient(params.base)', 'base = params.base',
          'tests/models/lora_test.py'),
    # Advantages and corrections.
    Fault('invalid rewards in the mean', 'rljax/ops/advantages.py',
          'return jnp.where(valid_PG, rewards_PG, 0.0), valid_PG',
          'return rewards_PG, jnp.ones_like(valid_PG)',
          'tests/ops/advantages_test.py'),
    Fault('advantages out of rounding', 'rljax/ops/advantages.py',
          'keep_PG = valid_PG & _has_spread(rewards_PG, valid_PG)[:, None]',
          'keep_PG = valid_PG', 'tests/ops/advantages_test.py'),
    Fault('a sample in its own baseline', 'rljax/ops/advantages.py',
          'return centered_PG * count_P1 / jnp.maximum(count_P1 - 1.0, 1.0)',
          'return centered_PG', 'tests/ops/advantages_test.py'),
    Fault('truncation from below', 'rljax/ops/corrections.py',
          'jnp.minimum(_ratio(log_ratio_BT), cap)',
          'jnp.maximum(_ratio(log_ratio_BT), cap)',
          'tests/ops/corrections_test.py'),
    Fault('inverse correction', 'rljax/ops/corrections.py',
          'jnp.asarray(old_logp_BT, jnp.float32),\n'
          '        jnp.asarray(sampled_logp_BT, jnp.float32), mask_BT)',
          'jnp.asarray(sampled_logp_BT, jnp.float32),\n'
          '        jnp.asarray(old_logp_BT, jnp.float32), mask_BT)',
          'tests/ops/corrections_test.py'),
    Fault('guided denominator of the prompt without hint',
          'rljax/training/guidance.py',
          "'hinted': rows.sampled_logp_BT", "'hinted': plain_BT",
          'tests/training/guidance_test.py'),
    Fault('a prompt gives its failed and its hinted group',
          'experiments/policy/guided.py',
          'keep_P[np.flatnonzero(failed_P)[rescued_F]] = False', 'pass',
          'tests/experiments/policy/guided_test.py'),
    Fault('a group that waited passes for a new one',
          'experiments/policy/guided.py', 'np.ones_like(surplus',
          'np.zeros_like(surplus',
          'tests/experiments/policy/policy_draws_test.py'),
    # Packing.
    Fault('budget off by one', 'rljax/packing/budget.py',
          'stop_S[size - 1] -= excess * exact',
          'stop_S[size - 1] -= (excess - 1) * exact',
          'tests/packing/budget_test.py'),
    Fault('the order is not random', 'rljax/packing/budget.py',
          'return rng.permutation(size)\n', 'return np.arange(size)\n',
          'tests/packing/budget_test.py'),
    Fault('window forgets the ring', 'rljax/packing/budget.py',
          'stop_S = np.where(head_S > 0, head_S, stop_S)', 'pass',
          'tests/packing/budget_test.py'),
    Fault('mask shifted by a token', 'rljax/packing/pack.py',
          'mask_BT[row, middle:end] = selection_lib.keeps(t, start, stop)',
          'mask_BT[row, middle - 1:end - 1] = selection_lib.keeps(t, start, '
          'stop)', 'tests/packing/pack_test.py'),
    Fault('positions run on over sequences', 'rljax/packing/pack.py',
          'position_BT[row, begin:end] = np.arange(end - begin)\n'
          '    segment_BT[row, begin:end] = 1 + r',
          'position_BT[row, begin:end] = np.arange(begin, end)\n'
          '    segment_BT[row, begin:end] = 1 + r',
          'tests/packing/pack_test.py'),
    # Scores, sampling, attention, experts.
    Fault('a token predicted from its neighbour in the row',
          'rljax/ops/logprobs.py',
          '(segment_BT == previous_BT) & (segment_BT > 0)',
          '(segment_BT > 0)', 'tests/ops/logprobs_test.py'),
    Fault('sums over the whole row', 'rljax/ops/segments.py',
          'changed_BT = jnp.not_equal(segment_BT[:, 1:], segment_BT[:, :-1])',
          'changed_BT = jnp.zeros(segment_BT[:, 1:].shape, bool)',
          'tests/ops/segments_test.py'),
    Fault('biased support', 'rljax/ops/sampling.py',
          'goal_B = params.top_p * total(odds_BV)', 'goal_B = params.top_p',
          'tests/ops/sampling_test.py'),
    Fault('top-k of one less', 'rljax/ops/sampling.py',
          'count(kept_BV) >= params.top_k',
          'count(kept_BV) >= params.top_k - 1',
          'tests/ops/sampling_test.py'),
    Fault('log-probability before truncation', 'rljax/ops/sampling.py',
          'chosen_B - jnp.log(jnp.sum(kept_BV, axis=-1)), entropy_B',
          'chosen_B - jnp.log(total_B), entropy_B',
          'tests/ops/sampling_test.py'),
    Fault('the future is seen', 'rljax/models/attention.py',
          'seen_BCS & causal_CS[None])', 'seen_BCS)',
          'tests/models/attention_test.py'),
    Fault('other sequences of the row are seen', 'rljax/models/attention.py',
          'seen_BCS & causal_CS[None])', 'causal_CS[None])',
          'tests/models/attention_test.py'),
    Fault('gates that do not sum to 1', 'rljax/models/moe.py',
          'gates_BTX = top_BTX / jnp.sum(top_BTX, axis=-1, keepdims=True) if (',
          'gates_BTX = top_BTX if (', 'tests/models/moe_test.py'),
    Fault('gradient through the norm of the head', 'rljax/models/heads.py',
          'jax.lax.stop_gradient(norm_D)', 'norm_D',
          'tests/models/heads_test.py'),
    Fault('the bias in the gates', 'rljax/models/moe.py',
          'if bias_E is not None or replay_BTX is not None:',
          'if replay_BTX is not None:', 'tests/models/moe_test.py'),
    # Training.
    Fault('micro-batches repeat their noise', 'rljax/training/update.py',
          'grad_fn(state.params, r, jax.random.fold_in(key, index),',
          'grad_fn(state.params, r, key,',
          'tests/training/update_test.py'),
    Fault('every step the same key', 'rljax/training/update.py',
          'key = jax.random.fold_in(key, state.step)  #', 'key = key  #',
          'tests/training/update_test.py'),
    Fault('micro-batches averaged', 'rljax/training/update.py',
          'updates, opt_state = optimizer.update(grads, ',
          'grads = jax.tree.map(lambda g: g / num_microbatches, grads)\n'
          '    updates, opt_state = optimizer.update(grads, ',
          'tests/training/update_test.py'),
    Fault('bias towards the busy expert', 'rljax/training/router_bias.py',
          'jnp.sign(1.0 - load_LE)', 'jnp.sign(load_LE - 1.0)',
          'tests/training/router_bias_test.py'),
    # Verifiers and data.
    Fault('the first box', 'rljax/rewards/extraction.py',
          'content = found[-1] if found else None',
          'content = found[0] if found else None',
          'tests/rewards/extraction_test.py'),
    Fault('truncated responses earn', 'rljax/rewards/shaping.py',
          'np.where(stopped_R, rewards_R, 0.0)',
          'np.where(stopped_R, rewards_R, rewards_R)',
          'tests/rewards/shaping_test.py'),
    Fault('overlong from the start of the response',
          'rljax/rewards/shaping.py',
          'over_R = (max_length - buffer - np.asarray(lengths_R)) / buffer',
          'over_R = (buffer - np.asarray(lengths_R)) / buffer',
          'tests/rewards/shaping_test.py'),
    Fault('characters for tokens', 'experiments/policy/responses.py',
          'lengths=samples.length_PG[own].ravel()',
          'lengths=[len(text) for text in texts]',
          'tests/experiments/policy/responses_test.py'),
    Fault('the end is never a target', 'rljax/data/chat.py',
          'mask[1:] |= mask[:-1] & np.isin(tokens[1:], tokenizer.stop_ids)',
          'pass', 'tests/data/huggingface_test.py'),
    # Images.
    Fault('the worst outputs are positives', 'rljax/data/bootstrap.py',
          'np.argsort(-score_R[fresh_R]', 'np.argsort(score_R[fresh_R]',
          'tests/data/bootstrap_test.py'),
    Fault('ranks from one', 'rljax/data/bootstrap.py',
          'np.arange(first_rank, first_rank + count,',
          'np.arange(first_rank + 1, first_rank + 1 + count,',
          'tests/data/bootstrap_test.py'),
    Fault('a soft label on one side', 'rljax/losses/discriminator/gan_rm.py',
          '+ (1 - label_B) * jax', '+ jax',
          'tests/losses/discriminator/gan_rm_test.py'),
    Fault('Diffusion-DPO without a reference',
          'rljax/losses/denoising/dpo.py',
          'error_BG - jax.lax.stop_gradient(batch.ref_error_BG)', 'error_BG',
          'tests/losses/denoising/losses_test.py'),
    Fault('an edit is compared with other images',
          'rljax/evaluation/image_rewards.py',
          '(edited_R - plain_R)[row_NR].mean(1)',
          '(edited_R - np.roll(plain_R, 1))[row_NR].mean(1)',
          'tests/evaluation/image_rewards_test.py'),
    Fault('no unit without a gap', 'rljax/evaluation/image_rewards.py',
          'np.maximum(gap_N, plain_NR.std(1))', 'np.abs(gap_N)',
          'tests/evaluation/image_rewards_test.py'),
    Fault('flagged where an edit costs', 'experiments/gan/gan_diagnosis.py',
          "ends(name)['low'] > max_paid",
          "abs(ends(name)['estimate']) > max_paid",
          'tests/experiments/gan/gan_diagnosis_test.py'),
    Fault('files are scored without their margin',
          'experiments/score_images.py', 'reward.classes), reward.data.margin)',
          'reward.classes), 0)', 'tests/experiments/score_images_test.py'),
    Fault('patches on their side', 'rljax/models/vision.py',
          "'bgihju,ijud->bghd'", "'bgihju,jiud->bghd'",
          'tests/models/vision_test.py'),
    Fault('McNemar of all problems', 'rljax/evaluation/intervals.py',
          'discordant = only_a + only_b', 'discordant = a_P.size',
          'tests/evaluation/intervals_test.py'),
    Fault('unpaired difference', 'rljax/evaluation/intervals.py',
          'delta_P = b_P - a_P\n', 'delta_P = b_P - np.roll(a_P, 1)\n',
          'tests/evaluation/intervals_test.py'),
    Fault('a program with a right beginning passes', 'rljax/rewards/code.py',
          'return lines(printed) == lines(expected)',
          'return all(a == b for a, b in zip(lines(printed), lines(expected)))',
          'tests/rewards/code_test.py'),
    # Measurement.
    Fault('a missing verdict approves', 'rljax/evaluation/cot_pass_at_k.py',
          'return yes_PG > 0', 'return no_PG == 0',
          'tests/evaluation/cot_pass_at_k_test.py'),
    Fault('errors of a judge taken out of one side alone',
          'rljax/evaluation/cot_pass_at_k.py',
          'hat_P = (both_P - right_P * fpr) / (tpr - fpr)',
          'hat_P = both_P / tpr', 'tests/evaluation/cot_pass_at_k_test.py'),
    Fault('right reasoning is punished', 'rljax/evaluation/logic_prior.py',
          'float(scale * (alpha - mu))', 'float(scale * (mu - alpha))',
          'tests/evaluation/logic_prior_test.py'),
    Fault('what was solved before counts as progress',
          'rljax/evaluation/capability.py',
          'progress_P = (1 - start_P) * end_P', 'progress_P = end_P',
          'tests/evaluation/capability_test.py'),
    Fault('biased pass@k', 'rljax/evaluation/sample_metrics.py',
          'return -np.expm1(_log_none(n, c, k))',
          'return 1 - (1 - c / n) ** k',
          'tests/evaluation/sample_metrics_test.py'),
    Fault('ties go to the first', 'rljax/evaluation/sample_metrics.py',
          'np.mean((wins @ right) / np.maximum(wins.sum(1), 1))',
          'np.mean(right[wins.argmax(1)])',
          'tests/evaluation/sample_metrics_test.py'),
    Fault('statistics of padding', 'rljax/rollout/statistics.py',
          'return index_T < rollout.length_PG[..., None]',
          'return index_T <= rollout.length_PG[..., None]',
          'tests/rollout/statistics_test.py'),
    # Benchmarks of reward models.
    Fault('math weighs as its items', 'rljax/data/reward_benchmarks.py',
          "'math-prm': 984", "'math-prm': 447", _REWARD_RULES),
    Fault('JudgeBench forgives a lost order', _REWARD_BENCHMARKS,
          'right_I2.sum(axis=1) > 0', 'right_I2.sum(axis=1) >= 0',
          _REWARD_RULES),
    Fault('easy for hard', _REWARD_BENCHMARKS, 'hard=row < column',
          'hard=row > column', _REWARD_RULES),
    Fault('ties above their spread by the best', _REWARD_BENCHMARKS,
          'score_G[:count].min() - score_G[count:]',
          'score_G[:count].max() - score_G[count:]', _REWARD_RULES),
    Fault('no verdict is a win', 'rljax/agents/comparison_judge.py',
          '.values(), np.nan]', '.values(), 1.0]',
          'tests/agents/comparison_judge_test.py'),
    Fault('the better one always first', 'rljax/evaluation/calibration.py',
          'random(len(margin_I)) < 0.5', 'random(len(margin_I)) < 1.5',
          'tests/evaluation/calibration_test.py'),
    Fault('length without what is right', 'rljax/evaluation/reward_bias.py',
          '_against(longer, longer_win, seed), _mean',
          '_against(0 * longer + 0.5, longer_win, seed), _mean',
          'tests/evaluation/reward_bias_test.py'),
    Fault('loss measured where it was chosen',
          'rljax/evaluation/over_optimisation.py',
          'rest_PN = gold_PN[~half]', 'rest_PN = gold_PN[half]',
          'tests/evaluation/over_optimisation_test.py'),
    # Reward models.
    Fault('smoothing mass on the right label', 'rljax/ops/comparisons.py',
          '(1 - wrong_mass) * right - wrong_mass * jax.nn.log_sigmoid(-ahead)',
          'wrong_mass * right - (1 - wrong_mass) * jax.nn.log_sigmoid(-ahead)',
          'tests/losses/reward tests/ops/comparisons_test.py'),
    Fault('smoothing as torch counts', 'rljax/losses/reward/gram.py',
          'torch_label_smoothing / 2', 'torch_label_smoothing',
          'tests/losses/reward'),
    Fault('gaps masked too late', 'rljax/ops/comparisons.py',
          'jnp.where(\n      better_BPCC, score_BPC[..., :, None] '
          '- score_BPC[..., None, :], 0.0)',
          'better_BPCC * (\n      score_BPC[..., :, None] '
          '- score_BPC[..., None, :])',
          'tests/losses/reward'),
    Fault('worst first', 'rljax/losses/reward/plackett_luce.py',
          'axis=2, reverse=True', 'axis=2, reverse=False',
          'tests/losses/reward'),
    Fault('one order of the pair alone', 'rljax/agents/pair_judge.py',
          '(np.tanh(gap_N / 2) + np.tanh(other_N / 2)) / 4',
          'np.tanh(gap_N / 2) / 2', 'tests/agents/pair_judge_test.py'),
    Fault('a tie unseats the incumbent', 'rljax/agents/pair_judge.py',
          'if new > old:', 'if new >= old:', 'tests/agents/pair_judge_test.py'),
    Fault('the reference is rewarded', 'rljax/agents/pair_judge.py',
          'scores(judge, pairs, average=average)[:, 1]',
          'scores(judge, pairs, average=average)[:, 0]',
          'tests/agents/pair_judge_test.py'),
    Fault('a lacking comparison counts', 'rljax/agents/pair_judge.py',
          'None if k in lacking else end.value', 'end.value',
          'tests/agents/pair_judge_test.py'),
    Fault('a knockout in the order of the list',
          'experiments/evaluation/evaluate_rewards_rankings.py',
          "if ranking != 'knockout':", 'if True:',
          'tests/experiments/evaluate_rewards_test.py'),
    Fault('recorded answers of two models',
          'experiments/evaluation/evaluate_rewards_recorded.py',
          'if len(begins) > 1:', 'if False:',
          'tests/experiments/evaluation/evaluate_rewards_recorded_test.py'),
    Fault('a label as it is by itself', 'rljax/data/judge_prompts.py',
          'found.append(whole[len(before):].tolist())',
          'found.append(list(tokenizer.encode(label)))',
          'tests/data/judge_labels_test.py'),
    Fault('a judge may be shown the end of a turn', 'rljax/data/chat.py',
          'return not tokenizer.special_ids.isdisjoint(ids)', 'return False',
          'tests/data/judge_labels_test.py'),
    Fault('scores of a list in another order',
          'experiments/reward/trained_reward.py',
          'score_N[group] = score_C[:len(group)]',
          'score_N[group] = score_C[:len(group)][::-1]',
          'tests/experiments/reward/trained_reward_test.py'),
    Fault('a shared top is a hit', 'rljax/losses/reward/plackett_luce.py',
          '1 / (1 + count(on_top_BPC & is_worse_BPC)), 0.0)', '1.0, 0.0)',
          'tests/losses/reward/losses_test.py'),
    Fault('scores read one token late', 'rljax/packing/lists.py',
          'ends.append(end - 1)', 'ends.append(end)',
          'tests/packing/lists_test.py'),
    Fault('responses that forget their prompt', 'rljax/training/reward.py',
          'batch.segment_BT, batch.share_BT, prefix_BT=batch.prefix_BT)\n'
          '    flat', 'batch.segment_BT, batch.share_BT)\n    flat',
          'tests/training/reward_test.py'),
    Fault('all of the shortest text is shared', 'rljax/packing/lists.py',
          'min(map(len, texts)) - 1', 'min(map(len, texts))',
          'tests/packing/lists_test.py'),
    Fault('any statistics will do', 'rljax/rewards/model_based.py',
          'if found.step != step:', 'if False:',
          'tests/rewards/model_based_test.py'),
    # Pairs.
    Fault('a shared prompt that nobody sees', 'rljax/models/attention.py',
          '(\n          prefix_BC > 0)[..., None]',
          '(\n          prefix_BC < 0)[..., None]',
          'tests/training/pairs_test.py'),
    Fault('positions from 0 behind a shared prompt', 'rljax/packing/pairs.py',
          'shared + np.arange(end - begin)', 'np.arange(end - begin)',
          'tests/packing/pairs_test.py'),
    Fault('each side cut to its own half',
          'rljax/data/preference_tokens.py',
          'short = [length for length in left if length <= budget]',
          'short = []', 'tests/data/preference_tokens_test.py'),
    Fault('room for one prompt where there are two',
          'experiments/preference/preference_pairs.py',
          'prompt_copies=1 if config.packing.share_prompt else 2',
          'prompt_copies=1',
          'tests/experiments/preference/preference_pairs_test.py'),
    Fault('one response alone for every loss', 'rljax/packing/pairs.py',
          'alone = one_sided and any(counted)', 'alone = any(counted)',
          'tests/packing/pairs_test.py'),
    Fault('steps before a step are left out',
          'rljax/data/preference_tokens.py',
          "steps = record.get('steps', '')", "steps = ''",
          'tests/data/preference_tokens_test.py'),
    Fault('swapped columns pass', 'rljax/data/preference_forms.py',
          'if value < 0:', 'if value < -1e9:',
          'tests/data/preference_test.py'),
    Fault('stale scores pass', 'rljax/training/score_cache.py',
          'checkpoint.differences(saved, fingerprint,',
          'checkpoint.differences(saved, saved,',
          'tests/training/score_cache_test.py'),
    # Studies.
    Fault('a smoke run is taken for the study', 'experiments/studies/once.py',
          'repr(what).encode()', 'bytes()',
          'tests/experiments/studies/once_test.py'),
    Fault('the noise of labels is undone by as much smoothing',
          'experiments/studies/gram_labels.py',
          '(1 - noise) * (1 - mass) + noise * mass', '1 - mass',
          'tests/experiments/studies/gram_labels_test.py'),
    Fault('an interval that reaches out is within',
          'experiments/studies/outcome.py',
          'max(abs(found.low), abs(found.high))', 'abs(found.estimate)',
          'tests/experiments/studies/compare_test.py'),
)


def check(fault: Fault, root: pathlib.Path = ROOT) -> str:
  """The file with the fault in it.

  Raises:
    ValueError: what the fault replaces does not stand there exactly once.
  """
  text = (root / fault.file).read_text()
  found = text.count(fault.old) if fault.old else 0
  if found != 1:
    raise ValueError(
        f'Expected the text of the fault {fault.name!r} once in {fault.file}, '
        f'found it {found} times. Correct the line of FAULTS.')
  return text.replace(fault.old, fault.new)


def survives(fault: Fault, root: pathlib.Path = ROOT) -> bool:
  """Whether the tests pass with the fault.

  Raises:
    RuntimeError: pytest neither passed nor found a failure.
  """
  faulty = check(fault, root)
  with tempfile.TemporaryDirectory() as folder:
    for name in _COPIED:
      source, target = root / name, pathlib.Path(folder, name)
      if source.is_dir():
        shutil.copytree(source, target,
                        ignore=shutil.ignore_patterns('__pycache__'))
      else:
        shutil.copy(source, target)
    pathlib.Path(folder, fault.file).write_text(faulty)
    environment = dict(os.environ, PYTHONPATH=folder,
                       PYTHONDONTWRITEBYTECODE='1')
    try:
      done = subprocess.run(
          [sys.executable, '-m', 'pytest', '-x', '-q', '-p', 'no:cacheprovider',
           *fault.tests.split()], cwd=folder, env=environment,
          capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
      return False  # a program that no longer ends has been noticed
  if done.returncode not in (0, 1):
    raise RuntimeError(
        f'Expected pytest to pass or fail with the fault {fault.name!r}, got '
        f'exit code {done.returncode}. Its output ends with:\n'
        f'{(done.stdout + done.stderr)[-1500:]}')
  return done.returncode == 0


def run(faults: Sequence[Fault], workers: int) -> list[Fault]:
  """Tries all; returns the survivors."""
  with futures.ThreadPoolExecutor(workers) as pool:
    found = list(tqdm.tqdm(pool.map(survives, faults), total=len(faults),
                           unit='fault'))
  return [fault for fault, alive in zip(faults, found, strict=True) if alive]


def main(_):
  faults = [fault for fault in FAULTS
            if any(part in fault.name for part in _ONLY.value)]
  if not faults:
    raise app.UsageError(f'No fault has {_ONLY.value!r} in its name.')
  survivors = run(faults, _WORKERS.value)
  for fault in survivors:
    print(f'SURVIVED  {fault.name} ({fault.file}) under {fault.tests}')
  print(f'{len(faults) - len(survivors)} of {len(faults)} faults noticed')
  sys.exit(1 if survivors else 0)


if __name__ == '__main__':
  app.run(main)
