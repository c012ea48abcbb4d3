"""The live page in tests: a server of its own beside the test, and what a page is asked about it."""

from __future__ import annotations

import contextlib
import http.client
import threading
from typing import TYPE_CHECKING

from vold.report.serve import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Server]:
    """A server of a run, or of a folder of runs."""
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def get(server: Server, path: str, host: str | None = None, method: str = "GET") -> tuple[int, str]:
    """Status and body of what lies at a path, which begins with a slash."""
    there = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    try:
        there.putrequest(method, path, skip_host=True)
        there.putheader("Host", host or f"127.0.0.1:{server.server_port}")
        there.endheaders()
        reply = there.getresponse()
        return reply.status, reply.read().decode()
    finally:
        there.close()


def until(condition: str) -> str:
    """JavaScript that waits for a condition, looking at it now and then."""
    return f"new Promise(r => {{ const look = () => {condition} ? r(true) : setTimeout(look, 20); look(); }})"
