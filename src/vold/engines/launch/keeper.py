"""The program between a run and one of its servers: `python -m vold.engines.launch.keeper`.

It starts the server, copies its output to a log, and ends it, with all processes that descend from it and what they
hold in shared memory, when the run says so, when the run is gone (however it went), and when the server itself ends.
Then it says how that was. It is a process of its own so that SIGKILL to the run does not reach it; and where it is
killed itself, the kernel ends the server, and whoever starts the stage again ends the rest (`orphans`).

Nothing but the standard library is imported: a keeper takes 10 MB and 50 ms.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vold.engines.launch.family import kill, members, remove, segments
from vold.run.alive import born_of, place

if TYPE_CHECKING:
    from vold.run.alive import Seen

AFTER_A_CRASH = 1.0
"""Seconds until SIGKILL for what a server leaves that has ended by itself."""
SPARE = 1.0
"""Seconds to copy what a server has said."""
TAIL = 8192
"""Bytes of output that are kept to be shown: however they are written, a pipe takes them."""
SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36


def prctl(option: int, value: int) -> None:
    """Linux's own; elsewhere nothing."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class Keeper:
    """Keeps one server.

    Args:
        order: `command`, `env` and `cwd` of the server; `log`, a file that its output is added to; `record`, a file
            that tells who is alive; `parent`, the run's process; `grace`, seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, order: dict[str, Any]) -> None:
        self.order, self.tail, self.unwritten = order, b"", ""
        self.events = selectors.DefaultSelector()
        self.log: int | None = None
        self.server: subprocess.Popen[bytes] | None = None

    def run(self) -> dict[str, Any]:
        """Keep it; returns how it ended: `status` as of `subprocess`, the `tail` of its output."""
        prctl(SET_CHILD_SUBREAPER, 1)  # a worker that loses its parent becomes our child
        self.events.register(0, selectors.EVENT_READ, "run")
        run = os.pidfd_open(self.order["parent"])
        self.events.register(run, selectors.EVENT_READ, "run")
        if os.getppid() != self.order["parent"]:
            return {"status": 0, "tail": ""}
        try:
            self._open_log()
            self._start()
        except OSError as error:
            return {"status": 127, "tail": str(error)}
        ended = self._wait()
        self._end(self.order["grace"] if ended == "run" else AFTER_A_CRASH)
        with contextlib.suppress(OSError):
            os.unlink(self.order["record"])
        assert self.server is not None
        why = f"\n[the log could not be written: {self.unwritten}]" if self.unwritten else ""
        return {"status": self.server.poll(), "tail": self.tail.decode(errors="replace") + why}

    def _start(self) -> None:
        self.server = subprocess.Popen(
            self.order["command"], env=self.order["env"], cwd=self.order["cwd"], process_group=0,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=lambda: prctl(SET_PDEATHSIG, signal.SIGKILL),
        )  # fmt: skip
        assert self.server.stdout is not None
        self.born = born_of(self.server.pid)
        self.events.register(self.server.stdout, selectors.EVENT_READ, "output")
        self.events.register(os.pidfd_open(self.server.pid), selectors.EVENT_READ, "server")
        told = {
            "place": place(),
            "record": self.order["record"],
            "keeper": [os.getpid(), born_of(os.getpid())],
            "server": [self.server.pid, self.born],
        }
        with contextlib.suppress(OSError):  # of a full disk the log tells, and this only serves the next start
            new = Path(self.order["record"] + ".new")
            new.write_text(json.dumps(told))
            new.replace(self.order["record"])

    def _wait(self) -> str:
        """Until the run, or the server, has ended; which."""
        while True:
            for key, _ in self.events.select():
                if key.data != "output":
                    return str(key.data)
                self._copy(key)

    def _end(self, grace: float) -> None:
        assert self.server is not None
        for key in list(self.events.get_map().values()):
            if key.data != "output":  # they stay ready
                self.events.unregister(key.fileobj)
        server, deadline = self.server, time.monotonic() + grace
        had = segments(self._family())
        if server.poll() is None:
            server.terminate()
        while self._family() and time.monotonic() < deadline:
            self._drain(0.05)
        remove(had | kill(self._family, self._drain))
        self._drain(0)

    def _family(self) -> list[Seen]:
        assert self.server is not None
        self.server.poll()
        return members(self.server.pid, self.born, os.getpid())

    def _drain(self, seconds: float) -> None:
        """Copy output that comes within so many seconds, the same time if none comes, and no more than `SPARE` longer
        what comes without end."""
        deadline = time.monotonic() + seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            if not self.events.get_map():
                time.sleep(left)
                return
            ready = self.events.select(left)
            for key, _ in ready:
                self._copy(key)
            if not ready or time.monotonic() > deadline + SPARE:
                return

    def _open_log(self) -> None:
        try:
            self.log = os.open(self.order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            self.unwritten = str(error)

    def _copy(self, key: selectors.SelectorKey) -> None:
        """A server that cannot write what it says may stop at it, so its output is taken whatever becomes of it."""
        said = os.read(key.fd, 65536)
        if not said:
            self.events.unregister(key.fileobj)
            return
        self.tail = (self.tail + said)[-TAIL:]
        try:
            if self.log is not None:
                os.write(self.log, said)
        except OSError as error:
            self.unwritten = str(error)


def main() -> None:
    """Read the order from the first line of standard input, and write how it went to standard output."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    order = b""
    while not order.endswith(b"\n"):
        if not (part := os.read(0, 65536)):
            return  # the run has ended before it began
        order += part
    said = Keeper(json.loads(order)).run()
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(said).encode())


if __name__ == "__main__":
    main()
    sys.exit(0)
