"""Which processes of a run still work, where each of them is, and what is said when one does not come.

In each a thread writes signs of life into the store that the processes have met by, and reads those of the others. A
sign of life is that the thread which trains has run at all since the last look, by its clock of the CPU. So a process
that works alone for hours is waited for, and one that was killed, stopped or stands still is not.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import queue
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch.distributed as dist

from vold.errors import VoldError, clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import timedelta

    from torch.distributed.distributed_c10d import PrefixStore

MOST_SECONDS = 2.0
"""Between two signs of life; a tenth of what processes wait for each other, where that is less."""
MISSED = 4
"""So many signs left out, and a process is gone."""
T = TypeVar("T")
STIR_SECONDS = 1.0
"""Of a wait for another thread, until it begins anew."""
SOONEST, LATEST = 0.0005, 0.05
"""Seconds between two looks for the others at a meeting: each time twice as many."""


@dataclass
class Seen:
    """What is known of a process.

    Attributes:
        place: its phase and step, in words.
        ended: the error that it has ended with, in words; empty while it works.
        lost: the processes that it has ended for.
        line: of this package, that it was last seen at.
        waits: whether it was at work inside of PyTorch then, as those are that wait for others.
        beat: what its thread has written last.
        moved: what it has written of the clock of the thread that trains.
        beat_at: when that thread was last heard of, by the clock of this process.
        moved_at: when the one that trains had last moved, by the same.
    """

    beat_at: float
    moved_at: float
    place: str = "its start"
    ended: str = ""
    lost: Sequence[int] = ()
    line: str = ""
    waits: bool = False
    beat: int = 0
    moved: int = 0


class Lookout:
    """The signs of life of some processes; made by all of them at once, by the thread that trains.

    Args:
        store: that they have met by.
        rank: 0-based number of this one.
        world: how many there are.
        limit: to what the processes do together on tensors; kept for whoever makes groups of them.
        patience: seconds without a sign of life after which a process is waited for no longer.
    """

    def __init__(self, store: PrefixStore, rank: int, world: int, limit: timedelta, patience: float) -> None:
        self.rank, self.world, self.limit, self.patience = rank, world, limit, patience
        self.every = min(MOST_SECONDS, patience / 10)
        self._store: PrefixStore = store
        self._reader: PrefixStore = cast("Any", store).clone()  # for the thread, while this one is in use
        self._thread = threading.get_ident()
        self._clock = time.pthread_getcpuclockid(self._thread)
        self._meetings, self._guarded, self._alone = Counter[str](), False, False
        now = time.monotonic()
        self._seen = [Seen(now, now) for _ in range(world)]
        self._looked = now
        self._lost: Sequence[int] = ()
        self.enter(self._seen[rank].place)
        self._over = threading.Event()
        self._watching = threading.Thread(target=self._look_on, name="signs of life", daemon=True)
        self._watching.start()
        atexit.register(self._close)

    def _close(self) -> None:
        """End the thread before the interpreter is gone: one that comes back from the store then aborts the process."""
        self._over.set()
        self._watching.join(max(STIR_SECONDS, self.every * MISSED))

    def enter(self, place: str, ended: str = "", lost: Sequence[int] = ()) -> None:
        """Say where this process is from now on, in words; and what it ends with."""
        self._seen[self.rank].place = place
        with contextlib.suppress(dist.DistError):  # whoever has the store is gone: what comes next says so
            self._store.set(f"place/{self.rank}", json.dumps([place, ended, lost]))

    def meet(self, channel: str = "") -> None:
        """Go on when all processes are here; those of a channel, each from one thread, do not meet those of another.

        Raises:
            VoldError: one has ended, or shows no sign of life any more.
        """
        self._meetings[channel] += 1
        before, now = (f"{channel}/{self._meetings[channel] - earlier}" for earlier in (1, 0))
        here, all_here, pause = f"here/{now}", f"all/{now}", SOONEST
        try:
            if self._store.add(here, 1) == self.world:
                self._store.set(all_here, "")
                for old in (f"here/{before}", f"all/{before}"):
                    self._store.delete_key(old)
            while not self._store.check([all_here]):
                if lost := self._ended() or self._still(self.patience, [rank for rank, _ in self._others()]):
                    raise self._error(lost)
                time.sleep(pause)
                pause = min(2 * pause, LATEST)
        except dist.DistError as error:
            raise self.explained(error) from error

    @contextlib.contextmanager
    def guarding(self) -> Iterator[None]:
        """Inside, errors of communication say which process is missing. Where none is raised, as on GPUs, whose
        operations nobody waits for, a process ends with such words when another one or itself has stood still.

        Raises:
            VoldError: in place of errors of communication.
        """
        self._guarded = True
        try:
            yield
        except BaseException as error:
            told = self.explained(error)
            words = clean(told).strip().splitlines() or [type(told).__name__]
            self.enter(self._seen[self.rank].place, words[0], self._lost)
            self._stay()
            if told is error:
                raise
            raise told from error
        finally:
            self._guarded = False

    def explained(self, error: BaseException) -> BaseException:
        """An error of communication as one that names the missing process; any other as it is."""
        words = str(error)
        told = isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in words)
        if isinstance(error, VoldError) or not told:
            return error
        with _unterminated():  # torchrun ends those that are left, which are to speak before
            return self._error(self._missing(), words)

    def _missing(self) -> list[int]:
        """Whom an operation has failed for: who has ended or is not heard of, or else who does not wait himself."""
        until = time.monotonic() + 2 * self.every * MISSED
        while time.monotonic() < until and not self._alone:
            if lost := self._ended() or self._silent(self.every * MISSED):
                return lost
            time.sleep(self.every)
        if self._alone:
            return self._ended() or [0]
        others = dict(self._others())
        at_work = [rank for rank, one in others.items() if not one.waits]
        return at_work or [max(others, key=lambda rank: others[rank].moved_at)]

    def _stay(self) -> None:
        """Where the store is with the first process that process goes last, so that the others learn what it knows."""
        if self.rank or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return
        until = time.monotonic() + self.every * MISSED
        while time.monotonic() < until and not all(one.ended or rank in self._lost for rank, one in self._others()):
            time.sleep(self.every)

    def _others(self) -> list[tuple[int, Seen]]:
        return [(rank, one) for rank, one in enumerate(self._seen) if rank != self.rank]

    def _ended(self) -> list[int]:
        """Other processes that have ended; of those that did for the sake of another, that one."""
        ended = {rank: one for rank, one in self._others() if one.ended}
        return sorted({rank for one in ended.values() for rank in one.lost} - {self.rank}) or list(ended)

    def _silent(self, seconds: float) -> list[int]:
        """Other processes that have not been heard of for so long at the last look."""
        return [rank for rank, one in self._others() if self._looked - one.beat_at > seconds]

    def _still(self, seconds: float, ranks: Sequence[int]) -> list[int]:
        """Those of some processes that had not moved for so long at the last look: of several, who does not wait."""
        still = [rank for rank in ranks if self._looked - self._seen[rank].moved_at > seconds]
        return [rank for rank in still if not self._seen[rank].waits] or still

    def _error(self, lost: Sequence[int], words: str = "") -> VoldError:
        """What is said of processes that are missing, to whom the others wait for."""
        first, self._lost = self._seen[lost[0]], lost
        ago, at = f"{_words(time.monotonic() - first.moved_at)} ago", f", at {first.line}" if first.line else ""
        how = f"has ended in {first.place}" if first.ended else f"was last seen in {first.place}{at}, {ago}"
        more = f", and with it {_ranks(lost[1:])}" if lost[1:] else ""
        places: dict[str, list[int]] = {}
        for rank, one in enumerate(self._seen):
            if rank not in lost:
                places.setdefault(one.place, []).append(rank)
        return VoldError(
            f"rank {lost[0]} did not arrive: it {how}{more}",
            where=f"rank {self.rank}, in {self._seen[self.rank].place}",
            got="; ".join(
                [f"{_ranks(ranks)} waiting in {place}" for place, ranks in places.items()]
                + [f"rank {lost[0]}: {first.ended}"] * bool(first.ended)
                + ([(words.partition("] ")[2] or words).partition(". ")[0]] if words else [])
            ),
            fix="see what that process has said and what became of its machine, and repeat the command on all of them: "
            "it goes on from what is stored. Processes wait for each other for run.timeout_minutes",
        )

    def _look_on(self) -> None:
        """The thread."""
        longest = self.patience + self.every * MISSED  # where an error is raised at all, it has been by then
        try:
            for beat in itertools.count(1):
                here = [beat, time.clock_gettime_ns(self._clock), *self._line()]
                self._reader.set(f"beat/{self.rank}", json.dumps(here))
                self._look()
                if lost := self._still(longest, range(self.world)):
                    self._end(lost)
                if self._over.wait(self.every):
                    return
        except dist.DistError:  # whoever had the store is gone, the first of all
            self._alone = True
            if not self._over.wait(self.every * MISSED):  # this process may end by itself
                self._end(self._ended() or [0])

    def _end(self, lost: Sequence[int]) -> None:
        """End this process where its thread that trains cannot."""
        if self._guarded:
            print(f"vold [process {self.rank}]: {self._error(lost)}", file=sys.stderr, flush=True)
            os._exit(1)

    def _look(self) -> None:
        """See what all have written."""
        now = time.monotonic()
        if (asleep := now - self._looked - self.every) > self.every * MISSED:  # this process was stopped
            for one in self._seen:
                one.beat_at, one.moved_at = one.beat_at + asleep, one.moved_at + asleep
        for rank, one in enumerate(self._seen):
            keys = [f"place/{rank}", f"beat/{rank}"]
            if not self._reader.check(keys):
                continue
            (place, ended, blamed), (beat, moved, line, waits) = map(json.loads, self._reader.multi_get(keys))
            one.beat_at = now if beat != one.beat else one.beat_at
            one.moved_at = now if moved != one.moved else one.moved_at
            one.lost, one.ended, one.line, one.waits, one.beat, one.moved = blamed, ended, line, waits, beat, moved
            if rank != self.rank:  # which knows better
                one.place = place
        self._looked = now

    def _line(self) -> tuple[str, bool]:
        """The innermost line of this package that the thread which trains is at, and whether PyTorch is inside it."""
        frame = sys._current_frames().get(self._thread)
        waits = frame is not None and str(frame.f_globals.get("__name__")).startswith("torch.")
        while frame is not None and not _ours(str(frame.f_globals.get("__name__"))):
            frame = frame.f_back
        return "" if frame is None else f"{frame.f_globals['__name__']}:{frame.f_lineno}", waits


def joined(thread: threading.Thread) -> None:
    """Wait for a thread whose work has limits of its own; this one gives signs of life meanwhile."""
    while thread.is_alive():
        thread.join(STIR_SECONDS)


def taken(of: queue.SimpleQueue[T]) -> T:
    """The next of a queue, which other threads fill; as `joined`."""
    while True:
        with contextlib.suppress(queue.Empty):
            return of.get(timeout=STIR_SECONDS)


def _ours(module: str) -> bool:
    """Whether a module is of this package, and not where processes wait."""
    return module.startswith("vold.") and module not in (__name__, "vold.model.parallel")


@contextlib.contextmanager
def _unterminated() -> Iterator[None]:
    """SIGTERM waits until after the block, where a thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"


def _words(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
