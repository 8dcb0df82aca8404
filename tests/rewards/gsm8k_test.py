"""Numbers of GSM8K answers, one case for each bug users reported."""
from absl.testing import absltest
from absl.testing import parameterized

from rljax.rewards import gsm8k


class Gsm8kTest(parameterized.TestCase):

  @parameterized.parameters(
      ('#### 72.', '72'),
      ('#### 1,234', '1234'),
      ('#### $72', '72'),
      ('####72', '72'),
      ('#### -3', '-3'),
      ('The total is 72 clips, altogether.', '72'),
      ('#### ,', None),
      ('####', None),
      ('The answer is 5. ####', None),   # no stray number instead
      ('#### 29.00', '29.00'),
      ('#### -$5', '-5'),
      ('#### $-5', '-5'),
      ('#### \u22125', '-5'),
      ('#### 50%', '50'),
      (r'#### \$1,000.50', '1000.50'),
      ('#### 72 clips for 3 days', '72'),
      ('so 5-3', '3'),                   # an operation, not minus three
      ('so it is -3', '-3'),
      (r'\boxed{72}', '72'),
      (r'\boxed{3 \times 24 = 72}', '72'),
      (r'\boxed{\frac{144}{2}}', None),  # two numbers: do not guess
      (r'\boxed{}', None),
      (r'1 \boxed{2} 3', '2'),
      ('<think>#### 5', None),
      ('<think>#### 5</think>#### 6', '6'),
      ('no number', None),
      ('', None),
  )
  def test_extract(self, text, expected):
    self.assertEqual(gsm8k.extract(text), expected)

  def test_run_on_text_is_read_up_to_the_first_marker_if_asked(self):
    text = '6*12\n#### 72\nQuestion: next one\n#### 5'
    self.assertEqual(gsm8k.extract(text), '5')
    self.assertEqual(gsm8k.extract(text, first_marker=True), '72')

  @parameterized.parameters(
      ('29', '#### 29.00', 'ok'), ('1234', '#### 1,234', 'ok'),
      ('She has 6*12=72.\n#### 72', '#### 72', 'ok'),
      ('-3', '#### 3', 'wrong'), ('72', '#### 72.5', 'wrong'),
      ('72', '', 'unparsable'), ('many', '#### 72', 'bad_gold'),
      ('0.1', '#### 0.10000000000000000001', 'wrong'))
  def test_judge(self, gold, text, status):
    judgement = gsm8k.judge(record={'answer': gold}, text=text)
    self.assertEqual(judgement.status, status)

  def test_gigantic_number_is_only_wrong(self):
    judgement = gsm8k.judge(record={'answer': '1'}, text='#### ' + '9' * 10_000)
    self.assertEqual(judgement.status, 'wrong')

  @parameterized.parameters(('72', 'ok'), ('#### 1,000', 'ok'),
                            ('', 'bad_gold'), ('1 or 2', 'bad_gold'))
  def test_check_gold(self, gold, status):
    self.assertEqual(gsm8k.check_gold({'answer': gold}).status, status)


if __name__ == '__main__':
  absltest.main()
