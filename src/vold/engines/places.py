"""Which server a request goes to, and over which connection.

A pool of connections that all threads share is looked through from end to end for every request, which at 256 requests
under way takes longer than all the rest. Here each request borrows a client of one connection.
"""

from __future__ import annotations

import contextlib
import itertools
import resource
import threading
import time
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING

from vold.engines.bodies import dumped
from vold.engines.deadline import TICK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import httpx

    from vold.engines.deadline import Stop
    from vold.run.records import JsonObject

SHUNNED_SECONDS = 20.0
"""A server that has failed is asked after the others for so long, unless it answers before."""
OTHER_FILES = 512
"""Files that a process has open besides connections."""


class Places:
    """Room on servers that answer the same requests. Safe to use from several threads.

    Args:
        each: requests that one server works at side by side.
    """

    def __init__(self, each: int) -> None:
        self.each = each
        self._busy, self._failed, self._changed = Counter[str](), dict[str, float](), threading.Condition()

    def take(self, bases: Sequence[str], stop: Stop) -> str:
        """The least busy of these servers, the first of equals; waits for one with room.

        Once `stop` is set nobody waits for room.
        """
        with self._changed:
            while not (free := [b for b in bases if self._busy[b] < self.each]) and not stop.is_set():
                self._changed.wait(TICK_SECONDS)
            best = min(free or bases, key=lambda b: (self.is_shunned(b), self._busy[b]))
            self._busy[best] += 1
            return best

    def give_back(self, base: str, *, failed: bool) -> None:
        """Take a request off a server, which has answered it or not."""
        with self._changed:
            self._busy[base] -= 1
            if failed:
                self._failed[base] = time.monotonic()
            else:
                self._failed.pop(base, None)
            self._changed.notify_all()

    def is_shunned(self, base: str) -> bool:
        """Whether it has failed lately, and not answered since."""
        return time.monotonic() < self._failed.get(base, -SHUNNED_SECONDS) + SHUNNED_SECONDS


class Groups:
    """Requests that share most of their body, in groups: those of a group go to one server, which keeps what it has
    made of their prompt. A server with room gets the next request of the group that it has begun, then the first of
    another. So no place waits for the others of a group, and none for a server that is full. What a server that has
    failed leaves of its group goes to others. Safe to use from several threads.

    Args:
        places: on the servers.
        shared: what the requests of each group have in common; written once, when the first of them is sent.
        own: of each group, what else each of its requests says. Requests are numbered through.
    """

    def __init__(self, places: Places, shared: Sequence[JsonObject], own: Sequence[Sequence[JsonObject]]) -> None:
        self.places, self.shared = places, shared
        numbers = itertools.count()
        self._waiting = deque((group, deque((next(numbers), one) for one in of)) for group, of in enumerate(own))
        self._begun: dict[str, tuple[int, bytes, deque[tuple[int, JsonObject]]]] = {}
        self._lock = threading.Lock()

    def take(self, bases: Sequence[str], stop: Stop) -> tuple[str, int, int, tuple[bytes, ...]]:
        """A place that was taken on one of these servers, and for which request: its group, its number, its body. To be
        called as often as there are requests, or less."""
        with self._lock:
            left = next((b for b in self._begun if self.places.is_shunned(b)), "")
            base = self.places.take(bases if self._waiting or left else [*self._begun], stop)
            if base not in self._begun:
                self._begun[base] = self._first() if self._waiting else self._begun.pop(left)
            group, head, rest = self._begun[base]
            number, own = rest.popleft()
            if not rest:
                del self._begun[base]
        return base, group, number, (head, b"," + dumped(own)[1:] if own else b"}")

    def _first(self) -> tuple[int, bytes, deque[tuple[int, JsonObject]]]:
        group, requests = self._waiting.popleft()
        return group, dumped(self.shared[group])[:-1], requests


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
