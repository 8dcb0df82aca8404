"""A server of chat completions that misbehaves as it is told to.

Started as a process of its own; prints its port, and ends with its standard
input. The last message of a request says what to do, as JSON:

  {'say': text, 'first': [trouble, ...], 'seconds': before it does anything}

The n-th attempt at this message meets the n-th trouble, and those after the
last are answered. GET /log tells what has happened.
"""
import collections
import http.server
import json
import sys
import threading
import time

KEY = 'secret-of-the-test'
WRONG = {
    'no_choices': {'object': 'chat.completion'},
    'no_usage': {'choices': [dict(index=0, finish_reason='stop',
                                  message={'content': 'x'})]},
    'null_text': {'choices': [dict(index=0, finish_reason='stop',
                                   message={'content': None})],
                  'usage': dict(prompt_tokens=1, completion_tokens=1)},
    'list': [],
}


class Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'
  attempts = collections.Counter()
  log = []
  running = 0
  lock = threading.Lock()

  def do_GET(self):
    self.send(200, json.dumps(self.log))

  def do_POST(self):
    body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
    content = body['messages'][-1]['content']
    task = {'first': []} | json.loads(content)
    with self.lock:
      Handler.running += 1
      attempt = self.attempts[content]
      self.attempts[content] += 1
      self.log.append(dict(
          body=body, path=self.path, time=time.monotonic(),
          running=self.running,
          has_key=self.headers['Authorization'] == f'Bearer {KEY}'))
    time.sleep(task.get('seconds', 0))
    if attempt < len(task['first']):
      self.trouble(task['first'][attempt])
    else:
      self.send(200, json.dumps(answer(body, task)))
    with self.lock:
      Handler.running -= 1

  def trouble(self, kind):
    status, _, wait = str(kind).partition(':')
    if status.isdigit():
      self.send(int(status), f'trouble with {self.headers["Authorization"]}',
                *([('Retry-After', wait)] if wait else []))
    elif kind == 'garbage':
      self.send(200, '<html>Bad gateway</html>')
    elif kind == 'empty':
      self.send(200, '')
    elif kind == 'hang':
      time.sleep(3)
    elif kind == 'drip':  # a byte now and then, never an end
      self.send_response(200)
      self.send_header('Content-Length', '1000')
      self.end_headers()
      for _ in range(30):
        self.wfile.write(b' ')
        time.sleep(0.1)
    elif kind == 'drop':
      self.close_connection = True
    elif kind == 'cut':
      self.send_response(200)
      self.send_header('Content-Length', '1000')
      self.end_headers()
      self.wfile.write(b'{"choices":')
      self.close_connection = True
    else:
      self.send(200, json.dumps(WRONG[kind]))

  def send(self, status, text, *headers):
    raw = text.encode()
    self.send_response(status)
    for name, value in (*headers, ('Content-Type', 'application/json'),
                        ('Content-Length', str(len(raw)))):
      self.send_header(name, value)
    self.end_headers()
    self.wfile.write(raw)

  def log_message(self, *_):
    pass


def answer(body, task):
  """Samples in reverse order: the index alone says which is which."""
  choices = []
  for i in reversed(range(body['n'])):
    choice = dict(index=i, finish_reason=task.get('finish', 'stop'), message=(
        {'role': 'assistant', 'content': f'{task["say"]} {i}'}))
    if body.get('logprobs'):
      choice['logprobs'] = {'content': [
          {'token': 'a', 'logprob': -0.5}, {'token': 'b', 'logprob': 0}]}
    choices.append(choice)
  return {'choices': choices, 'usage': dict(
      prompt_tokens=100, completion_tokens=10 * body['n'])}


if __name__ == '__main__':
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  server.daemon_threads = True
  print(server.server_address[1], flush=True)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  sys.stdin.read()  # ends with the process that started this one
