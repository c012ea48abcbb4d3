"""One process at a time works in a run directory.

`RUN/.lock/` holds numbered files. The highest number says who works here, or that the last owner has let go. A process
becomes the owner by making the file of the next number, which succeeds for one of any number of processes (`os.link`,
and O_EXCL where there are no hard links), on shared file systems too. So whether the present owner is free, dead or
alive is decided before, and two that find it dead can not both follow it. Files are never renamed or made again.

On the owner's own machine, and among processes that see the same process ids, an owner is dead when there is no
process of its id and start time. From anywhere else its heartbeat is watched: a number in its file that must change
within a few beats, counted by the watcher's own clock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import platform
import threading
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vold.errors import ConfigError, DataError, InUse
from vold.run import alive
from vold.run.console import Bar, console
from vold.run.placed import placed
from vold.run.records import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK = ".lock"
SIZE = 2048
"""Bytes of a file: a heartbeat overwrites it in place, which a full disk does not prevent."""
NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK}
LONGEST_BEAT = 600.0
LONGEST_WHY = 160
"""Characters, so that a file has room for them however they are written."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Owner:
    """Who works in a run directory. `place` stands for the machine since it was started and the process ids that are
    seen there, empty where that is not known; `born` is the start of process `pid` in the kernel's ticks. `every` is
    the time between two changes of `beats`, in seconds. `state` is `held` or `free`. What changes keeps its length, so
    that a reader who comes in the middle of a change reads one or the other: `fail` is a free one after an error, of
    which `why` has the first line."""

    token: str
    verb: str
    host: str
    place: str
    pid: int
    born: int
    since: str
    every: float
    beats: str = f"{0:012}"
    state: Literal["held", "free", "fail"] = "held"
    why: str = ""

    def __str__(self) -> str:
        return f"`vold {self.verb}`, process {self.pid} on {self.host}, since {self.since}"


class RunLock:
    """The lock of one run directory; `owning` is the way to hold it.

    Args:
        directory: the run's.
        verb: what is going to work there.

    Attributes:
        beat: seconds between two heartbeats.
        missed: so many beats without a change, and an owner elsewhere counts as dead.
    """

    beat = 10.0
    missed = 6

    def __init__(self, directory: Path, verb: str) -> None:
        self.directory, self.home, self.thread = directory, directory / LOCK, threading.get_ident()
        self.owner = Owner(
            token=uuid.uuid4().hex,
            verb=verb,
            host=platform.node() or "this machine",
            place=alive.place(),
            pid=os.getpid(),
            born=alive.born_of(os.getpid()),
            since=f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}",
            every=self.beat,
        )
        self._file: Path | None = None
        self._end = threading.Event()
        self._beating = threading.Thread(target=self._beat_on, name="heartbeat of a run", daemon=True)

    def acquire(self) -> None:
        """Become the owner.

        Raises:
            InUse: another process is.
            OSError: the directory cannot be made or written.
        """
        self._made = [p for p in (self.directory, *self.directory.parents) if not p.exists()]
        while self._file is None:
            self.home.mkdir(parents=True, exist_ok=True)
            last = _highest(self.home)
            if last:
                self._refuse_if_alive(self.home / str(last))
            # Numbers go on rising where the directory was removed and made again.
            self._file = self._put(self.home / str(last + 1 if last else time.time_ns()))
        for other in self.home.iterdir():
            if other != self._file:
                with contextlib.suppress(OSError):
                    other.unlink()
        self._beating.start()

    def release(self, error: Exception | None = None) -> None:
        """Let go, after this error; a directory that holds nothing else, and was made for this, is removed again."""
        if self._file is None or self.owner.pid != os.getpid():
            return
        self._end.set()
        if self._beating.is_alive():
            self._beating.join()
        with contextlib.suppress(OSError):
            why = "" if error is None else str(error).strip().partition("\n")[0][:LONGEST_WHY]
            self._write(dataclasses.replace(self.owner, state="free" if error is None else "fail", why=why))
            if self._made and [p.name for p in self.directory.iterdir()] == [LOCK]:
                self._file.unlink()
                for made in (self.home, *self._made):
                    made.rmdir()

    def confirm(self) -> None:
        """See that this is still the owner.

        Raises:
            ConfigError: another process has taken over, or somebody has removed the lock.
        """
        if self._file is None:
            return
        now = _read(self._file)
        if now is not None and now.token == self.owner.token and _highest(self.home) == int(self._file.name):
            return
        follower = _read(self.home / str(_highest(self.home)))
        raise ConfigError(
            "this process does not own its run directory any more, and has stopped before it wrote anything",
            where=str(self.directory),
            got=f"taken over by {follower}" if follower is not None else f"somebody has removed {self.home}",
            fix="leave the run to the other process; or when that has ended, repeat the command",
        )

    def _put(self, file: Path) -> Path | None:
        """Make a file of the lock; None if another process was faster."""
        new = self.home / f"{self.owner.token}.new"
        try:
            with new.open("wb") as f:
                f.write(_content(self.owner))
                f.flush()
                os.fsync(f.fileno())
            try:
                os.link(new, file)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                with file.open("xb") as f:
                    f.write(_content(self.owner))
            new.unlink(missing_ok=True)
        except (FileExistsError, FileNotFoundError):
            # A server's answer may get lost, and the question be put to it again.
            mine = _read(file)
            new.unlink(missing_ok=True)
            return file if mine is not None and mine.token == self.owner.token else None
        if _highest(self.home) != int(file.name):  # of a number that was taken and left behind meanwhile
            file.unlink(missing_ok=True)
            return None
        return file

    def _beat_on(self) -> None:
        """Change the file at every beat. One that fails, on a full disk say, is left out."""
        beats = 0
        while not self._end.wait(self.owner.every):
            beats += 1
            with contextlib.suppress(OSError):
                try:
                    self.confirm()
                    self._write(dataclasses.replace(self.owner, beats=f"{beats:012}"))
                except ConfigError:  # `confirm` of the next write says it
                    return

    def _write(self, owner: Owner) -> None:
        """Overwrite this owner's file, which must be there."""
        assert self._file is not None
        with self._file.open("r+b", buffering=0) as f:
            f.write(_content(owner))

    def _refuse_if_alive(self, file: Path) -> None:
        """Come back when the owner of this file has let go, is dead, or has been followed by another.

        Raises:
            InUse: it is alive.
        """
        first, before = _bytes(file), _read(file)
        if first is None or (before is not None and self._is_over(before)):
            return
        every = before.every if before is not None and 0 < before.every <= LONGEST_BEAT else self.beat
        who = str(before) if before is not None else f"an owner that {file} does not name"
        console.print(f"{who}: looking for its heartbeat for up to {every * self.missed:.0f} s", markup=False)
        with Bar("no heartbeat", self.missed) as bar:
            for _ in range(self.missed):
                time.sleep(every)
                now = _read(file)
                if _bytes(file) is None or (now is not None and self._is_over(now)):
                    return
                if _bytes(file) != first:
                    raise self._refusal(now or before)
                bar.advance()

    def _is_over(self, owner: Owner) -> bool:
        """Whether an owner has let go or is dead; false where that cannot be told from here.

        Raises:
            InUse: it is alive.
        """
        if owner.state != "held":
            return True
        if not owner.place or owner.place != self.owner.place:
            return False
        if owner.pid == os.getpid() and owner.born == self.owner.born:
            if any(lock.owner.token == owner.token for lock in _held.values()):
                raise self._refusal(owner)
            return True  # left behind by an interrupt
        found = alive.seen(owner.pid)
        if found is None:
            return not alive.exists(owner.pid)  # else of another user, and hidden
        if found.born != owner.born or found.state in "ZX":
            return True
        raise self._refusal(owner, " (suspended)" if found.state in "Tt" else "")

    def _refusal(self, owner: Owner | None, more: str = "") -> InUse:
        stop = "stop it" if owner is None else f"stop it (`kill {owner.pid}` on {owner.host})"
        return InUse(
            "another process is at work in this run directory; nothing was changed",
            where=str(self.directory),
            got=f"{owner or 'an unknown process'}{more}",
            fix=f"wait until it ends, or {stop}, and repeat the command; or use another run.dir",
        )


_held: dict[Path, RunLock] = {}
"""The locks of this process."""


@contextlib.contextmanager
def owning(directory: Path, verb: str) -> Iterator[bool]:
    """Own a run directory inside the block. Of several processes that train together the first does, and the block is
    given whether this is the one. For processes that a run has placed on its machines the run does.

    A block inside another of the same thread and directory is part of that one.

    Raises:
        InUse: another process is at work there. Nothing was changed.
    """
    here = directory.resolve()
    mine = _held.get(here)
    first = os.environ.get("RANK", "0") == "0"
    elsewhere = not first or placed()
    if elsewhere or (mine is not None and (mine.owner.pid, mine.thread) == (os.getpid(), threading.get_ident())):
        yield first
        return
    lock = RunLock(here, verb)
    ended: Exception | None = None
    try:
        lock.acquire()
        _held[here] = lock
        yield True
    except Exception as error:
        ended = error
        raise
    finally:
        if _held.get(here) is lock:
            del _held[here]
        lock.release(ended)


def last_owner(directory: Path) -> Owner | None:
    """Who works in a run directory, or was the last to; None where nobody is known."""
    home = directory / LOCK
    return _read(home / str(_highest(home)))


def confirm(path: Path) -> None:
    """See that the run directory that this path lies in, if it lies in one that this process owns, is still its own.

    Raises:
        ConfigError: another process has taken over.
    """
    if _held:
        here = path.absolute().resolve()
        for directory, lock in list(_held.items()):
            if here.is_relative_to(directory):
                lock.confirm()


def is_ours(path: Path) -> bool:
    """Whether this process owns the run directory that this path lies in."""
    here = path.absolute().resolve()
    return any(here.is_relative_to(directory) for directory in _held)


def _content(owner: Owner) -> bytes:
    return json.dumps(to_json(owner)).encode().ljust(SIZE - 1) + b"\n"


def _bytes(file: Path) -> bytes | None:
    """What a file holds; None if it is gone."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _read(file: Path) -> Owner | None:
    """The owner that a file names; None if it is gone, empty or damaged."""
    try:
        return from_json(Owner, json.loads(_bytes(file) or b""), where=str(file))
    except (ValueError, DataError, RecursionError):
        return None


def _highest(home: Path) -> int:
    """The highest number among the files of a lock; 0 where there is none."""
    try:
        return max((int(name) for name in os.listdir(home) if name.isdecimal()), default=0)
    except FileNotFoundError:
        return 0
