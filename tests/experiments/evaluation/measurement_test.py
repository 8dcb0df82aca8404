import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from experiments.evaluation import measurement
from experiments.policy import responses
from rljax.types import RewardResult
from tests.experiments import graded as graded_lib


def ungraded(found, problem):
  found['problems'][problem]['graded'] = 1
  return found


def measure(reward_PG, domains=None, ks=(1, 2), statuses=None):
  graded = graded_lib.make(reward_PG, statuses=statuses)
  records = tuple(graded_lib.record(p, domain) for p, domain in enumerate(
      domains or ['math'] * len(reward_PG)))
  graded = responses.Graded(**vars(graded) | {'records': records})
  return measurement.measure(graded, ks=ks, seed=0, num_examples=1)


class MeasureTest(parameterized.TestCase):

  def test_what_nobody_could_grade_is_neither_right_nor_wrong(self):
    # 1 of 2 graded, and 1 of 4: (1/2 + 1/4) / 2. As wrong: (1/4 + 1/4) / 2.
    found = measure([[1, 0, None, None], [1, 0, 0, 0]])
    np.testing.assert_allclose(found.accuracy.estimate, 3 / 8)
    # pass@2: 1 - C(1, 2) / C(2, 2) = 1, and 1 - C(3, 2) / C(4, 2) = 1/2.
    np.testing.assert_allclose(found.pass_at_k[1]['estimate'], 0.75)
    self.assertEqual((found.num_problems, found.ungraded), (2, 0))
    as_wrong = measure([[1, 0, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_allclose(as_wrong.accuracy.estimate, 1 / 4)

  @parameterized.parameters(([None] * 4,), ([1, None, None, None],))
  def test_a_problem_with_too_few_graded_samples_is_left_out_and_counted(
      self, spoilt_G):
    found = measure([[1, 0, 0, 0], spoilt_G, [1, 1, 1, 0]])
    self.assertEqual((found.num_problems, found.ungraded), (2, 1))
    self.assertEqual(found.accuracy, measure(
        [[1, 0, 0, 0], [1, 1, 1, 0]]).accuracy)
    self.assertLen(found.problems, 3)  # still there, to be paired with

  def test_the_entropy_is_of_all_responses_graded_or_not(self):
    whole = measure([[1, 0], [0, 1], [1, 1]])
    spoilt = measure([[1, 0], [None, None], [1, 1]])
    self.assertEqual(whole.entropy, spoilt.entropy)

  def test_too_little_that_could_be_graded_is_an_error(self):
    with self.assertRaisesRegex(
        ValueError, "two problems with 2 samples.*got 1 of 2.*'infra_error'"):
      measure([[1, 0], [None, 0]],
              statuses=['ok', 'wrong', 'infra_error', 'wrong'])

  def test_a_domain_with_one_problem_says_nothing_of_the_others(self):
    found = measure([[1, 0], [1, 1], [0, 1]], ['math', 'math', 'code'])
    alone = found.by_domain['code']
    self.assertEqual((alone.estimate, alone.low, alone.high), (0.5, 0, 1))
    self.assertGreater(found.by_domain['math'].low, 0)

  def test_a_domain_that_nobody_could_grade_has_no_accuracy(self):
    found = measure([[1, 0], [1, 1], [None, 1]], ['math', 'math', 'code'])
    self.assertIsNone(found.by_domain['code'])

  def test_the_counts_give_the_scores_again(self):
    found = measure([[1, 0, None], [1, 1, 0], [None, None, 1]])
    self.assertEqual(found.problems, [
        dict(id='r0', domain='math', graded=2, correct=1, samples='10-'),
        dict(id='r1', domain='math', graded=3, correct=2, samples='110'),
        dict(id='r2', domain='math', graded=1, correct=1, samples='--1')])
    np.testing.assert_allclose(measurement.scores(found.problems, 1, 2),
                               [1 / 2, 2 / 3, np.nan])
    np.testing.assert_allclose(measurement.scores(found.problems, 2, 2),
                               [1, 1, np.nan])


class BehaviourTest(absltest.TestCase):

  def graded(self, extracted, records=None):
    """Right, wrong, right, not graded; of 2, 6, 4 and 9 tokens."""
    made = graded_lib.make([[1, 0], [1, None]], [[2, 6], [4, 9]], [
        'ok', 'wrong', 'ok', 'infra_error'])
    results = tuple(dataclasses.replace(r, extracted=e)
                    for r, e in zip(made.results, extracted, strict=True))
    stopped_PG = np.array([[True, False], [True, False]])
    return dataclasses.replace(
        made, results=results, records=records or made.records,
        rollout=dataclasses.replace(made.rollout, stopped_PG=stopped_PG))

  def test_right_and_wrong_apart_by_hand(self):
    found = measurement.behaviour(self.graded(['a', None, 'a', 'b']))
    self.assertEqual(found, dict(
        tokens_right=3.0, truncated_right=0.0, tokens_wrong=6.0,
        truncated_wrong=1.0, distinct_answers=1.5, unparsable=0.0, timeout=0.0,
        crashed=0.0))

  def test_none_of_a_kind(self):
    found = measurement.behaviour(graded_lib.make([[1, 1]]))
    self.assertIsNone(found['tokens_wrong'])

  def test_letters_of_multiple_choice_alone(self):
    first, second = graded_lib.record(0), graded_lib.record(1)
    graded = self.graded(['D', None, '7', '8'], (
        first | {'verifier': 'choice'}, second))
    self.assertEqual(measurement.letters(graded), {'D': 1, 'none': 1})

  def test_all_of_k_and_most_of_k(self):
    # 3 of 4 right: pairs all right 3/6; of one problem none is.
    found = measure([[1, 1, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(
        [p['estimate'] for p in found.pass_hat_k], [3 / 8, 1 / 4])
    # k = 2: more than half of two is two.
    self.assertEqual([p['k'] for p in found.mg_pass_at_k], [2])
    np.testing.assert_allclose(found.mg_pass_at_k[0]['estimate'], 1 / 4)


class MajorityTest(absltest.TestCase):

  def graded(self, answers_PG, valid_PG):
    """Answer 'a' is right."""
    graded = graded_lib.make([[1] * len(row) for row in answers_PG])
    results = tuple(RewardResult(a == 'a', float(a == 'a'), 'ok', a, 0.0)
                    for row in answers_PG for a in row)
    correct = np.array([r.is_correct for r in results])
    return responses.Graded(**vars(graded) | dict(
        results=results, valid_PG=np.array(valid_PG),
        correct_PG=correct.reshape(np.shape(valid_PG))))

  def test_ungraded_votes_are_not_cast(self):
    graded = self.graded(['aabbb', 'abbbb'],
                         [[True] * 3 + [False] * 2, [True] * 5])
    # a a b of three: right. a b b b b, any three of them: wrong.
    np.testing.assert_allclose(measurement.majority(graded, 3, seed=0), [1, 0])

  def test_what_the_verifier_accepts_is_one_class_whatever_its_form(self):
    answer = lambda correct, text: RewardResult(
        correct, float(correct), 'ok', text, 0.0)
    graded = graded_lib.make([[1, 1, 0, 0, 0]])
    graded = responses.Graded(**vars(graded) | {'results': (
        answer(True, '1/2'), answer(True, '0.5'), answer(False, '2'),
        answer(False, None), answer(False, '2'))})
    np.testing.assert_array_equal(measurement.answer_classes(graded),
                                  [[0, 0, 1, -1, 1]])

  def test_two_forms_of_a_wrong_number_are_one_class(self):
    forms = ['1/2', '0.5', r'$\frac{1}{2}$', r'\dfrac{1}{2}', '.5', 'a',
             '1,000', '1000', '1/0', '1e999999999', 'Half', ' Half. ', 'half',
             '1,2', '12']
    graded = self.graded([forms], [[True] * len(forms)])
    np.testing.assert_array_equal(
        measurement.answer_classes(graded),
        [[0, 0, 0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9]])

  def test_wrong_votes_of_one_value_add_up(self):
    # By text 'a' and the others would tie, and a third of the votes be right.
    graded = self.graded([['1/2', '0.5', 'a']] * 2, [[True] * 3] * 2)
    np.testing.assert_array_equal(measurement.majority(graded, 3, seed=0), 0)


class SummaryTest(absltest.TestCase):

  def test_seeds_are_averaged_and_problems_resampled(self):
    # Problem means over the two seeds: (0 + 1) / 2, (1 + 1) / 2 -> 0.75.
    found = measurement.summary([graded_lib.result([0, 4], entropy=0.2),
                                 graded_lib.result([4, 4], entropy=0.6)])
    np.testing.assert_allclose(found['accuracy'], 0.75)
    np.testing.assert_allclose(found['interval'].estimate, 0.75)
    self.assertBetween(found['interval'].low, 0.5, 0.75)
    np.testing.assert_allclose(found['entropy'], 0.4)
    np.testing.assert_allclose(found['response_length'], 30)
    self.assertEqual((found['num_problems'], found['ungraded']), (2, 0))

  def test_pass_at_k_is_averaged_over_seeds_before_it_is_resampled(self):
    # pass@2 of 1 in 4: 1 - C(3, 2) / C(4, 2) = 1/2; seeds (1/2 + 1) / 2.
    seeds = [graded_lib.result([1, 1]), graded_lib.result([4, 4])]
    point = measurement.summary(seeds)['pass_at_k'][1]
    # Both problems are alike: the mean of two bars would not be empty.
    np.testing.assert_allclose(
        [point[name] for name in ('estimate', 'low', 'high')], 0.75)

  def test_a_problem_that_one_seed_left_out_counts_in_none(self):
    found = measurement.summary([
        graded_lib.result([0, 4, 4]),
        ungraded(graded_lib.result([4, 4, 1]), problem=2)])
    np.testing.assert_allclose(found['accuracy'], 0.75)
    self.assertEqual((found['num_problems'], found['ungraded']), (2, 1))

  def test_each_domain_has_an_interval_of_its_own(self):
    found = measurement.summary([
        graded_lib.result([0, 4, 2], domains=list('aab'))])
    np.testing.assert_allclose(found['by_domain']['a'].estimate, 0.5)
    alone = found['by_domain']['b']
    self.assertEqual((alone.low, alone.high), (0, 1))
    np.testing.assert_allclose(alone.estimate, 0.5)


class DifferenceTest(absltest.TestCase):

  def test_the_gain_is_paired(self):
    # Problems differ by far more than the stage changes any of them.
    found = measurement.difference([graded_lib.result([0, 1, 2, 3])],
                                   [graded_lib.result([1, 2, 3, 4])]).interval
    np.testing.assert_allclose([found.low, found.high], 0.25)

  def test_what_a_checkpoint_was_not_graded_on_is_not_compared(self):
    found = measurement.difference(
        [graded_lib.result([0, 0, 4])],
        [ungraded(graded_lib.result([4, 4, 0]), problem=2)])
    np.testing.assert_allclose(found.interval.estimate, 1)


if __name__ == '__main__':
  absltest.main()
