"""The disk is full at some point of a stage; there is room again; the stage goes on and leaves what it should.

A small file system in memory is mounted over the run's directory, in a mount namespace of one child. Where the system
does not allow that, the size of each file is limited instead: a write fails at the same places.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import tempfile
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

from faults.frame import Ended, Fault, Outcome, in_a_child, judged, vold_in
from faults.runs import STAGES, Runs, runs

SIZES = 20
"""Of the disk, for each stage: from no room at all to what it needs."""

PAGE = 4096

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_REMOUNT, MS_REC, MS_PRIVATE = 0x20, 0x4000, 0x40000


def faults() -> list[Fault]:
    """All sizes for each stage."""
    made = runs()
    inject = _full if _can_mount() else _limited
    out = []
    for stage in STAGES:
        before = _pages(made.home / "before" / stage / "run")
        most = _pages(made.after(stage) / "run") - before + _largest(made.after(stage) / "run")
        for free in sorted({most * i // (SIZES - 1) for i in range(SIZES)}):
            out.append(Fault("disk", f"{stage} with {4 * free} KiB free", partial(inject, made, stage, before, free)))
    return out


def _pages(place: Path) -> int:
    """Pages of memory that a copy takes."""
    return sum(-(-f.stat().st_size // PAGE) for f in place.rglob("*") if f.is_file())


def _largest(place: Path) -> int:
    """Of the folders of a stage that hold no others: a checkpoint is written whole before an older one goes."""
    return max((_pages(d) for d in place.glob("*/*") if d.is_dir()), default=0)


def _full(made: Runs, stage: str, before: int, free: int, home: Path) -> Outcome:
    (home / "run").mkdir()

    def work() -> int:
        _own_mounts()
        _mount(home / "run", max(1, before + free) * PAGE)
        made.before(stage, home)
        first = vold_in([stage, made.recipe], home)
        _mount(home / "run", 1 << 30, MS_REMOUNT)
        print(json.dumps(asdict(_judged(made, stage, home, first))))
        return 0

    return _said(in_a_child(work, 120))


def _limited(made: Runs, stage: str, before: int, free: int, home: Path) -> Outcome:
    made.before(stage, home)
    size = free * PAGE // 8  # a stage makes several files

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return _judged(made, stage, home, vold_in([stage, made.recipe], home, limit))


def _judged(made: Runs, stage: str, home: Path, first: Ended) -> Outcome:
    """The verdict on the first run, if a second one with room leaves what it should."""
    outcome = judged(first, lambda: True)
    return outcome if outcome.verdict == "lost" else made.going_on(stage, home, outcome)


def _said(ended: Ended) -> Outcome:
    if ended.code != 0:
        return Outcome("lost", f"the fault itself failed: {ended.said.strip()[-300:]}")
    return Outcome(**json.loads(ended.said.strip().splitlines()[-1]))


@cache
def _can_mount() -> bool:
    def work() -> int:
        _own_mounts()
        _mount(Path(tempfile.gettempdir()), 1 << 20)
        return 0

    return in_a_child(work).code == 0


def _own_mounts() -> None:
    """Give this process mounts that nobody else sees; one that is not root becomes root of its own for it."""
    user, group = os.geteuid(), os.getegid()
    _call("unshare", CLONE_NEWNS | (0 if user == 0 else CLONE_NEWUSER))
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)


def _mount(place: Path, size: int, flags: int = 0) -> None:
    """A file system in memory of so many bytes at `place`."""
    _call("mount", b"none", os.fsencode(place), b"tmpfs", flags, f"size={size}".encode())


def _call(name: str, *args: int | bytes | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*args) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
