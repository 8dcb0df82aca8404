"""TRL on torch: steps of GRPO, DPO, and a reward model."""
import datasets
import numpy as np
import serving
import torch
import transformers
import transformers_worker
import trl

VERSIONS = transformers_worker.VERSIONS | dict(trl=trl.__version__)


class Steps(transformers.TrainerCallback):
  """Lets the trainer take one step for each request.

  `facts` says after a step what there is to be told of it.
  """

  def __init__(self, driver, facts):
    self._driver, self._facts = driver, facts

  def on_step_begin(self, args, state, control, **_):
    if not self._driver.wait():
      raise SystemExit

  def on_step_end(self, args, state, control, **_):
    self._driver.answer(**self._facts())


def settings(job, batch_size: int) -> dict:
  """What all trainers share: AdamW and nothing besides."""
  return dict(
      output_dir=job['folder'], max_steps=10**6, report_to='none', bf16=False,
      per_device_train_batch_size=batch_size, use_cpu=True,
      learning_rate=job['learning_rate'], lr_scheduler_type='constant',
      weight_decay=0.0, max_grad_norm=0.0, save_strategy='no',
      gradient_checkpointing=False, logging_strategy='no', disable_tqdm=True)


def kept_losses(trainer) -> list[float]:
  """Losses of the steps, as they come."""
  kept, original = [], trainer.compute_loss

  def compute_loss(*args, **kwargs):
    loss = original(*args, **kwargs)
    kept.append(loss.item())
    return loss

  trainer.compute_loss = compute_loss
  return kept


def grpo(driver):
  job = driver.job
  model, tokens_BT = transformers_worker.load(job)
  transformers_worker.write_logits(model, tokens_BT, job)
  tokenizer = transformers.AutoTokenizer.from_pretrained(job['checkpoint'])
  prompts, samples = job['prompts'], job['samples']
  drawn = []

  def reward(completion_ids, **_):
    drawn.append(sum(map(len, completion_ids)))
    return [sum(i % 2 == 0 for i in row) / max(len(row), 1)
            for row in completion_ids]

  config = trl.GRPOConfig(
      **settings(job, len(prompts) * samples),
      num_generations=samples, max_completion_length=job['new_tokens'],
      beta=job['kl_coef'], epsilon=0.2, loss_type='grpo', temperature=1.0,
      top_k=0)
  trainer = trl.GRPOTrainer(
      model=model, reward_funcs=reward, args=config,
      train_dataset=datasets.Dataset.from_list(
          [dict(prompt=prompt) for prompt in prompts]),
      processing_class=tokenizer, callbacks=[
          Steps(driver, lambda: dict(new_tokens=drawn.pop()))])

  # As many tokens as a step has, in the gradient and in the sampling.
  prompts_BT = tokens_BT.repeat(samples, 1)
  rows_BT = prompts_BT[:, :1].repeat(
      1, prompts_BT.shape[1] + job['new_tokens'])

  def attempt():
    model(input_ids=rows_BT, labels=rows_BT).loss.backward()
    model.zero_grad(set_to_none=True)
    with torch.inference_mode():
      model.generate(prompts_BT, attention_mask=torch.ones_like(prompts_BT),
                     max_new_tokens=job['new_tokens'], do_sample=False,
                     pad_token_id=0)

  driver.answer(versions=VERSIONS, experts=transformers_worker.choose_experts(
      model, attempt, rows_BT.numel()))
  trainer.train()


def dpo(driver):
  job = driver.job
  model, tokens_BT = transformers_worker.load(job)
  transformers_worker.write_logits(model, tokens_BT, job)
  tokenizer = transformers.AutoTokenizer.from_pretrained(job['checkpoint'])
  text = lambda ids: ' '.join(map(str, ids))
  # Responses end with the end of text, which the trainer adds.
  rows = [dict(prompt=text(prompt), chosen=f' {text(chosen[:-1])}',
               rejected=f' {text(rejected[:-1])}')
          for prompt, chosen, rejected in job['pairs']]
  trainer = trl.DPOTrainer(
      model=model, processing_class=tokenizer,
      args=trl.DPOConfig(
          **settings(job, len(rows)), beta=job['beta'], max_length=None,
          precompute_ref_log_probs=job['precomputed']),
      train_dataset=datasets.Dataset.from_list(rows),
      callbacks=[Steps(driver, lambda: dict(loss=losses.pop()))])
  got = [[row[name] for name in ('prompt_ids', 'chosen_ids', 'rejected_ids')]
         for row in trainer.train_dataset]
  if got != [list(pair) for pair in job['pairs']]:
    raise ValueError('Expected the tokens of the job, got others.')
  losses = kept_losses(trainer)
  driver.answer(versions=VERSIONS)
  trainer.train()


def reward(driver):
  job = driver.job
  torch.set_num_threads(job['threads'])
  model = transformers.AutoModelForSequenceClassification.from_pretrained(
      job['checkpoint'], dtype=torch.float32, num_labels=1,
      attn_implementation='sdpa')
  with torch.no_grad():
    model.score.weight.copy_(torch.tensor(job['head'])[None])
  tokenizer = transformers.AutoTokenizer.from_pretrained(job['checkpoint'])
  rows = [dict(chosen_ids=prompt + chosen, rejected_ids=prompt + rejected)
          for prompt, chosen, rejected in job['pairs']]
  trainer = trl.RewardTrainer(
      model=model, processing_class=tokenizer,
      args=trl.RewardConfig(**settings(job, len(rows)), max_length=None),
      train_dataset=datasets.Dataset.from_list(rows),
      callbacks=[Steps(driver, lambda: dict(loss=losses.pop()))])
  with torch.no_grad():
    model.eval()
    inputs = trainer.data_collator(rows)
    np.save(job['logits'], model(
        input_ids=inputs['input_ids'],
        attention_mask=inputs['attention_mask']).logits[:, 0].numpy())
  losses = kept_losses(trainer)
  driver.answer(versions=VERSIONS)
  trainer.train()


if __name__ == '__main__':
  serving.serve(dict(grpo=grpo, dpo=dpo, reward=reward))
