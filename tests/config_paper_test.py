"""The configs at full size say what the paper says."""
from absl.testing import absltest

from rljax import models
from rljax.models import transformer
from tests import configs_test


class PaperTest(absltest.TestCase):
  """Ring-lite specification, §2.5 and §2.6."""

  def config(self, arg=''):
    return configs_test.module('configs/policy/ring_lite_paper.py').get_config(
        arg)

  def test_hyper_parameters_that_the_paper_gives(self):
    config = self.config()
    self.assertEqual(config.data.prompts_per_step, 512)
    self.assertEqual(config.rollout.samples_per_prompt, 16)
    self.assertEqual(config.packing.select.token_budget, 409_600)
    self.assertEqual(config.loss.to_dict(),
                     dict(name='c3po', clip_eps=0.2, kl_coef=1e-3))
    self.assertEqual(
        config.regularize.to_dict(),
        dict(entropy_coef=5e-4, balance_coef=1e-5, z_coef=1e-7))
    self.assertEqual(
        (config.optimizer.name, config.optimizer.learning_rate,
         config.optimizer.schedule.name), ('adamw', 3e-6, 'constant'))
    self.assertEqual(config.rollout.temperature, 1.0)

  def test_lengths_of_the_stages_and_readings_of_the_budget(self):
    total = lambda c: c.rollout.max_prompt_length + c.rollout.max_new_tokens
    for arg, ranks in (('per_data_rank', 256), ('global', 1)):
      first, second = self.config(arg), self.config(f'{arg}_stage_2')
      self.assertEqual((total(first), total(second)), (24_576, 32_768))
      select = first.packing.select
      self.assertEqual(select.budget_scope, arg)
      # 256 · 409,600 = 104,857,600 tokens, or 409,600.
      budget = select.token_budget * (
          select.num_ranks if arg == 'per_data_rank' else 1)
      self.assertEqual(budget, 409_600 * ranks)

  def test_the_model_is_the_paper_s_to_the_last_parameter(self):
    model = models.create(**self.config().model)
    self.assertEqual(transformer.count_params(model),
                     (16_801_974_272, 2_753_153_024))

  def test_distillation(self):
    config = configs_test.module(
        'configs/supervised/ring_lite_paper.py').get_config()
    self.assertEqual(config.optimizer.learning_rate, 3e-4)
    self.assertEqual(config.optimizer.weight_decay, 0.1)
    self.assertEqual(config.optimizer.schedule.name, 'cosine')
    self.assertEqual(config.optimizer.schedule.warmup_steps,
                     config.num_steps // 100)
    self.assertEqual(config.data.examples_per_step, 256)
    self.assertEqual(config.packing.row_length, 32_768)


if __name__ == '__main__':
  absltest.main()
