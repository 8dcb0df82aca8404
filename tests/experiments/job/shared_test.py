"""Runs of one process share what is made alike, and nothing else."""
import contextlib

from absl.testing import absltest
from absl.testing import parameterized

from configs import common
from experiments.job import shared as sharing


class SharedTest(parameterized.TestCase):

  def test_a_thing_is_made_once_for_equal_parts_and_closed_at_the_end(self):
    events = []

    @contextlib.contextmanager
    def pool():
      events.append('open')
      yield len(events)
      events.append('closed')

    with sharing.Shared() as shared:
      first = shared('pool', {'workers': 2, 'of': (1, 2)}, pool)
      self.assertEqual(shared('pool', {'of': [1, 2], 'workers': 2}, pool),
                       first)
      self.assertNotEqual(shared('pool', {'workers': 3}, pool), first)
      self.assertNotEqual(shared('other', {'workers': 3}, pool), first)
      self.assertEqual(events, ['open'] * 3)
    self.assertEqual(events, ['open'] * 3 + ['closed'] * 3)

  @parameterized.parameters(
      ('seed', 7, True), ('num_steps', 9, True),
      ('init.checkpoint', 'elsewhere', True),
      ('optimizer.learning_rate', 0.5, False), ('loss.clip_eps', 0.3, False),
      ('rollout.temperature', 0.5, False), ('model.top_k', 1, False),
      ('routing_replay', 'rollout', False))
  def test_what_is_compiled_anew(self, name, value, same):
    config, other = common.policy(), common.policy()
    for one in (config, other):
      one.update(model=dict(top_k=2), rollout=common.untouched(), num_steps=1)
    *section, last = name.split('.')
    setattr(other[section[0]] if section else other, last, value)
    self.assertEqual(
        sharing.compiled(config) == sharing.compiled(other), same)


if __name__ == '__main__':
  absltest.main()
