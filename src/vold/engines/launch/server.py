"""One server: started through a keeper, waited for, started again where it dies, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

import vold
from vold.engines.launch.family import kill, members, remove
from vold.run.alive import born_of, place, seen
from vold.run.console import console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vold.engines.launch.spec import Wanted

LOOPBACK = "127.0.0.1"
"""Only this machine reaches it."""
RESTARTS = 3
"""Times in a row that a server is started again."""
STEADY_SECONDS = 600.0
"""One that has served so long has its restarts anew."""
LOOK_SECONDS, HUNG_SECONDS = 10.0, 300.0
"""A server at work is looked at so often, and one that has not answered for so long is started again: it may be slow
while it answers many, or compiles."""
LOGS = 5
"""Logs of earlier starts that are kept."""
GRACE = 10.0
"""Seconds that a server has to end its workers itself."""
SHOWN = 6
"""Last lines of a log that an error quotes, beside those that name an error."""
KEEPER_SECONDS = 40.0
"""A keeper whose run is gone has ended its server by then."""
ERROR = re.compile(r"\b[A-Z]\w*(Error|Exception): ")
IN_USE = "ddress already in use"


class HeldPort:
    """A free port of this machine, bound and never listened on, so that no other process is given it.

    A connection to it is refused. A server that sets SO_REUSEADDR, as vLLM's, the standard library's and the store of
    PyTorch's processes do, can listen on it, end, and listen again. It is held at every address of the machine: that
    store listens at all of them, which a port that another program has at one of them would not let it.
    """

    def __init__(self) -> None:
        both = socket.has_dualstack_ipv6()
        self._socket = socket.socket(socket.AF_INET6 if both else socket.AF_INET)
        if both:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("", 0))
        self.number = int(self._socket.getsockname()[1])

    def free(self) -> None:
        """Let the port go."""
        self._socket.close()


class LaunchedServer:
    """A server that this process has started.

    Args:
        spec: which.
        directory: for its log and its record.
        key: what it asks of whoever asks it.
        host: the address that it listens on.
        report: is told when it is started again.

    Attributes:
        ready: set when it answers; cleared while it is started again.
        failure: why it is not started any more; empty while it is.
        turn: set while it may have its GPUs. One that dies in its sleep is started when its turn comes.
        now: where it has come to another machine: its base address there.
        file: holds that, for processes elsewhere.
    """

    now = file = ""

    def __init__(
        self,
        spec: Wanted,
        directory: Path,
        key: str,
        host: str = LOOPBACK,
        report: Callable[[str], None] = lambda words: console.print(words),
    ) -> None:
        self.spec, self.key, self.failure, self.host, self.report = spec, key, "", host, report
        self.log, self.record = directory / f"{spec.name}.log", directory / f"{spec.name}.json"
        self.ready, self.turn = threading.Event(), threading.Event()
        self.turn.set()
        self.port = HeldPort()
        self.began = time.monotonic()
        self._ending = threading.Event()
        self._keeper: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._watch, name=f"server {spec.name}", daemon=True)
        directory.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Its base address."""
        return f"http://{self.host}:{self.port.number}/v1"

    def last_line(self) -> str:
        """The last line of its log."""
        return last_line(self.log)

    def stop(self) -> None:
        """Tell it to end; `wait` sees it ended."""
        self._ending.set()
        self.turn.set()
        tell_to_end(self._keeper)

    def wait(self) -> None:
        """Come back when all its processes are gone."""
        self._thread.join()
        self.port.free()

    def _watch(self) -> None:
        """Start it, and again where it dies; in a thread of its own."""
        again = 0
        while not self._ending.is_set():
            try:
                served, why = self._live()
            except (OSError, ValueError) as error:
                served, why = 0.0, f"cannot be started: {error}"
            self.ready.clear()
            if self._ending.is_set():
                return
            again = 0 if served > STEADY_SECONDS else again
            taken = not served and not again and IN_USE in why
            if taken:
                self.port.free()
                self.port = HeldPort()
            if again == RESTARTS or (not served and not again and not taken):
                self.failure = why
                return
            again += 1
            self.report(f"server {self.spec.name} {why}\nstarting it again, {again} of {RESTARTS}")
            self.turn.wait()

    def _live(self) -> tuple[float, str]:
        """From a start to its end: the seconds that it has served, and how it ended."""
        with contextlib.suppress(OSError):
            rotate(self.log)
        self.began, up, why = time.monotonic(), 0.0, ""
        with kept(self._order()) as keeper:
            self._keeper = keeper
            if self._ending.is_set():
                tell_to_end(self._keeper)
            while not up and not why and not self._ending.is_set() and not _over(keeper):
                if answers(self.url, self.key, self.spec.served):
                    up = time.monotonic()
                    self.ready.set()
                elif time.monotonic() - self.began > self.spec.start_seconds:
                    why = f"does not answer {self.spec.start_seconds:g} s after its start; {self.last_line()}"
                    tell_to_end(self._keeper)
            why = why or (self._listen(keeper) if up else "")
            assert keeper.stdout is not None
            told = keeper.stdout.read()
        self._keeper = None
        if not told:  # it was killed itself
            end_left_behind(self.record)
        return time.monotonic() - up if up else 0.0, why or how_it_ended(*last_words(told))

    def _listen(self, keeper: subprocess.Popen[bytes]) -> str:
        """While it is at work, until it ends; why, where it lives and does not answer. A sleeper is let sleep."""
        looked = heard = time.monotonic()
        while not self._ending.is_set() and not _over(keeper):
            now = time.monotonic()
            if now - looked < LOOK_SECONDS:
                continue
            looked = now
            if not self.turn.is_set() or answers(self.url, self.key, self.spec.served):
                heard = time.monotonic()
            elif now - heard > HUNG_SECONDS:
                tell_to_end(keeper)
                return f"has not answered for {HUNG_SECONDS:g} s; {self.last_line()}"
        return ""

    def _order(self) -> dict[str, object]:
        """For the keeper of a new start."""
        return {
            "command": self.spec.command(self.host, self.port.number),
            "env": self.spec.environment(self.key, self.log.parent),
            "cwd": str(self.log.parent.resolve()),
            "log": str(self.log.resolve()),
            "record": str(self.record.resolve()),
        }


@contextlib.contextmanager
def kept(order: Mapping[str, object]) -> Iterator[subprocess.Popen[bytes]]:
    """The keeper of a program; see `vold.engines.launch.keeper.Keeper`."""
    order = {**order, "parent": os.getpid(), "grace": GRACE}
    path = os.pathsep.join([str(Path(vold.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    with subprocess.Popen(
        [sys.executable, "-m", "vold.engines.launch.keeper"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path}, process_group=0,
    ) as keeper:  # fmt: skip
        assert keeper.stdin is not None
        keeper.stdin.write(json.dumps(order).encode() + b"\n")
        keeper.stdin.flush()
        yield keeper


def tell_to_end(keeper: subprocess.Popen[bytes] | None) -> None:
    """Have a keeper end its program."""
    if keeper is not None and keeper.stdin is not None:
        with contextlib.suppress(OSError, ValueError):
            keeper.stdin.write(b"end\n")
            keeper.stdin.flush()


def last_line(log: Path) -> str:
    """The last line of a log; empty where it has none."""
    with contextlib.suppress(OSError), log.open("rb") as f:
        f.seek(max(0, log.stat().st_size - 4096))
        lines = f.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


def _over(keeper: subprocess.Popen[bytes]) -> bool:
    """Whether it ends within a moment."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        keeper.wait(0.2)
    return keeper.returncode is not None


def answers(url: str, key: str, served: str) -> bool:
    """Whether the server at this address is at work, has this key, and serves the model under this name.

    One that answers without the key is another program that has come to our port.
    """
    try:
        # Certificates, which HTTP has none of, take 40 ms to read, and this is asked five times a second.
        with httpx.Client(trust_env=False, timeout=5.0, verify=False) as client:
            if client.get(url.removesuffix("/v1") + "/health").status_code != 200:
                return False
            asked = client.get(url + "/models", headers={"Authorization": f"Bearer {key}"})
            names = [one["id"] for one in asked.json()["data"]] if asked.status_code == 200 else []
            return served in names and client.get(url + "/models").status_code == 401
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return False


def last_words(told: bytes) -> tuple[int | None, str]:
    """How a program ended by what its keeper said at its own end: status, as of `subprocess`, and the tail of what the
    program said; None where the keeper said nothing."""
    said: Any = json.loads(told) if told else {"status": None, "tail": ""}
    return said["status"], said["tail"]


def how_it_ended(status: int | None, tail: str) -> str:
    """In words, with the lines of its output that say why."""
    if status is None:
        ended = "has lost its keeper, and was ended"
    elif status < 0:
        ended = f"was killed by signal {-status} ({signal.Signals(-status).name})"
    else:
        ended = f"has ended with status {status}"
    lines = [line.rstrip() for line in tail.splitlines() if line.strip()]
    last = lines[-SHOWN:]
    said = list(dict.fromkeys([*(line for line in lines if ERROR.search(line) and line not in last), *last]))
    return "\n    ".join([ended + (", and said last:" if said else ""), *said])


def rotate(log: Path) -> None:
    """Move the log of an earlier start away: `NAME.log` becomes `NAME.1.log`, that one `NAME.2.log`, and so on."""
    places = [log, *(log.with_name(f"{log.stem}.{n}.log") for n in range(1, LOGS + 1))]
    for older, newer in zip(reversed(places[1:]), reversed(places[:-1]), strict=True):
        if newer.exists():
            newer.replace(older)


def end_left_behind(record: Path) -> bool:
    """End what an earlier start has left of a server, as its record tells; whether there was anything.

    A record of another machine, of before it was started, or of a run that this one is a copy of, tells of nothing
    here.
    """
    try:
        told = json.loads(record.read_text())
        (keeper, keeper_born), (server, born) = told["keeper"], told["server"]
        here = bool(place()) and (told["place"], told["record"]) == (place(), str(record.resolve()))
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if not here:
        return False
    found = False
    deadline = time.monotonic() + KEEPER_SECONDS
    while keeper and born_of(keeper) == keeper_born and (one := seen(keeper)) is not None and one.state not in "ZX":
        found = True
        if time.monotonic() > deadline:  # else it is about to end the server, as its run is gone
            with contextlib.suppress(OSError):
                os.kill(keeper, signal.SIGKILL)
        time.sleep(0.05)
    found = found or bool(members(server, born))
    remove(kill(lambda: members(server, born), time.sleep))
    with contextlib.suppress(OSError):
        record.unlink()
    return found
