"""A cluster of Ray whose machines are all this one: each is a node of Ray, with the processes that it starts."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from launched import command_line, gone, keepers_of, of_run
from package import ROOT
from vold.run.alive import every

RAY = ROOT / "build" / "ray"
"""Where `make engines` puts Ray and what it needs."""
PATH = os.pathsep.join(str(p) for p in (RAY, ROOT / "src", ROOT / "tests" / "helpers"))
PATIENT = {"RAY_raylet_start_wait_time_s": "300", "RAY_NUM_REDIS_GET_RETRIES": "150"}
"""Nodes come up on a busy machine, too."""


def below(pid: int) -> list[int]:
    """All processes that descend from one, and itself."""
    found = [pid]
    for one in found:
        found += [other.pid for other in every() if other.parent == one and other.state not in "ZX"]
    return found


def with_words(text: str) -> list[int]:
    """Processes that have this among their arguments."""
    found = []
    for one in every():
        with contextlib.suppress(OSError):
            found += [one.pid] * (text in command_line(one.pid))
    return found


class Nodes:
    """Machines by name. The first, `head`, has no room for anything."""

    def __init__(self) -> None:
        self.home = tempfile.mkdtemp(prefix="ray")  # short, as names of sockets are
        self.running: dict[str, subprocess.Popen[str]] = {}
        words = ("--port=0", "--include-dashboard=false", "--no-monitor", f"--temp-dir={self.home}", "--num-cpus=0")
        self._start("head", "--head", *words)
        self.address = self._up("head")

    def add(self, *names: str) -> None:
        """Machines with room for two servers or processes each."""
        for name in names:  # one by one: nodes of one machine number their sockets
            self._start(name, f"--address={self.address}", "--num-cpus=2")
            self._up(name)

    def _start(self, name: str, *words: str) -> None:
        words += ("--node-ip-address=127.0.0.1", f"--node-name={name}", "--num-gpus=0")
        words += ("--include-log-monitor=false", "--disable-usage-stats")
        self.running[name] = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--object-store-memory=80000000", *words],
            env=os.environ | {"PYTHONPATH": PATH, **PATIENT}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def _up(self, name: str) -> str:
        """Come back when it is; the address that it says others should go to."""
        out, said = self.running[name].stdout, list[str]()
        assert out is not None
        for line in out:
            said.append(line)
            if "--block" in line:
                return "".join(re.findall(r"--address='([\d.:]+)'", "".join(said))[:1])
        raise AssertionError("".join(said))

    def lose(self, name: str) -> None:
        """As a machine that loses its power: all at once, and nobody is told."""
        processes = below(self.running[name].pid)
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        self.running.pop(name).communicate()
        for pid in processes:
            gone(pid)

    def end(self) -> None:
        for started in reversed(self.running.values()):
            started.terminate()
            started.communicate()
        shutil.rmtree(self.home, ignore_errors=True)

    def vold(self, home: Path, *words: str) -> Command:
        """`vold WORDS` in a folder, as a process that this one has not been forked into: Ray has threads."""
        env = os.environ | {"PYTHONPATH": PATH, "RAY_ADDRESS": self.address}
        return Command.begun([sys.executable, "-m", "vold.cli", *words], home, env)


@dataclass(frozen=True)
class Command:
    """A command at work, and the file that holds what it says."""

    process: subprocess.Popen[bytes]
    file: Path

    @classmethod
    def begun(cls, words: list[str], home: Path, env: dict[str, str]) -> Command:
        """A command in a folder, which gets what it says."""
        file = home / "said.txt"
        with file.open("wb") as said:
            return cls(subprocess.Popen(words, cwd=home, env=env, stdout=said, stderr=said), file)

    @property
    def said(self) -> str:
        return self.file.read_text(errors="replace")

    def until(self, there: Path) -> None:
        """Come back when a file is there."""
        while not there.exists():
            assert self.process.poll() is None, self.said
            time.sleep(0.05)

    def machine_of(self, what: str) -> str:
        """The machine that a server, or the first process of a stage, was last said to be on."""
        return str(re.findall(rf"^{what}:? on (\w+)", self.said, re.M)[-1])

    def end(self, code: int) -> None:
        """Wait for it; with it all that works in its folder is gone within moments."""
        assert self.process.wait(600) == code, self.said
        for pid in [*keepers_of(self.file.parent), *of_run(self.file.parent)]:
            gone(pid)


@contextlib.contextmanager
def nodes(*names: str) -> Iterator[Nodes]:
    made = Nodes()
    try:
        made.add(*names)
        yield made
    finally:
        made.end()
