"""Hostile programs through the interpreter, on the rights that a kernel gives, as a user.

What a program must not reach is made and watched by a process that belongs to the user in question. It runs as the
script `python jailed.py`, reads attacks as lines of JSON and answers each with what the program got.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hostile import HOSTILE
from vold.engines.tools import interpreter as module
from vold.engines.tools.interpreter import JAIL, Limits, ProgramResult, PythonInterpreter
from vold.errors import ConfigError

SECRET = "a-secret-of-the-host-5d1c"
NOBODY = 65534

OLDEST = 3
"""Landlock's version below which nothing is run."""

KERNELS = {1: "5.13", 2: "5.19", 3: "6.2", 4: "6.7", 5: "6.10", 6: "6.12", 7: "6.15"}
"""Landlock's versions, and the first kernel with each."""

PATIENT = Limits(seconds=20.0, memory_mb=512, scratch_mb=4, output=4000)
IMPATIENT = Limits(seconds=0.5, memory_mb=512, scratch_mb=4, output=4000)

MISTAKES = re.compile(r"(Name|Syntax|Type|Attribute|Import|ModuleNotFound|Value|Index|Key)Error")


@dataclass(frozen=True)
class Kernel:
    """What is told to the jail about the kernel below it."""

    landlock: int
    namespaces: bool

    def __str__(self) -> str:
        return f"Landlock {self.landlock}, {'with' if self.namespaces else 'without'} namespaces"


def kernels() -> list[Kernel]:
    """All that this kernel can stand for, the oldest first."""
    return [Kernel(v, namespaces) for v in KERNELS if v <= _landlock() for namespaces in (True, False)]


def _landlock() -> int:
    return int(ctypes.CDLL(None).syscall(444, None, 0, 1)) if sys.platform == "linux" else 0


def jail_on(kernel: Kernel, folder: Path) -> Path:
    """The jail's file, told what kernel it runs on."""
    text = JAIL.read_text()
    asks = 'version = call(libc.syscall(LANDLOCK_CREATE, None, 0, 1), "Landlock")'
    assert asks in text
    text = text.replace(asks, f"{asks}\n    version = min(version, {kernel.landlock})")
    if not kernel.namespaces:
        asks = "if libc.unshare(NAMESPACES) != 0:"
        assert asks in text
        text = text.replace(asks, "if True:")
    file = folder / f"jail-{kernel.landlock}-{kernel.namespaces}.py"
    file.write_text(text)
    return file


class Host:
    """What a program must not reach: files, variables, servers, processes."""

    def __init__(self, home: Path) -> None:
        self.outside, self.readable = home / "outside", home / "readable"
        for folder in (self.outside, self.readable):
            folder.mkdir()
        self.files = (self.outside / "secret.txt", self.readable / "kept")
        for file in self.files:
            file.write_text(SECRET)
        self.before = self._files()
        os.environ["VOLD_TEST_KEY"] = SECRET
        self.got_signals: list[int] = []
        self.victim = os.fork()
        if self.victim == 0:
            ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # it ends with this process
            while True:
                signal.pause()
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGINT}:
            signal.signal(number, lambda got, _: self.got_signals.append(got))
        self.server = socket.create_server(("127.0.0.1", 0))
        self.abstract, self.named = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.abstract.bind(f"\0vold-test-{os.getpid()}")
        self.named.bind(str(home / "socket"))
        for server in (self.abstract, self.named):
            server.listen()
        for server in (self.server, self.abstract, self.named):
            server.setblocking(False)

    def _files(self) -> dict[str, tuple[object, ...]]:
        places = [p for folder in (self.outside, self.readable) for p in (folder, *folder.iterdir())]
        return {str(p): self._state(p) for p in places}

    @staticmethod
    def _state(place: Path) -> tuple[object, ...]:
        s = place.lstat()
        text = place.read_bytes() if place.is_file() else b""
        return (text, s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_mtime_ns, tuple(os.listxattr(place)))

    def fill(self, program: str) -> str:
        names = {
            "SECRET_FILE": self.files[0],
            "OUTSIDE": self.outside,
            "READABLE": self.readable,
            "PORT": self.server.getsockname()[1],
            "ABSTRACT": self.abstract.getsockname()[1:].decode(),
            "SOCKET": self.named.getsockname(),
            "VICTIM": self.victim,
            "PARENT": os.getpid(),
            "GROUP": os.getpgrp(),
            "PROJECT": Path(module.__file__).parents[2] / "errors.py",
        }
        return functools.reduce(lambda text, name: text.replace(f"@{name}@", str(names[name])), names, program)

    def harm(self) -> Iterator[str]:
        """What a program has done to it."""
        if (now := self._files()) != self.before:
            yield f"files were changed: {sorted(set(now.items()) ^ set(self.before.items()))}"
        for server in (self.server, self.abstract, self.named):
            try:
                server.accept()
                yield "a server was reached"
            except BlockingIOError:
                pass
        if self.got_signals:
            yield f"signals reached the parent: {self.got_signals}"
        state = Path(f"/proc/{self.victim}/stat").read_text().rpartition(")")[2].split()[0]
        if state not in "SR":
            yield f"a process of the host is in state {state}"
        for place in ("/tmp", "/dev/shm"):
            if Path(f"{place}/vold-hostile-{os.getpid()}").exists():
                yield f"there is a new file below {place}"

    def close(self) -> None:
        os.kill(self.victim, signal.SIGKILL)
        os.waitpid(self.victim, 0)


def faults_of(name: str, result: ProgramResult, limits: Limits) -> Iterator[str]:
    """What a program got, or what is wrong with its answer."""
    if "GOT" in result.output or SECRET in result.output:
        yield "it got something"
    if mistake := MISTAKES.search(result.output):
        yield f"the program itself is wrong: {mistake[0]}"
    if name.startswith("without end"):
        if result.ok or not ("TimeoutError" in result.output or "ended with status" in result.output):
            yield "it was not stopped"
        if result.seconds > limits.seconds + 15:
            yield f"it was stopped after {result.seconds:.1f} s"
    elif "TimeoutError" in result.output or not result.output:
        yield "it gave no answer"


def serve() -> None:
    """Attack as this process's user, for each line of standard input."""
    out = os.dup(1)
    with tempfile.TemporaryDirectory(prefix="vold-host-") as home:
        host = Host(Path(home))
        module.LIBRARIES = (*module.LIBRARIES, str(host.readable))
        interpreters: dict[Kernel, PythonInterpreter] = {}
        for line in sys.stdin:
            name, *told = json.loads(line)
            kernel = Kernel(*told)
            answer = {"wrong": "", "refused": "", "output": ""}
            try:
                if kernel not in interpreters:
                    module.JAIL = jail_on(kernel, Path(home))
                    interpreters[kernel] = PythonInterpreter(PATIENT)
                python = interpreters[kernel]
                python.limits = IMPATIENT if name.startswith("without end") else PATIENT
                result = python.run(host.fill(HOSTILE[name]))
                answer["wrong"] = "; ".join((*faults_of(name, result, python.limits), *host.harm()))
                answer["output"] = result.output
            except ConfigError as error:
                answer["refused"] = str(error)
            os.write(out, json.dumps(answer).encode() + b"\n")
        host.close()


@dataclass(frozen=True)
class Answer:
    """Of an attack: what the program got, the words in which the jail refused to run at all, what was printed."""

    wrong: str
    refused: str
    output: str


class Attacker:
    """Attacks as a user; the process that does is started anew if an attack brings it down.

    Args:
        user: a user id, None for that of the caller.
    """

    def __init__(self, user: int | None = None) -> None:
        self.user = user
        self.process: subprocess.Popen[bytes] | None = None

    def attack(self, name: str, kernel: Kernel) -> Answer:
        if self.process is None:
            self.process = _started(_python_for(self.user), [__file__], self.user)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps([name, kernel.landlock, kernel.namespaces]).encode() + b"\n")
            self.process.stdin.flush()
            with selectors.DefaultSelector() as selector:
                selector.register(self.process.stdout, selectors.EVENT_READ)
                said = self.process.stdout.readline() if selector.select(90) else b""
            answer = Answer(**json.loads(said)) if said else Answer("the process that runs programs is gone", "", "")
        except BrokenPipeError:
            answer = Answer("the process that runs programs is gone", "", "")
        if answer.wrong:
            self.close()
        return answer

    def close(self) -> None:
        if self.process is None:
            return
        try:
            self.process.communicate(timeout=10)  # the end of its input: it cleans up and ends
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        self.process = None


def _started(python: str, arguments: list[str], user: int | None) -> subprocess.Popen[bytes]:
    path = [str(Path(module.__file__).parents[3]), str(Path(__file__).parent)]
    return subprocess.Popen(
        [python, "-B", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(path), "PATH": os.defpath},
        cwd="/",
        start_new_session=True,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )


@functools.cache
def _python_for(user: int | None) -> str:
    """A Python that the user can run with this package on its path; empty if there is none."""
    for python in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        if user is None:
            return sys.executable
        try:
            tried = _started(python or "", ["-c", "import jailed"], user)
        except OSError:
            continue
        tried.communicate()
        if tried.returncode == 0:
            return str(python)
    return ""


USERS = ("own", "nobody")
"""Whom to attack as: the user of this process, which may be root, and another one."""


def attacker(user: str) -> Attacker | str:
    """Attacks as one of `USERS`, or the reason why there are none."""
    if user == "own":
        return Attacker()
    if os.geteuid() != 0:
        return "only root can be another user"
    return Attacker(NOBODY) if _python_for(NOBODY) else "there is no Python that another user may run"


if __name__ == "__main__":
    serve()
