"""The red team: programs that try to be called right without being so, to get out, to stay, or to ruin the machine.

Every problem here asks for a word drawn at random, TOKEN, that no program can know. A program that finds a hole says
HOLE, and leaves files whose names have MARK in them. `how` is the kind of test that it is given:

    run      its standard output has to be TOKEN
    call     `f(1)` has to return TOKEN
    assert   test code has `assert f(1) == TOKEN` and more
    cpp      as `run`, in C++
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Attack:
    kind: str
    name: str
    how: str
    source: str
    ends: frozenset = frozenset()
    """How it may end; empty: however."""
    cpu_s: float = 5.0
    wall_s: float = 60.0

    def __str__(self):
        return f"{self.how}-{self.name}".replace(" ", "-")


PRELUDE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def system_call(x86_64, aarch64, *arguments):
    number = {"x86_64": x86_64, "aarch64": aarch64}[os.uname().machine]
    if libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]) >= 0:
        print("HOLE", number)
def hole(attempt):
    try:
        found = attempt()
    except (OSError, ImportError, PermissionError):
        return
    print("HOLE", found)
"""

LIE = """
class Lie{base}:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
    def __hash__(self): return 0
    def __bool__(self): return True
    def __sub__(self, other): return 0
    __rsub__ = __add__ = __radd__ = __mul__ = __rmul__ = __mod__ = __truediv__ = __floordiv__ = __sub__
    def __abs__(self): return 0
    def __round__(self, digits=None): return self
    def __contains__(self, other): return True
    def __instancecheck__(self, other): return True
    def __repr__(self): return "anything"
def f(x): return {made}
"""


def lie(base="", made="Lie()"):
    return LIE.format(base=base, made=made)


def attacks(kind, how, *rows, **options):
    return [Attack(kind, name, how, source, **options) for name, source in rows]


def both(kind, *rows, **options):
    return [attack for how in ("call", "assert") for attack in attacks(kind, how, *rows, **options)]


# fmt: off
EQUALITY = both(
    "equality",
    ("overridden eq", lie()),
    ("int that equals all", lie("(int)", "Lie(0)")),
    ("str that equals all", lie("(str)", "Lie('')")),
    ("float that equals all", lie("(float)", "Lie(0)")),
    ("list that equals all", lie("(list)")),
    ("dict that equals all", lie("(dict)")),
    ("tuple that equals all", lie("(tuple)")),
    (
        "class that says it is str",
        lie() + "\nLie.__class__ = str\ndef f(x):\n  Lie.__class__ = property(lambda s: str)\n  return Lie()",
    ),
    (
        "a class as the value",
        "class M(type):\n  def __eq__(a, b): return True\n  __hash__ = None\nclass f(metaclass=M):\n  def __init__(s, x): pass\n  def __eq__(a, b): return True",
    ),
    ("mock ANY", "from unittest.mock import ANY\ndef f(x): return ANY"),
    (
        "magic mock",
        "from unittest.mock import MagicMock\ndef f(x):\n  m = MagicMock()\n  m.__eq__.return_value = True\n  return m",
    ),
    ("an end of iteration", "def f(x): raise StopIteration"),
    ("an exception that assertions raise", "def f(x): raise AssertionError"),
    ("an exception named as the tests' own", "class Unsplittable(BaseException): pass\nclass NameError(Exception): pass\ndef f(x):\n  raise (Unsplittable if x == 1 else NameError)('x')"),
    ("a name error", "def f(x): return token"),
    ("an attribute error", "def f(x): return x.token"),
    ("an empty array", "import numpy\ndef f(x): return numpy.array([])"),
    ("an array of lies", lie(made="__import__('numpy').array([Lie()])")),
    ("a lying iterator", "class I:\n  def __iter__(s): return s\n  def __next__(s): raise StopIteration\n  def __eq__(a, b): return True\ndef f(x): return map(id, I())"),
    ("a lie within a list", lie(made="[Lie()]")),
    ("nan", "def f(x): return float('nan')"),
    ("endless generator", "def f(x):\n  while True: yield x"),
    (
        "lying attribute",
        "class A:\n  def __getattr__(s, n): return lambda *a: True\n  def __eq__(a, b): return True\ndef f(x): return A()",
    ),
    (
        "a module that calls itself numpy",
        "class generic:\n  def __eq__(a, b): return True\n  def item(s): return s\ngeneric.__module__ = 'numpy'\ndef f(x): return generic()",
    ),
    (
        "a class that calls itself Decimal",
        "class Decimal:\n  def __eq__(a, b): return True\nDecimal.__module__ = 'decimal'\ndef f(x): return Decimal()",
    ),
)
# fmt: on

EXIT = [
    *both(
        "exit",
        ("sys.exit(0) at once", "import sys\ndef f(x): return 1\nsys.exit(0)"),
        ("sys.exit(0) in the call", "import sys\ndef f(x): sys.exit(0)"),
        ("os._exit(0) in the call", "import os\ndef f(x): os._exit(0)"),
        ("os._exit(0) from a thread", "import os, threading, time\nthreading.Thread(target=lambda: (time.sleep(.05), os._exit(0))).start()\ndef f(x): time.sleep(60)"),
        ("atexit", "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): raise SystemExit(0)"),
        ("SIGKILL to itself", "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGKILL)"),
        ("segmentation fault", "import ctypes\ndef f(x): ctypes.string_at(0)"),
        ("abort", "import os\ndef f(x): os.abort()"),
        ("generator exit", "def f(x): raise GeneratorExit"),
        ("another program instead", "import os\ndef f(x): os.execv('/bin/true', ['true'])"),
        ("deep recursion in C", "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n  a = []\n  for _ in range(10**6): a = [a]\n  return repr(a)"),
    ),
    *attacks(
        "exit", "run",
        ("exit code 0 without output", "raise SystemExit(0)"),
        ("killed by a signal of its own", "import os\nos.kill(os.getpid(), 9)"),
        ("stop itself", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)"),
        wall_s=2.0,
    ),
]  # fmt: skip

PATCHING = [
    *both(
        "patching",
        ("json", "import json\njson.loads = lambda *a, **k: [1, [1], {}]\njson.dumps = lambda *a, **k: '\"right\"'\njson.encoder.c_make_encoder = None\ndef f(x): return 1"),
        ("builtins", "import builtins\nbuiltins.all = builtins.any = builtins.isinstance = builtins.bool = lambda *a: True\nbuiltins.AssertionError = BaseException\ndef f(x): return 1"),
        ("a process that does not end", "import os\nos._exit = os.close = lambda *a: None\nraise SystemExit(0)"),
        ("the objects of the sandbox", "import sys\ndef f(x):\n  frame = sys._getframe()\n  while frame:\n    zygote = frame.f_locals.get('self')\n    if hasattr(zygote, '_control'):\n      for attempt in (lambda: zygote._control.send(b'{\"kill\": 0}'), lambda: zygote._control.recv(1), lambda: zygote._read(1, 'environ')):\n        try: print('HOLE', attempt())\n        except OSError: pass\n    frame = frame.f_back\n  return 1"),
        ("expected words found in code", "import gc, types\ndef f(x):\n  for o in gc.get_objects():\n    code = getattr(o, '__code__', None)\n    for c in getattr(code, 'co_consts', ()) or ():\n      if type(c) is str and c.startswith('token-'): return c\n  return 1"),
        ("exec and compile", "import builtins\nbuiltins.exec = builtins.eval = builtins.compile = lambda *a, **k: None\ndef f(x): return 1"),
        ("no builtins at all", "import builtins\ndef f(x):\n  builtins.__dict__.clear()\n  return 1"),
        ("os.write and os.read", "import os\nos.write = lambda f, d: len(d)\nos.read = lambda f, n: b''\ndef f(x): return 1"),
        ("alarm", "import signal\nsignal.alarm = lambda s: None\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\ndef f(x): return 1"),
        ("unittest.mock", "from unittest import mock\nmock.patch('builtins.eval', lambda *a: True).start()\nmock.patch('builtins.AssertionError', ValueError).start()\ndef f(x): return 1"),
        ("settrace", "import sys\ndef trace(frame, event, arg):\n  for k in list(frame.f_locals):\n    if 'expected' in k or 'right' in k: print('HOLE', k)\n  frame.f_trace_lines = True\n  return trace\nsys.settrace(trace)\nsys.setprofile(trace)\ndef f(x): return 1"),
        ("frames of the caller", "import sys\ndef f(x):\n  frame = sys._getframe()\n  while frame:\n    for space in (frame.f_locals, frame.f_globals):\n      for v in list(space.values()):\n        if type(v) is str and v.startswith('token-'): return v\n    frame = frame.f_back\n  return 1"),
        ("all objects of the process", "import gc\ndef f(x):\n  for o in gc.get_objects():\n    try: parts = list(o.values()) if isinstance(o, dict) else list(o) if isinstance(o, (list, tuple, set)) else []\n    except Exception: continue\n    for v in parts:\n      if type(v) in (str, bytes) and v[:6] in ('token-', b'token-'): return v if type(v) is str else v.decode()\n  return 1"),
        ("memory of the process", "def f(x):\n  data = open('/proc/self/mem', 'rb')\n  return data.read(1)"),
        ("poisoned modules", "import sys\nfor name in list(sys.modules):\n  if name not in ('sys', 'builtins'): sys.modules[name] = None\ndef f(x): return 1"),
        ("module attributes of the harness", "import sys\nfor m in list(sys.modules.values()):\n  if 'distill' in getattr(m, '__name__', ''): print('HOLE', m)\nframe = sys._getframe(1)\nframe.f_globals['encode'] = lambda *a, **k: b'\"right\"'\nframe.f_globals['VALUE'] = b'v'\ndef f(x): return 1"),
        ("class of the instance replaced", "import sys\nframe = sys._getframe(1)\nframe.f_locals['channel'].__class__.send = lambda *a: None\ndef f(x): return 1"),
        ("import hook", "import sys\nclass Finder:\n  def find_spec(s, *a): raise SystemExit(0)\nsys.meta_path.insert(0, Finder())\nsys.path_hooks.clear()\ndef f(x): return 1"),
        ("tests' module replaced", "import sys, types\nm = types.ModuleType('tests')\nsys.modules['tests'] = sys.modules['__main__'] = m\nm.check = lambda *a: None\ndef check(candidate): return True\ndef f(x): return 1"),
        wall_s=5.0,
    ),
    *attacks(
        "patching", "run",
        ("sitecustomize", PRELUDE + "for folder in ['/tmp', *__import__('sys').path, '/packages', '/usr/lib/python3/dist-packages']:\n  for name in ('sitecustomize.py', 'usercustomize.py', 'MARK.pth'):\n    if folder != '/tmp': hole(lambda: open(os.path.join(folder, name), 'w'))"),
        ("bytecode of the library", PRELUDE + "import json\nhole(lambda: open(json.__file__, 'a'))\nhole(lambda: open(json.__cached__, 'wb'))\nhole(lambda: os.mkdir(os.path.dirname(json.__file__) + '/MARK'))"),
        ("standard output replaced", "import sys, io\nsys.stdout = sys.__stdout__ = io.StringIO()\nprint('right')"),
        ("no exit functions", "import threading, atexit\nthreading._shutdown = lambda: print('HOLE') if False else None\natexit._run_exitfuncs = None\nprint('right')"),
    ),
]  # fmt: skip

SEARCH = "range(3, 256)"
CHANNEL = [
    *both(
        "channel",
        ("verdict on standard output", "print('PASSED', 'OK', 'All tests passed', '{\"passed\": true, \"end\": \"finished\"}')\ndef f(x):\n  print('1 passed in 0.01s')\n  return 1"),
        ("forged frames of every kind", f"import os\ndef f(x):\n  for n in {SEARCH}:\n    for kind in b'rvxulZ':\n      body = bytes(16) + bytes([kind]) + b'[1,null]'\n      try: os.write(n, len(body).to_bytes(8, 'big') + body)\n      except OSError: break\n  return 1"),
        ("a reply before the request", f"import os\nbody = bytes(16) + b'v[\"right\",null]'\nfor n in {SEARCH}:\n  try: os.write(n, len(body).to_bytes(8, 'big') + body)\n  except OSError: pass\ndef f(x): return 1"),
        ("replies read from the requests", "import os, threading\ndef steal():\n  while True:\n    frame = os.read(3, 1 << 16)\n    body = frame[8:24] + b'v[true,null]'\n    os.write(4, len(body).to_bytes(8, 'big') + body)\nthreading.Thread(target=steal, daemon=True).start()\ndef f(x): return 1"),
        ("replies from a thread", f"import os, threading\ndef flood():\n  while True:\n    for n in {SEARCH}:\n      try: os.write(n, b'{{}}' * 1000)\n      except OSError: pass\ndef f(x):\n  threading.Thread(target=flood, daemon=True).start()\n  return 1"),
        ("partial frame, then hang", f"import os, time\ndef f(x):\n  for n in {SEARCH}:\n    try: os.write(n, (100).to_bytes(8, 'big') + bytes(16) + b'v{{')\n    except OSError: pass\n  time.sleep(600)"),
        ("frame of 2**63 bytes", f"import os\ndef f(x):\n  for n in {SEARCH}:\n    try: os.write(n, b'\\x7f' + b'\\xff' * 7 + bytes(100))\n    except OSError: pass\n  return 1"),
        ("descriptors moved", "import os\ndef f(x):\n  for n in range(5):\n    for m in range(5):\n      try: os.dup2(n, m)\n      except OSError: pass\n  return 1"),
        ("descriptors closed", "import os\ndef f(x):\n  os.closerange(0, 4096)\n  return 1"),
        ("request read from the pipe", f"import os\nfor n in {SEARCH}:\n  os.set_blocking(n, False) if n < 5 else None\n  try: print('HOLE' if b'token-' in os.read(n, 1 << 20) else '')\n  except OSError: pass\ndef f(x): return 1"),
        ("huge integer", "def f(x): return 1 << 10**7"),
        ("deep nesting", "def f(x):\n  a = []\n  for _ in range(100000): a = [a]\n  return a"),
        ("a list that holds itself", "def f(x):\n  a = []\n  a.append(a)\n  return a"),
        ("colliding keys", "def f(x): return {i * (2**61 - 1) for i in range(3000)}"),
        ("surrogates and NULs", "def f(x): return '\\ud800\\x00\\udfff' * 1000"),
        ("terminal codes in an error", "def f(x): raise ValueError('\\x1b[2J\\x1b]0;right\\x07\\r\\x00passed')"),
        ("an exception with a lying text", "class E(Exception):\n  def __str__(s): raise SystemExit(0)\ndef f(x): raise E"),
        ("pickle", "class P:\n  def __reduce__(s): return (print, ('HOLE',))\ndef f(x): return P()"),
        ("20 MB", "def f(x): return 'x' * (20 << 20)"),
        wall_s=3.0,
    ),
    *attacks(
        "channel", "run",
        ("bad UTF-8 and NULs", "import os\nos.write(1, bytes(range(256)) * 100)\nos.write(2, bytes(range(256)) * 100)\nraise SystemExit(1)"),
        ("no inherited descriptor", "import os\nopen_ones = []\nfor n in range(3, 4096):\n  try: os.fstat(n); open_ones.append(n)\n  except OSError: pass\nif open_ones: print('HOLE', open_ones)"),
        ("input cannot be written", PRELUDE + "hole(lambda: os.write(0, b'x'))\nhole(lambda: os.ftruncate(0, 0))\nhole(lambda: os.open('/proc/self/fd/0', os.O_RDWR))\nhole(lambda: os.fchmod(0, 0o777))"),
        ("half a line, then closed", "import os\nos.write(1, b'tok')\nos.close(1)\nos.close(2)"),
        ("terminal codes in a traceback", "raise ValueError('\\x1b[2J\\x1b]0;right\\x07\\r\\x00passed')"),
    ),
]  # fmt: skip

RESOURCES = [
    *attacks(
        "resources", "run",
        ("fork bomb", PRELUDE + "def bomb():\n  while True:\n    os.fork()\nhole(bomb)"),
        ("double fork with setsid", PRELUDE + "def away():\n  if os.fork() == 0:\n    os.setsid()\n    os.fork()\n    while True: pass\nhole(away)"),
        ("vfork, clone and clone3", PRELUDE + "system_call(58, 1071, 0)\nsystem_call(56, 220, 17, 0, 0, 0, 0)\nsystem_call(435, 435, ctypes.create_string_buffer(88), 88)"),
        ("subprocess", PRELUDE + "import subprocess\nhole(lambda: subprocess.run(['/bin/true']))\nhole(lambda: os.posix_spawn('/bin/true', ['true'], {}))\nos.system('touch /tmp/x')"),
        ("multiprocessing", PRELUDE + "import multiprocessing\nhole(lambda: multiprocessing.Process(target=print).start())"),
    ),
    *attacks(
        "resources", "run",
        ("memory bomb", "a = []\nwhile True: a.append(bytearray(1 << 24))"),
        ("memory bomb that catches", "a = []\nwhile True:\n  try:\n    while True: a.append(bytearray(1 << 24))\n  except MemoryError: pass"),
        ("memory at once", "a = bytearray(1 << 38)"),
        ("memory by mmap", "import mmap\na = []\nwhile True:\n  m = mmap.mmap(-1, 1 << 24)\n  m.write(b'x' * (1 << 24))\n  a.append(m)"),
        cpu_s=2.0, ends=frozenset({"memory_limit", "time_limit", "runtime_error"}),
    ),
    *attacks(
        "resources", "run",
        ("9**9**9", "print(9 ** 9 ** 9)"),
        ("endless loop that ignores signals", "import signal\nfor n in range(1, 64):\n  try: signal.signal(n, signal.SIG_IGN)\n  except (OSError, ValueError): pass\nwhile True: pass"),
        ("endless loop of threads", "import threading\ndef loop():\n  while True: pass\nfor _ in range(4): threading.Thread(target=loop).start()"),
        ("catastrophic pattern", "import re\nre.match('(a+)+$', 'a' * 60 + 'b')"),
        cpu_s=0.3, ends=frozenset({"time_limit", "memory_limit"}),
    ),
    *attacks(
        "resources", "run",
        ("sleep", "import time\ntime.sleep(600)"),
        ("waits for input that never comes", "import threading\nthreading.Event().wait()"),
        ("ignored SIGTERM and a sleep", "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)"),
        ("a thread that never ends", "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()"),
        cpu_s=1.0, wall_s=0.5, ends=frozenset({"time_limit"}),
    ),
    *attacks(
        "resources", "run",
        ("flood of standard output", "while True: print('x' * 10000)"),
        ("flood of standard error", "import sys\nwhile True: print('x' * 10000, file=sys.stderr)"),
        ends=frozenset({"output_limit"}),
    ),
    *attacks(
        "resources", "run",
        ("disk", "try:\n  for n in range(100):\n    with open(f'/tmp/{n}', 'wb') as f:\n      for _ in range(64): f.write(bytes(1 << 20))\n  print('HOLE')\nexcept OSError: print('full')"),
        ("one large file", "try:\n  with open('/tmp/x', 'wb') as f:\n    f.truncate(1 << 40)\n  print('HOLE')\nexcept OSError: print('full')"),
        ("inodes", "try:\n  for n in range(100_000): open(f'/tmp/{n}', 'w').close()\n  print('HOLE')\nexcept OSError: print('full')"),
        ("directories", "import os\ntry:\n  for n in range(100_000):\n    os.mkdir('d')\n    os.chdir('d')\n  print('HOLE')\nexcept OSError: print('full')"),
        ("descriptors", "import os\ntry:\n  for n in range(100_000): os.dup(0)\n  print('HOLE')\nexcept OSError: print('full')"),
        ("priority", PRELUDE + "hole(lambda: os.nice(-5))\nhole(lambda: os.sched_setaffinity(0, {0}))\nhole(lambda: os.setpriority(0, 0, -5))"),
        ("threads", "import threading, time\nthreading.stack_size(1 << 15)\nnum = 0\ntry:\n  while num < 20_000:\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n    num += 1\n  print('HOLE')\nexcept RuntimeError: print('full')"),
        ("limits raised", PRELUDE + "import resource\nfor name in ('AS', 'CPU', 'FSIZE', 'NOFILE', 'CORE', 'MEMLOCK', 'STACK'):\n  limit = getattr(resource, 'RLIMIT_' + name)\n  soft, hard = resource.getrlimit(limit)\n  try:\n    resource.setrlimit(limit, (soft, hard + 1))\n    print('HOLE', name)\n  except (OSError, ValueError): pass"),
        ("core file", "import resource, os\nif resource.getrlimit(resource.RLIMIT_CORE) != (0, 0): print('HOLE')\nos.abort()"),
    ),
]  # fmt: skip

LEAKS = [
    *attacks(
        "leaks", "run",
        ("environment", "import os\nprint(*os.environ.values())"),
        ("environment of others", PRELUDE + "for n in [1, 2, *range(3, 50), 'self', 'thread-self']:\n  hole(lambda: open(f'/proc/{n}/environ', 'rb').read())\n  hole(lambda: open(f'/proc/{n}/mem', 'rb').read(1))\n  hole(lambda: os.listdir(f'/proc/{n}/root'))\n  hole(lambda: os.listdir(f'/proc/{n}/cwd'))\nif os.listdir('/proc'): print('HOLE')"),
        ("home", PRELUDE + "for path in ('/root', '/home', '/work', '/etc/passwd', '/etc/shadow', '/etc/hosts', '/etc/resolv.conf', '/var', '/run', '/sys', '/boot', '/opt', '/mnt', '/srv', '/tmp/..', '/etc/ssl', '/etc/ssh'):\n  for where in [path] if os.path.isfile(path) else [path + '/.ssh', path + '/.cache', path + '/.aws', path + '/.netrc', path + '/.bash_history']:\n    hole(lambda: open(where).read() if os.path.isfile(where) else os.listdir(where))\nhole(lambda: open('/etc/passwd').read())"),
        ("the token anywhere", "import os, re\nfor top, folders, files in os.walk('/'):\n  if top.startswith(('/usr', '/packages')) or '/lib/python' in top: folders.clear()\n  for name in files:\n    if re.search('token-[0-9a-f]{32}', name): print('HOLE', top, name)\n    try:\n      if re.search(b'token-[0-9a-f]{32}', open(os.path.join(top, name), 'rb').read(1 << 16)): print('HOLE', top, name)\n    except OSError: pass".replace("for name in files:", "for name in files if not top.startswith('/dev') else []:")),
        ("symlinks out", PRELUDE + "for target in ('/etc/passwd', '/proc/1/environ', '/root/.ssh', '/home', '../../../etc/passwd'):\n  os.path.lexists('/tmp/link') and os.unlink('/tmp/link')\n  os.symlink(target, '/tmp/link')\n  hole(lambda: open('/tmp/link').read())\n  hole(lambda: os.listdir('/tmp/link/'))"),
        ("writing outside", PRELUDE + "for path in ('/', '/usr', '/usr/bin', '/bin', '/etc', '/dev', '/dev/shm', '/proc', '/packages', '/var/tmp', '/run', '/home', '/root'):\n  hole(lambda: open(path + '/MARK', 'w'))\n  hole(lambda: os.mkdir(path + '/MARK'))\n  hole(lambda: os.symlink('/etc', path + '/MARK'))\nhole(lambda: os.remove('/usr/bin/env'))\nhole(lambda: os.rename('/usr/bin/env', '/usr/bin/MARK'))\nhole(lambda: os.link('/usr/bin/env', '/tmp/env'))\nhole(lambda: os.chmod('/usr/bin/env', 0o777))"),
        ("own packages", PRELUDE + "for name in ('distill', 'torch', 'transformers', 'pip', 'pytest', 'hypothesis', 'yaml', 'site'):\n  if name != 'site': hole(lambda: __import__(name))"),
        ("TCP", PRELUDE + "import socket\nhole(lambda: socket.create_connection(('1.1.1.1', 53), 1))\nhole(lambda: socket.create_connection(('127.0.0.1', 22), 1))\nhole(lambda: socket.socket())\nhole(lambda: socket.create_server(('', 0)))"),
        ("the name of the machine", "import os, socket\nprint('HOLE' if os.uname().nodename != 'sandbox' else '')"),
        ("sync", PRELUDE + "system_call(162, 81)\nsystem_call(306, 267, 0)"),
        ("DNS", PRELUDE + "import socket\nhole(lambda: socket.getaddrinfo('example.org', 80))\nhole(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))\nhole(lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW))"),
        ("abstract sockets", PRELUDE + "import socket\nhole(lambda: socket.socket(socket.AF_UNIX).connect('\\0x'))\nhole(lambda: socket.socketpair())\nhole(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))\nhole(lambda: socket.socket(40, socket.SOCK_STREAM))\nhole(lambda: socket.socket(38, socket.SOCK_SEQPACKET))\nsystem_call(41, 198, 40, 1, 0)"),
        ("ptrace", PRELUDE + "for pid in [0, 1, 2, 3, os.getppid(), os.getpid()]:\n  system_call(101, 117, 16, pid, 0, 0)\n  system_call(101, 117, 0x4206, pid, 0, 0)\n  system_call(310, 270, pid, 0, 0, 0, 0, 0)\n  system_call(311, 271, pid, 0, 0, 0, 0, 0)"),
        ("signals to others", PRELUDE + "import signal\nfor pid in [0, -1, 1, 2, 3, os.getppid(), -os.getpgrp()]:\n  for number in (0, 9, 19):\n    if pid > 0 or pid <= -1 or pid == 0: hole(lambda: os.kill(pid, number))\nsystem_call(424, 424, 3, 9, 0, 0)\nsystem_call(434, 434, 1, 0)\nsystem_call(200, 130, 1, 9)\nsystem_call(129, 138, 1, 9, 0)"),
        ("privileges", PRELUDE + "hole(lambda: os.setuid(0))\nhole(lambda: os.setgid(0))\nhole(lambda: os.setgroups([0]))\nif 0 in os.getresuid() + os.getresgid(): print('HOLE')\nhole(lambda: os.chroot('/tmp'))\nsystem_call(126, 91, ctypes.create_string_buffer(b'\\x22\\x05\\x08\\x20\\0\\0\\0\\0', 8), ctypes.create_string_buffer(b'\\xff' * 24, 24))"),
        ("setuid programs", PRELUDE + "os.path.exists('/usr/bin/su') and hole(lambda: os.execv('/usr/bin/su', ['su', '-c', 'id']))\nif libc.prctl(39, 0, 0, 0, 0) != 1: print('HOLE')"),
        ("user namespaces", PRELUDE + "for flags in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x08000000, 0x02000000, 0x80):\n  system_call(272, 97, flags)\n  system_call(56, 220, flags | 17, 0, 0, 0, 0)\nsystem_call(308, 268, 0, 0)"),
        ("mounts", PRELUDE + "for target in (b'/tmp', b'/proc', b'/'):\n  system_call(165, 40, b'none', target, b'tmpfs', 0, 0)\n  system_call(165, 40, b'proc', target, b'proc', 0, 0)\n  system_call(166, 39, target, 2)\nsystem_call(155, 41, b'/tmp', b'/tmp')\nsystem_call(430, 430, b'tmpfs', 0)\nsystem_call(428, 428, -100, b'/tmp', 1)\nsystem_call(442, 442, -100, b'/usr', 0, 0, 32)"),
        ("io_uring", PRELUDE + "system_call(425, 425, 8, ctypes.create_string_buffer(120))\nsystem_call(426, 426, 3, 0, 0, 0, 0)\nsystem_call(427, 427, 3, 0, 0, 0)"),
        ("bpf, keys and other doors of the kernel", PRELUDE + "system_call(321, 280, 0, 0, 0)\nsystem_call(250, 219, 0, -3, 1)\nsystem_call(248, 217, b'user', b'x', b'y', 1, -3)\nsystem_call(298, 241, ctypes.create_string_buffer(128), 0, -1, -1, 0)\nsystem_call(323, 282, 0)\nsystem_call(103, 116, 3, ctypes.create_string_buffer(64), 64)\nsystem_call(135, 92, 0x40000)\nsystem_call(169, 142, 0, 0, 0, 0)\nsystem_call(304, 265, -100, 0, 0)\nsystem_call(246, 104, 0, 0, 0, 0)"),
        ("memory that outlives it", PRELUDE + "system_call(319, 279, b'x', 0)\nsystem_call(447, 447, 0)\nsystem_call(29, 194, 4711, 4096, 0o1666)\nsystem_call(68, 186, 4711, 0o1666)\nsystem_call(64, 190, 4711, 1, 0o1666)\nsystem_call(240, 180, b'/MARK', 0o102, 0o666, 0)"),
        ("devices", PRELUDE + "for name in ('mem', 'kmem', 'kmsg', 'sda', 'vda', 'tty', 'ptmx', 'fuse', 'kvm', 'net/tun', 'vsock', 'input/event0', 'loop0'):\n  hole(lambda: open('/dev/' + name, 'rb'))\nhole(lambda: os.mknod('/tmp/x', 0o60666, os.makedev(254, 0)))\nhole(lambda: os.openpty())"),
        ("executable memory from its folder", PRELUDE + "import mmap\nwith open('/tmp/x', 'wb') as f: f.write(b'\\xc3' * 4096)\nf = open('/tmp/x', 'r+b')\nhole(lambda: mmap.mmap(f.fileno(), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC))"),
    ),
]  # fmt: skip

MAIN = "#include <bits/stdc++.h>\n#include <unistd.h>\n#include <sys/syscall.h>\nint main() {{ {} }}\n"
CPP = [
    *attacks(
        "cpp", "cpp",
        ("include of a file", '#include "/etc/passwd"\nint main() {}'),
        ("include of a device", '#include "/dev/zero"\nint main() {}'),
        ("incbin", 'asm(".section .rodata\\nsecret: .incbin \\"/etc/passwd\\"\\n.previous");\nint main() {}'),
        ("include of a process", '#include "/proc/self/environ"\nint main() {}'),
        ("template bomb", "template<int N, int M> struct A { static constexpr int v = A<N - 1, M>::v + A<N - 1, M + 1>::v; };\ntemplate<int M> struct A<0, M> { static constexpr int v = 1; };\nint main() { return A<1000000, 0>::v; }"),
        ("error flood", "".join(f"int x{n} = y{n};\n" for n in range(20_000)) + "int main() {}"),
        ("not a program", "def f(x): return 1"),
        ("nesting bomb", "int main() { return " + "(" * 200_000 + "1" + ")" * 200_000 + "; }"),
        ("large binary", "char a[1 << 28] = {1};\nint main() {}"),
        ends=frozenset({"compile_error"}),
    ),
    Attack("cpp", "constexpr bomb", "cpp", "constexpr long f(long n) { long s = 0; for (long i = 0; i < n; ++i) s += i * i % 7; return s; }\nconstexpr long a = f(1L << 60);\nint main() { return a; }", frozenset({"compile_error"})),
    *attacks(
        "cpp", "cpp",
        ("exit in a constructor", "#include <unistd.h>\nstruct A { A() { _exit(0); } } a;\nint main() {}"),
        ("constructor attribute", "#include <cstdlib>\n__attribute__((constructor)) void f() { exit(0); }\nint main() {}"),
        ("system", MAIN.format('if (system("touch /tmp/MARK") == 0) puts("HOLE");')),
        ("fork", MAIN.format('if (fork() >= 0) puts("HOLE"); if (syscall(SYS_clone, 17, 0, 0, 0, 0) >= 0) puts("HOLE");')),
        ("network", MAIN.format('if (syscall(SYS_socket, 2, 1, 0) >= 0) puts("HOLE"); if (syscall(SYS_socket, 40, 1, 0) >= 0) puts("HOLE");')),
        ("files", MAIN.format('for (auto p : {"/etc/passwd", "/proc/1/environ", "/proc/self/maps"}) if (fopen(p, "r")) puts("HOLE"); for (auto p : {"/usr/MARK", "/dev/shm/MARK", "/MARK"}) if (fopen(p, "w")) puts("HOLE");')),
        ("descriptors", MAIN.format('for (int n = 3; n < 4096; ++n) if (fcntl(n, F_GETFD) >= 0) puts("HOLE");').replace("#include <unistd.h>", "#include <unistd.h>\n#include <fcntl.h>")),
        ("another program", MAIN.format('execl("/bin/sh", "sh", "-c", "cat /etc/passwd && echo HOLE; touch /usr/MARK && echo HOLE", nullptr);')),
        ("another loader of programs", 'asm(".section .interp,\\"a\\",@progbits\\n.ascii \\"xx\\"\\n.text");\nint main() {}'),
        ("a segmentation fault", MAIN.format("*(volatile int*)8 = 1;")),
        ("a stack that overflows", "#include <cstdio>\nlong f(long n) { volatile long a[1000] = {n}; return n ? f(n - 1) + a[5] : 0; }\nint main() { printf(\"%ld\", f(1L << 40)); }"),
    ),
    Attack("cpp", "32-bit system calls", "cpp", MAIN.format('if (fork() < 0) { long r; asm volatile("int $0x80" : "=a"(r) : "a"(2L)); puts(r >= 0 ? "HOLE" : ""); }')),
    Attack("cpp", "memory bomb", "cpp", MAIN.format("while (true) { char *p = new char[1 << 24]; memset(p, 1, 1 << 24); }"), frozenset({"memory_limit", "time_limit"}), 3.0),
    Attack("cpp", "endless loop", "cpp", MAIN.format("volatile int n = 0; while (true) n = n + 1;"), frozenset({"time_limit"}), 0.3),
    Attack("cpp", "output flood", "cpp", MAIN.format('while (true) puts("xxxxxxxxxxxxxxxx");'), frozenset({"output_limit"})),
]  # fmt: skip

ATTACKS = [*EQUALITY, *EXIT, *PATCHING, *CHANNEL, *RESOURCES, *LEAKS, *CPP]
