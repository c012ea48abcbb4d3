"""Which server a request goes to, and over which connection.

A pool of connections that all threads share is looked through from end to end for every request, which at 256 requests
under way takes longer than all the rest. Here each request borrows a client of one connection.
"""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from vold.engines.deadline import TICK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import httpx

    from vold.engines.deadline import Stop

SHUNNED_SECONDS = 20.0
"""A server that has failed is asked after the others for so long, unless it answers before."""
OTHER_FILES = 512
"""Files that a process has open besides connections."""


class Places:
    """Room on servers that answer the same requests. Safe to use from several threads.

    Args:
        each: answers that one server works at side by side.
    """

    def __init__(self, each: int) -> None:
        self.each = each
        self._busy, self._failed, self._changed = Counter[str](), dict[str, float](), threading.Condition()

    def take(self, bases: Sequence[str], answers: int, stop: Stop) -> str:
        """The least busy of these servers, the first of equals; waits for one with room for so many answers.

        Once `stop` is set nobody waits for room.
        """
        with self._changed:
            while not (free := [b for b in bases if self._has_room(b, answers)]) and not stop.is_set():
                self._changed.wait(TICK_SECONDS)
            best = min(free or bases, key=lambda b: (self._is_shunned(b), self._busy[b]))
            self._busy[best] += answers
            return best

    def give_back(self, base: str, answers: int, *, failed: bool) -> None:
        """Take a request off a server, which has answered it or not."""
        with self._changed:
            self._busy[base] -= answers
            if failed:
                self._failed[base] = time.monotonic()
            else:
                self._failed.pop(base, None)
            self._changed.notify_all()

    def _has_room(self, base: str, answers: int) -> bool:
        return not self._busy[base] or self._busy[base] + answers <= self.each

    def _is_shunned(self, base: str) -> bool:
        return time.monotonic() < self._failed.get(base, -SHUNNED_SECONDS) + SHUNNED_SECONDS


class Connections:
    """Clients of one connection each, lent to one thread at a time, by server."""

    def __init__(self, make: Callable[[], httpx.Client]) -> None:
        self.make = make
        self._free: defaultdict[str, list[httpx.Client]] = defaultdict(list)

    @contextlib.contextmanager
    def lent(self, base: str) -> Iterator[httpx.Client]:
        """A client that nobody else uses inside the block."""
        free = self._free[base]
        try:
            client = free.pop()  # of a list and one thread at a time: no lock is needed
        except IndexError:
            client = self.make()
        try:
            yield client
        finally:
            free.append(client)

    def close(self) -> None:
        """Close those that are not lent."""
        for free in self._free.values():
            while free:
                free.pop().close()


def allow_connections(count: int) -> None:
    """Raise this process's limit of open files, as far as it may, to hold so many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
