"""A clock for a whole HTTP request: connect, send, and every byte of status line, headers and body.

A time-out of httpx is one between two bytes; a server that sends a byte a second never meets it. Here every wait for
the network is cut into short ones, and the clock is looked at between two of them.
"""

from __future__ import annotations

import contextlib
import math
import select
import threading
import time
from typing import TYPE_CHECKING, Any

import httpcore

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator

    import httpx

TICK_SECONDS = 0.25
"""How long a wait goes on before the clock is looked at."""
LAST_SECONDS = 60.0
"""What is under way when another request fails may still end well for this long: it is paid for."""
WRITE_BYTES = 1 << 18


class _Own(threading.local):
    watch: Watch
    """Of the request that this thread sends."""


_own = _Own()


class Stop(threading.Event):
    """Set where no further request is to be sent; `at_once` where nobody waits for those under way either."""

    at_once = False


class Watch:
    """The clock of one request.

    Args:
        seconds: it may take; a server that answers others meanwhile is at work, and has as many after each of these.
        longest: it may take however many others are answered.
        answered: when the server last gave a whole reply.
        stop: ends it early, `LAST_SECONDS` after it is set, or at once.
        slow: is called once, that many seconds after the beginning.
    """

    def __init__(
        self,
        seconds: float,
        longest: float,
        answered: Callable[[], float],
        stop: Stop,
        slow: tuple[float, Callable[[], None]],
    ) -> None:
        self.seconds, self.answered, self.stop = seconds, answered, stop
        self.began = time.monotonic()
        self.last, self._slow_at, self._slow = self.began + longest, self.began + slow[0], slow[1]
        self._stopped = False

    @property
    def waited(self) -> float:
        """Seconds for which the server has said nothing whole, to this request or another."""
        return time.monotonic() - max(self.began, self.answered())

    def left(self) -> float:
        """Seconds that are left.

        Raises:
            httpcore.ReadTimeout: none.
        """
        now = time.monotonic()
        if not self._stopped and self.stop.is_set():
            self._stopped, self.last = True, min(self.last, now + LAST_SECONDS)
        end = now if self.stop.at_once else min(self.last, max(self.began, self.answered()) + self.seconds)
        if now >= end:
            raise httpcore.ReadTimeout(f"no whole reply in {now - self.began:.3g} s")
        if now >= self._slow_at:
            self._slow_at = math.inf
            self._slow()
        return end - now

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Inside, this thread's requests end with this clock."""
        _own.watch = self
        try:
            yield
        finally:
            del _own.watch


class _Stream(httpcore.NetworkStream):
    """A connection whose every wait ends with the clock of the thread that waits."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self.inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        while True:
            left = min(_own.watch.left(), TICK_SECONDS)
            if self._may_have_more(left):
                with contextlib.suppress(httpcore.ReadTimeout):
                    return self.inner.read(max_bytes, left)

    def _may_have_more(self, seconds: float) -> bool:
        """Wait for bytes. A time-out of a read costs ten times as much, which 256 threads that wait would feel."""
        if self.inner.get_extra_info("ssl_object") is not None:
            return True  # bytes may wait inside it
        ready = select.poll()
        ready.register(self.inner.get_extra_info("socket"), select.POLLIN)
        return bool(ready.poll(1000 * seconds))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        rest = memoryview(buffer)  # a slice of bytes is a copy
        for start in range(0, len(rest), WRITE_BYTES):
            piece: Any = rest[start : start + WRITE_BYTES]
            self.inner.write(piece, _own.watch.left())

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self.inner.start_tls(ssl_context, server_hostname, timeout))

    def close(self) -> None:
        self.inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)


class _Backend(httpcore.SyncBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        seconds = min(_own.watch.left(), math.inf if timeout is None else timeout)
        return _Stream(super().connect_tcp(host, port, seconds, local_address, socket_options))


def watched(client: httpx.Client) -> httpx.Client:
    """The client, whose connections (those through a proxy too) mind the `Watch` of the thread that uses them. Without
    one that is `running` it can send nothing."""
    # httpx does not pass a backend on to httpcore, which takes one.
    for transport in (client._transport, *client._mounts.values()):
        pool: Any = getattr(transport, "_pool", None)
        if pool is not None:
            pool._network_backend = _Backend()
    return client
