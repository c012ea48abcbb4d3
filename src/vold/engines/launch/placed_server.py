"""A server on a machine of a cluster: placed by Ray, started again there where it dies, and on another machine where
its own is lost."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from vold.engines.launch.server import GRACE, RESTARTS, STEADY_SECONDS, last_line
from vold.run.console import console

if TYPE_CHECKING:
    from pathlib import Path

    from vold.engines.launch.cluster import Machines
    from vold.engines.launch.spec import Wanted

END_SECONDS = 2 * GRACE
"""A place has ended its server by then, or its machine does not answer any more."""


class PlacedServer:
    """As `vold.engines.launch.server.LaunchedServer`, on some machine of a cluster.

    Args:
        spec: which.
        directory: for its log and its record; all machines see it.
        key: what it asks of whoever asks it.
        machines: those of the run.

    Attributes:
        url: the base address that it had first, by which it is known.
        now: that of today.
        file: holds it, for processes elsewhere.
    """

    def __init__(self, spec: Wanted, directory: Path, key: str, machines: Machines) -> None:
        self.spec, self.key, self.failure, self.machines = spec, key, "", machines
        directory = directory.resolve()
        self.log, self.record = directory / f"{spec.name}.log", directory / f"{spec.name}.json"
        self.file = directory / f"{spec.name}.address"
        self.ready, self.turn = threading.Event(), threading.Event()
        self.url = self.now = ""
        self.began = time.monotonic()
        self._ending = threading.Event()
        self._place: Any = None
        directory.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._watch, name=f"server {spec.name}", daemon=True)
        self._thread.start()

    def last_line(self) -> str:
        """The last line of its log."""
        return last_line(self.log)

    def stop(self) -> None:
        """Tell it to end; `wait` sees it ended."""
        self._ending.set()

    def wait(self) -> None:
        """Come back when all its processes are gone."""
        self._thread.join()
        with contextlib.suppress(OSError):
            self.file.unlink()

    def _watch(self) -> None:
        """Place it, and again where its machine is lost; in a thread of its own."""
        again = 0
        while not self._ending.is_set():
            self.began, served = time.monotonic(), 0.0
            where, why = "", ""
            try:
                where = self._start()
                why = self._look()
                if why or self._ending.is_set():
                    self.failure = why
                    return
            except (TimeoutError, self.machines.ray.exceptions.RayError) as error:
                lost = f"has lost its place on {where}" if where else _nowhere(error)
                why = f"{lost}: {self.machines.reason(error)}"
            except Exception as error:  # a full disk, say: whoever waits for this server is told
                self.failure = f"cannot be watched: {type(error).__name__}: {error}"
                return
            finally:
                self._leave()
            served = time.monotonic() - self.began if self.ready.is_set() else 0.0
            self.ready.clear()
            again = 0 if served > STEADY_SECONDS else again
            if self._ending.is_set():
                return
            if not where or again == RESTARTS:
                self.failure = why
                return
            again += 1
            console.print(f"server {self.spec.name} {why}\nstarting it where there is room, {again} of {RESTARTS}")

    def _start(self) -> str:
        """Place it; returns where that is."""
        gpus = len(self.spec.devices)
        self._place = self.machines.place(gpus=gpus, cpus=0 if gpus else 1)
        found = self.machines.wait(self._place.where.remote(), self.spec.start_seconds, self._goes_on)
        where, address = self.machines.name_of(found), self.machines.address_of(found.node)
        self.machines.wait(self._place.serve.remote(self.spec, self.log.parent, self.key, address), END_SECONDS)
        console.print(f"server {self.spec.name}: on {where}")
        return where

    def _look(self) -> str:
        """Until it is to end, or is given up on its machine: why."""
        while self._goes_on():
            look = self.machines.wait(self._place.look.remote(), END_SECONDS)
            for words in look.said:
                console.print(words)
            if look.url and look.url != self.now:
                self.now = look.url
                self.url = self.url or look.url
                if look.url != self.url:
                    self.file.write_text(look.url)
            if look.url:
                self.ready.set()
            elif self.now:
                self.ready.clear()
            if look.failure:
                return str(look.failure)
            self._ending.wait(0.5)
        return ""

    def _leave(self) -> None:
        if self._place is not None:
            self.machines.stop([self._place], END_SECONDS)
            self._place = None

    def _goes_on(self) -> bool:
        return not self._ending.is_set()


def _nowhere(error: Exception) -> str:
    """What a server has that got no place."""
    return "found no room on any machine" if isinstance(error, TimeoutError) else "could not begin on its machine"
