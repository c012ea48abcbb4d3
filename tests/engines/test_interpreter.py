"""Hostile programs get nothing and stall nothing; ordinary ones compute. Runs on the kernel it is tested on, no stand-ins."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vold.engines.tools import interpreter as module
from vold.engines.tools.interpreter import JAIL, Limits, ProgramResult, PythonInterpreter
from vold.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")

SECRET = "a-secret-of-the-host-5d1c"
SHORT = Limits(seconds=2.0, memory_mb=512, scratch_mb=4, output=2000)


@pytest.fixture(scope="module")
def python() -> PythonInterpreter:
    return PythonInterpreter(SHORT)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> PythonInterpreter:
    """The same where the kernel grants no namespaces: the call that asks for them is made to fail."""
    text = JAIL.read_text()
    refused = text.replace("if libc.unshare(NAMESPACES) != 0:", "if True:")
    assert refused != text
    file = tmp_path_factory.mktemp("bare") / "jail.py"
    file.write_text(refused)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "JAIL", file)
        return PythonInterpreter(SHORT)


class Host:
    """What a program must not reach: a secret in a file and in the environment, a server, a process, a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = folder / "secret.txt"
        self.secret.write_text(SECRET)
        self.victim = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.setblocking(False)
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind(f"\0vold-test-{os.getpid()}-{id(self)}")
        self.abstract.listen()
        self.abstract.setblocking(False)
        os.environ["VOLD_TEST_KEY"] = SECRET

    def fill(self, program: str) -> str:
        names = {
            "SECRET_FILE": str(self.secret),
            "OUTSIDE": str(self.folder),
            "PORT": str(self.server.getsockname()[1]),
            "VICTIM": str(self.victim.pid),
            "PARENT": str(os.getpid()),
            "ABSTRACT": self.abstract.getsockname()[1:].decode(),
            "PROJECT": str(Path(module.__file__).parent.parent / "errors.py"),
        }
        for name, value in names.items():
            program = program.replace(f"@{name}@", value)
        return program

    def is_untouched(self) -> bool:
        for server in (self.server, self.abstract):
            with pytest.raises(BlockingIOError):
                server.accept()
        return (
            self.victim.poll() is None
            and self.secret.read_text() == SECRET
            and sorted(p.name for p in self.folder.iterdir()) == ["secret.txt"]
        )

    def close(self) -> None:
        self.victim.kill()
        self.victim.communicate()
        self.server.close()
        self.abstract.close()
        del os.environ["VOLD_TEST_KEY"]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.close()


HOSTILE = {
    # processes
    "fork bomb": "import os\nwhile True: os.fork()",
    "fork bomb that catches": "import os\nfor _ in range(10**4):\n  try: os.fork()\n  except OSError: pass\nprint('GOT' * 0)",
    "raw fork": "import ctypes\nprint('GOT' if ctypes.CDLL(None).fork() >= 0 else 'refused')",
    "raw clone3": (
        "import ctypes\nl = ctypes.CDLL(None, use_errno=True)\n"
        "print('GOT' if l.syscall(435, ctypes.create_string_buffer(88), 88) >= 0 else 'refused')"
    ),
    "shell": "import os\nprint('GOT' if os.system('echo GOT') == 0 else 'refused')",
    "subprocess": "import subprocess\nprint(subprocess.check_output(['echo', 'GOT']))",
    "exec": "import os\nos.execv('/bin/echo', ['echo', 'GOT'])",
    "multiprocessing": "import multiprocessing as m\np = m.Process(target=print, args=('GOT',))\np.start()\np.join()",
    "daemon": "import os\nif os.fork() == 0:\n  os.setsid()\n  open('@OUTSIDE@/daemon', 'w').write('GOT')",
    "threads without end": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()",
    # network
    "tcp": "import socket\nsocket.create_connection(('127.0.0.1', @PORT@))\nprint('GOT')",
    "udp": "import socket\nsocket.socket(2, 2).sendto(b'GOT', ('127.0.0.1', 53))\nprint('GOT')",
    "http": "import urllib.request\nprint('GOT', urllib.request.urlopen('http://127.0.0.1:@PORT@').read())",
    "abstract socket": "import socket\nsocket.socket(1).connect('\\0@ABSTRACT@')\nprint('GOT')",
    "socket pair": "import socket\nprint('GOT', socket.socketpair())",
    "raw socket call": (
        "import ctypes, platform\nn = 41 if platform.machine() == 'x86_64' else 198\n"
        "print('GOT' if ctypes.CDLL(None).syscall(n, 2, 1, 0) >= 0 else 'refused')"
    ),
    "name service": "import socket\nprint('GOT', socket.getaddrinfo('localhost', 80))",
    # reading
    "secret": "print(open('@SECRET_FILE@').read())",
    "passwd": "print('GOT', open('/etc/passwd').read())",
    "shadow": "print('GOT', open('/etc/shadow', 'rb').read())",
    "project": "print('GOT', open('@PROJECT@').read())",
    "import of the project": "import sys\nsys.path.append('@PROJECT@'.rsplit('/vold/', 1)[0])\nimport vold.errors\nprint('GOT')",
    "environment": "import os\nprint(dict(os.environ))",
    "environment of the parent": "print('GOT', open('/proc/@PARENT@/environ', 'rb').read())",
    "own environment": "print('GOT', open('/proc/self/environ', 'rb').read())",
    "memory of the parent": "print('GOT', open('/proc/@PARENT@/mem', 'rb'))",
    "root folder": "import os\nprint('GOT', os.listdir('/'))",
    "folder of the host": "import os\nprint('GOT', os.listdir(os.path.dirname('@OUTSIDE@')))",
    "symlink to the secret": "import os\nos.symlink('@SECRET_FILE@', 'x')\nprint(open('x').read())",
    "hard link to the secret": "import os\nos.link('@SECRET_FILE@', 'x')\nprint(open('x').read())",
    "dots": "print(open('../' * 20 + '@SECRET_FILE@'.lstrip('/')).read())",
    "inherited files": (
        "import os\nfor n in range(3, 64):\n  try: print('GOT', n, os.read(n, 99))\n  except OSError: pass\nprint('none')"
    ),
    "fd folder": "import os\nprint('GOT', os.open('/proc/self/fd/0', os.O_RDONLY))",
    "own program": "import os\nprint('GOT', open('/proc/1/cmdline').read())",
    # writing
    "write outside": "open('@OUTSIDE@/new', 'w').write('GOT')",
    "overwrite the secret": "open('@SECRET_FILE@', 'w').write('GOT')",
    "truncate the secret": "import os\nos.truncate('@SECRET_FILE@', 0)\nprint('GOT')",
    "remove the secret": "import os\nos.remove('@SECRET_FILE@')\nprint('GOT')",
    "move the secret": "import os\nos.rename('@SECRET_FILE@', 'x')\nprint('GOT')",
    "change the secret's mode": "import os\nos.chmod('@SECRET_FILE@', 0o777)\nprint('GOT')",
    "write to tmp": "open('/tmp/vold-hostile', 'w').write('x')\nprint('GOT')",
    "write to the standard library": "import os\nopen(os.__file__, 'a').write('# x')\nprint('GOT')",
    "shared memory": "open('/dev/shm/x', 'w').write('x')\nprint('GOT')",
    "memory file": "import os\nprint('GOT', os.memfd_create('x'))",
    # signals and other processes
    "kill the parent": "import os\nos.kill(@PARENT@, 9)\nprint('GOT')",
    "kill a process": "import os\nos.kill(@VICTIM@, 9)\nprint('GOT')",
    "kill all": "import os\nos.kill(-1, 9)\nprint('GOT')",
    "kill the group": "import os\nos.killpg(os.getpgid(0), 9)\nprint('GOT')",
    "ptrace": "import ctypes\nprint('GOT' if ctypes.CDLL(None).ptrace(16, @VICTIM@, 0, 0) == 0 else 'refused')",
    "priorities": "import os\nprint('GOT', os.setpriority(0, 0, -20))",
    "raise the limits": "import resource as r\nr.setrlimit(r.RLIMIT_AS, (-1, -1))\nprint('GOT')",
    # the kernel
    "mount": "import ctypes\nprint('GOT' if ctypes.CDLL(None).mount(b'none', b'/', b'tmpfs', 0, None) == 0 else 'refused')",
    "namespaces": "import ctypes\nprint('GOT' if ctypes.CDLL(None).unshare(0x10000000) == 0 else 'refused')",
    "chroot": "import os\nos.chroot('.')\nprint('GOT')",
    "new filter": "import ctypes\nprint('GOT' if ctypes.CDLL(None).prctl(22, 2, 0, 0, 0) == 0 else 'refused')",
    "io_uring": "import ctypes\nprint('GOT' if ctypes.CDLL(None).syscall(425, 1, ctypes.create_string_buffer(120)) >= 0 else 'refused')",
    "32-bit calls": (
        "import ctypes\nprint('GOT' if ctypes.CDLL(None).syscall(0x40000000 + 39) > 0 else 'refused')"
    ),
    # data that runs when it is read
    "pickle": (
        "import pickle, os\nclass P:\n  def __reduce__(self): return (os.system, ('echo GOT > @OUTSIDE@/p',))\n"
        "pickle.loads(pickle.dumps(P()))"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_gets_nothing(python: PythonInterpreter, host: Host, name: str) -> None:
    result = python.run(host.fill(HOSTILE[name]))
    assert "GOT" not in result.output
    assert SECRET not in result.output
    assert host.is_untouched()


@pytest.mark.parametrize("name", HOSTILE)
def test_nor_does_it_where_there_are_no_namespaces(bare: PythonInterpreter, host: Host, name: str) -> None:
    result = bare.run(host.fill(HOSTILE[name]))
    assert "GOT" not in result.output
    assert SECRET not in result.output
    assert host.is_untouched()


ENDLESS = {
    "busy": "while True: pass",
    "asleep": "import time\ntime.sleep(10**6)",
    "waiting for input": "import select\nselect.select([], [], [])",
    "busy in C": "10**10**8",
    "busy in a regular expression": "import re\nre.match(r'(a+)+$', 'a' * 64 + 'b')",
    "deaf to signals": "import signal\nfor s in range(1, 32):\n  try: signal.signal(s, signal.SIG_IGN)\n  except (OSError, ValueError): pass\nwhile True: pass",
    "catches everything": "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
    "output closed": "import os, time\nos.close(1); os.close(2)\ntime.sleep(10**6)",
    "threads": "import threading\ndef f():\n  while True: pass\nfor _ in range(8): threading.Thread(target=f).start()\nf()",
    "at exit": "import atexit\n@atexit.register\ndef f():\n  while True: pass\nwhile True: pass",
}  # fmt: skip


@pytest.mark.parametrize("name", ENDLESS)
def test_a_program_without_end_is_stopped(python: PythonInterpreter, name: str) -> None:
    result = python.run(ENDLESS[name])
    assert not result.ok
    # By the clock, or by the limit on CPU seconds where several threads burn them.
    assert "TimeoutError: stopped after 2 s" in result.output or "ended with status" in result.output


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("x = bytearray(10**10)", "MemoryError"),
        ("x = []\nwhile True: x.append(bytearray(10**7))", "MemoryError"),
        ("f = lambda: f()\nf()", "RecursionError"),
        ("while True: print('x' * 1000)", "OutputError: stopped after 2,000 characters of output"),
        ("import sys\nwhile True: sys.stderr.write('x' * 1000)", "OutputError"),
        ("open('big', 'wb').write(b'x' * 10**7)", "OSError"),
        ("for i in range(50): open(str(i), 'wb').write(b'x' * 10**6)", "OSError"),
        ("for i in range(10**5): open(str(i), 'w')", "OSError"),
        ("x = [open('a', 'w') for _ in range(100)]", "OSError"),
        ("int('9' * 10**6)", "ValueError"),
    ],
)  # fmt: skip
def test_what_a_program_may_use_is_limited(python: PythonInterpreter, program: str, said: str) -> None:
    result = python.run(program)
    assert not result.ok
    assert said in result.output
    assert len(result.output) < 2300


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("1 + 1", "2\n"),
        ("x = 3\nprint('a')\nx ** 2", "a\n9\n"),
        ("None", ""),
        ("", ""),
        ("import math\nmath.comb(10, 3)", "120\n"),
        ("import numpy\nint(numpy.arange(4).sum())", "6\n"),
        ("import sympy\nsympy.sqrt(8)", "2*sqrt(2)\n"),
        ("open('a', 'w').write('hi')\nprint(open('a').read())", "hi\n"),
        ("import threading\nt = threading.Thread(target=print, args=('t',))\nt.start()\nt.join()", "t\n"),
        ("print('é', '\\u4e2d')", "é 中\n"),
        ("import sys\nprint('out')\nsys.exit()", "out\n"),
        ("import collections, dataclasses, decimal, fractions, functools, itertools, json, random, re, statistics", ""),
    ],
)  # fmt: skip
def test_an_ordinary_program_computes(python: PythonInterpreter, program: str, printed: str) -> None:
    result = python.run(program)
    assert result == ProgramResult(printed, True, result.seconds)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("1 / 0", 'Traceback (most recent call last):\n  File "<program>", line 1, in <module>\nZeroDivisionError: division by zero\n'),
        ("def f(:", "SyntaxError"),
        ("import sys\nsys.exit(3)", "the program ended with status 3\n"),
        ("import ctypes\nctypes.string_at(0)", "the program ended with status"),
        ("\x00", "null bytes"),
        ("import sys\nsys.stdout = None\n1 / 0", "ZeroDivisionError"),
    ],
)  # fmt: skip
def test_a_broken_program_says_why(python: PythonInterpreter, program: str, said: str) -> None:
    result = python.run(program)
    assert not result.ok
    assert said in result.output


def test_long_output_keeps_beginning_and_end(python: PythonInterpreter) -> None:
    result = python.run("print('a' * 3000 + 'b' * 3000)")
    assert result.ok
    assert result.output == "a" * 1000 + "\n... 4,001 characters left out ...\n" + "b" * 999 + "\n"


def test_nothing_is_left_for_the_next_program(python: PythonInterpreter) -> None:
    assert python.run("open('kept', 'w').write('x')\nimport math\nmath.pi = 3").ok
    assert python.run("import math, os\nprint(os.listdir('.'), math.pi > 3.1)").output == "[] True\n"


def test_without_namespaces_nothing_can_be_written(bare: PythonInterpreter) -> None:
    assert "PermissionError" in bare.run("open('a', 'w')").output
    assert bare.run("sum(range(5))").output == "10\n"


def test_a_machine_that_cannot_shut_a_program_in_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "jail.py"
    file.write_text(JAIL.read_text().replace("LANDLOCK_RESTRICT = 444, 445, 446", "LANDLOCK_RESTRICT = 444, 445, 9999"))
    monkeypatch.setattr(module, "JAIL", file)
    with pytest.raises(ConfigError, match="cannot be shut in"):
        PythonInterpreter(SHORT)
