"""One process by itself; what several do is in end_to_end/processes_test.py."""
import os
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from rljax import processes


class SettingsTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.enter_context(mock.patch.dict(os.environ))
    for name in ('COORDINATOR_ADDRESS', 'NUM_PROCESSES', 'PROCESS_ID'):
      os.environ.pop(f'JAX_{name}', None)

  def test_nothing_given_is_a_process_by_itself(self):
    self.assertIsNone(processes.settings())

  def test_flags_come_before_the_environment(self):
    os.environ.update(JAX_COORDINATOR_ADDRESS='a:1', JAX_NUM_PROCESSES='4',
                      JAX_PROCESS_ID='3')
    found = processes.settings(process_id=2)
    self.assertEqual(
        (found['coordinator_address'], found['num_processes'],
         found['process_id']), ('a:1', 4, 2))

  def test_auto_leaves_all_of_it_to_jax(self):
    self.assertEqual(processes.settings('auto'), {})

  @parameterized.parameters(
      (dict(coordinator='a:1'), 'no num_processes and no process_id'),
      (dict(coordinator='a:1', num_processes=2), 'JAX_PROCESS_ID'),
      (dict(num_processes=2, process_id=0), 'no coordinator'),
      (dict(coordinator='auto', process_id=0), 'auto alone'),
      (dict(coordinator='a:1', num_processes=2, process_id=2), 'got 2 and 2'),
      (dict(coordinator='a:1', num_processes=2, process_id=-1), 'got -1'))
  def test_what_cannot_be_meant_is_refused(self, given, message):
    with self.assertRaisesRegex(ValueError, message):
      processes.settings(**given)

  def test_an_environment_without_numbers_is_refused(self):
    os.environ['JAX_PROCESS_ID'] = 'first'
    with self.assertRaisesRegex(ValueError, "Expected numbers.*'first'"):
      processes.settings('a:1', 2)


class SharesTest(parameterized.TestCase):

  @parameterized.parameters((7, 3), (6, 3), (2, 3), (0, 2), (5, 1))
  def test_the_parts_of_all_are_the_whole_in_order(self, size, count):
    items = list(range(size))
    with mock.patch.object(processes.jax, 'process_count', lambda: count):
      parts = []
      for index in range(count):
        with mock.patch.object(processes.jax, 'process_index',
                               return_value=index):
          parts.append(processes.own(items))
    with mock.patch.object(processes, 'gather', lambda _: parts):
      self.assertEqual(processes.gather_own(parts[0]), items)
    # In another order they are not: the interleaving is what the test sees.
    if 1 < count < size:
      self.assertNotEqual(sum(parts, []), items)

  def test_one_process_has_everything_as_it_is(self):
    items = [np.arange(3), {'a': 'ü'}]
    self.assertIs(processes.gather_own(processes.own(items))[0], items[0])
    self.assertFalse(processes.anyone(False))
    self.assertTrue(processes.anyone(True))


class CheckSameTest(absltest.TestCase):

  def test_a_difference_names_the_entry_and_the_process(self):
    everyone = [{'seed': 0, 'lr': 1.0}, {'seed': 0, 'lr': 1.0},
                {'seed': 5, 'lr': 1.0}]
    with mock.patch.object(processes, 'gather', lambda _: everyone):
      with self.assertRaisesRegex(
          ValueError, r'same run in all 3.*\n  seed: process 0 0, process 2 5'):
        processes.check_same('run', everyone[0])

  def test_equal_values_pass(self):
    with mock.patch.object(processes, 'gather', lambda v: [v, dict(v)]):
      processes.check_same('run', {'seed': 0})


class OrderTest(parameterized.TestCase):

  @parameterized.parameters(
      ({}, ''), ({'XLA_FLAGS': '--xla_dump_to=x'}, '--xla_dump_to=x'),
      ({'JAX_NUM_CPU_DEVICES': '4'}, processes._IN_ORDER + ' '),
      ({'XLA_FLAGS': '--xla_force_host_platform_device_count=8'},
       f'{processes._IN_ORDER} --xla_force_host_platform_device_count=8'))
  def test_only_simulated_devices_get_the_flag(self, environment, want):
    with mock.patch.dict(os.environ, environment, clear=True):
      processes.keep_collectives_in_order()
      self.assertEqual(os.environ.get('XLA_FLAGS', ''), want)


class SettleTest(absltest.TestCase):

  def test_what_another_thread_has_let_go_of_is_not_waited_for(self):
    gone, fails = jnp.ones(3), mock.Mock()
    gone.delete()
    fails.is_deleted.return_value = False
    fails.block_until_ready.side_effect = RuntimeError('a link is down')
    with mock.patch.object(jax, 'process_count', lambda: 2):
      with self.assertRaisesRegex(RuntimeError, 'deleted'):
        processes.settle([gone])
      processes.settle_all([gone, jnp.ones(3)])
      with self.assertRaisesRegex(RuntimeError, 'a link is down'):
        processes.settle_all([gone, fails])


if __name__ == '__main__':
  absltest.main()
