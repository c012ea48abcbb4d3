"""Processes of this machine, told apart by their id and their start. Nothing but the standard library."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import NamedTuple


class Seen(NamedTuple):
    """A process: its id, its state in the kernel's letters, its parent, its process group, and its start in the
    kernel's ticks."""

    pid: int
    state: str
    parent: int
    group: int
    born: int


def place() -> str:
    """The machine since it was started and the process ids that are seen here; empty where the kernel does not say."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return ""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def seen(pid: int) -> Seen | None:
    """A process; None if there is none to be seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return Seen(pid, fields[0], int(fields[1]), int(fields[2]), int(fields[19]))
    except (OSError, IndexError, ValueError):
        return None


def born_of(pid: int) -> int:
    """The start of a process; 0 if there is none to be seen."""
    found = seen(pid)
    return 0 if found is None else found.born


def every() -> list[Seen]:
    """All processes that can be seen."""
    return [one for name in os.listdir("/proc") if name.isdecimal() and (one := seen(int(name))) is not None]


def exists(pid: int) -> bool:
    """Whether there is a process of this id, hidden ones included."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
