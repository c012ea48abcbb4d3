"""All processes of a server, and what they leave in shared memory. Nothing but the standard library."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vold.run.alive import every, seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vold.run.alive import Seen

SHARED = "/dev/shm/"
SECONDS_TO_DIE = 10.0
"""After SIGKILL. A process that waits for a driver or a disk may take some."""


def members(group: int, born: int, keeper: int = 0) -> list[Seen]:
    """Living processes of a server.

    Args:
        group: the server's process id, which is also that of its process group.
        born: its start. Where another process has its id, its own group is gone.
        keeper: adds all that descend from this process, whatever their group.
    """
    leader = seen(group)
    if leader is not None and leader.born != born:
        return []
    alive = [one for one in every() if one.state not in "ZX"]
    found = {one.pid for one in alive if one.group == group}
    known = {keeper} if keeper else set()
    while new := {one.pid for one in alive if one.parent in known} - known:
        known |= new
    return [one for one in alive if one.pid in (found | known) - {keeper}]


def segments(family: list[Seen]) -> set[str]:
    """Named pieces of shared memory that some processes have mapped: files that lie right in /dev/shm."""
    return {path for one in family for path in _mapped(one.pid)}


def _mapped(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            path = line[line.find("/") :]
            if path.startswith(SHARED) and "/" not in path.removeprefix(SHARED) and not path.endswith(" (deleted)"):
                yield path


def kill(find: Callable[[], list[Seen]], meanwhile: Callable[[float], None]) -> set[str]:
    """SIGKILL to a family until none is left, or `SECONDS_TO_DIE` have passed; the segments it had.

    Args:
        find: the family as it is now; a member may start another before it ends.
        meanwhile: waits for so many seconds.
    """
    had: set[str] = set()
    deadline = time.monotonic() + SECONDS_TO_DIE
    while (family := find()) and time.monotonic() < deadline:
        had |= segments(family)
        for one in family:
            with contextlib.suppress(OSError):
                os.kill(one.pid, signal.SIGKILL)
        meanwhile(0.02)
    return had


def remove(had: set[str]) -> None:
    """Remove pieces of shared memory that nobody has mapped any more: a process that is killed leaves its own."""
    if had:
        for path in had - segments(every()):
            with contextlib.suppress(OSError):
                os.unlink(path)
