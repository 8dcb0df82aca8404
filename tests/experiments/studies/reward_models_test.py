"""The plan of the study of reward models as rewards, and its truth."""
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
import numpy as np
import pytest

from experiments.studies import outcome
from experiments.studies import reward_models
from experiments.studies import toy_judges
from tests.packing import rollouts


def drawn(*texts, stopped=True):
  """A rollout of one prompt with these responses, each with its stop token."""
  tokens_PGT = np.zeros((1, len(texts), 12), np.int32)
  for g, text in enumerate(texts):
    tokens_PGT[0, g, :len(text) + 1] = [*text.encode(), 258]
  made = rollouts.make_rollout([[len(text) + 1 for text in texts]], [3], 12)
  object.__setattr__(made, 'tokens_PGT', tokens_PGT)
  object.__setattr__(made, 'stopped_PG', np.full((1, len(texts)), stopped))
  return made


class PlanTest(absltest.TestCase):

  def test_five_seeds_and_claims_about_all_arms(self):
    plan = reward_models.plan(reward_models.Sizes())
    self.assertGreaterEqual(len(plan.seeds), 5)
    self.assertEqual({claim.arm for claim in plan.claims}
                     | {claim.than for claim in plan.claims} - {None},
                     set(reward_models.ARMS))

  def test_truth_is_the_share_of_the_letter_in_words_of_five(self):
    words = toy_judges.Words()
    texts, true_PG, right_PG = reward_models.read(
        words, drawn('aabca', 'aaaaaaa', 'bcdef', ''))
    self.assertEqual(texts, ['aabca', 'aaaaaaa', 'bcdef', ''])
    np.testing.assert_allclose(true_PG, [[0.6, 0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(right_PG, [[True, False, True, False]])
    _, true_PG, _ = reward_models.read(words, drawn('aaaaa', stopped=False))
    np.testing.assert_array_equal(true_PG, [[0.0]])

  def test_what_is_lost_is_lost_after_the_best(self):
    truth = [0.1] * 5 + [0.9] * 5 + [0.4] * 5
    done = dict(truth=truth, reward=[0.0] * 5 + [1.0] * 10,
                right_length=[1.0] * 15)
    found = {name: reward_models.measure(name, done) for name in (
        'truth gained', 'truth at the end', 'lost after the best step',
        'reward gained', 'words of the right length')}
    np.testing.assert_allclose(list(found.values()), [0.3, 0.4, 0.5, 1.0, 1.0])


@pytest.mark.slow
class StudyTest(absltest.TestCase):

  def test_it_runs_and_goes_on_where_it_was(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    first = reward_models.run(True, folder)
    with mock.patch.object(reward_models, 'one_run') as again:
      second = reward_models.run(True, folder)
    again.assert_not_called()
    self.assertEqual(first['arms'], second['arms'])
    outcome.write(second, folder)


if __name__ == '__main__':
  absltest.main()
