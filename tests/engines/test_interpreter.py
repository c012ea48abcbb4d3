"""Ordinary programs compute, broken ones say why, endless ones are stopped. Hostile ones are in test_jail.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jailed import KERNELS, Kernel, jail_on
from vold.engines.tools import interpreter as module
from vold.engines.tools.interpreter import JAIL, Limits, ProgramResult, PythonInterpreter
from vold.errors import ConfigError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")

SHORT = Limits(seconds=2.0, memory_mb=256, scratch_mb=4, output=2000)


@pytest.fixture(scope="module")
def python() -> PythonInterpreter:
    return PythonInterpreter(SHORT)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> PythonInterpreter:
    """The same where the kernel grants no namespaces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "JAIL", jail_on(Kernel(max(KERNELS), False), tmp_path_factory.mktemp("bare")))
        return PythonInterpreter(SHORT)


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
        ("import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.05), print('t'))).start()\nprint('m')", "m\nt\n"),
        ("import threading as t\nt.Thread(target=lambda: t.Thread(target=print, args=('t',)).start()).start()", "t\n"),
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()", ""),
        ("from concurrent.futures import ThreadPoolExecutor as P\np = P(4)\nx = p.submit(print, 't')", "t\n"),
        ("import atexit\nx = atexit.register(print, 'end')\nprint('m')", "m\nend\n"),
        ("import os, fcntl\nr, w = os.pipe()\nx = fcntl.fcntl(r, fcntl.F_SETFL, os.O_NONBLOCK)\nfcntl.fcntl(r, fcntl.F_GETFL) & os.O_NONBLOCK", "2048\n"),
        ("import os, fcntl\nx = open('a', 'w')\ny = fcntl.fcntl(x, fcntl.F_DUPFD_CLOEXEC, 20)\nx.write('hi')\nx.flush()\nos.ftruncate(y, 1)\nopen('a').read()", "'h'\n"),
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
        ("import threading\nthreading.Thread(target=print, args=('t',)).start()\n1 / 0", "t\nTraceback"),
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
