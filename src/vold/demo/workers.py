"""The processes that run a study's units, and the turns that they take with those of other machines."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from vold.demo.units import Failed, Job, run_unit
from vold.errors import InUse, TrainingError
from vold.run.console import console
from vold.run.lock import RunLock, owning

if TYPE_CHECKING:
    from multiprocessing.pool import Pool as Processes
    from pathlib import Path

    Pool: TypeAlias = Callable[[], Processes]
    """Begins the processes when it is first called: that takes seconds, and not every study has something to run."""


def quiet() -> None:
    """How a process of a study begins."""
    console.quiet = True
    os.environ["OMP_NUM_THREADS"] = "1"


@contextlib.contextmanager
def turn(directory: Path) -> Iterator[None]:
    """Own a directory when its turn comes: other machines that work at the study do the same."""
    while True:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(owning(directory, "study"))
            except InUse:
                time.sleep(RunLock.beat)
                continue
            yield
            return


def each_ended(jobs: Sequence[Job], pool: Pool, *, where: str) -> Iterator[bool | Failed]:
    """What `run_unit` says of each, as they end. A pool waits for ever for what a process that was killed had in hand,
    and has another in its place.

    Raises:
        TrainingError: a process was killed; `where` is named.
    """
    at_work = pool()
    workers = {child.pid for child in multiprocessing.active_children()}
    found = at_work.imap_unordered(run_unit, jobs)
    while True:
        try:
            yield found.next(RunLock.beat)
        except StopIteration:
            return
        except multiprocessing.TimeoutError:
            if workers - {child.pid for child in multiprocessing.active_children()}:
                raise TrainingError(
                    "a process of the study was killed, as the system does where memory ends",
                    where=f"{where}: workers",
                    got=str(len(workers)),
                    fix="start the same command again, which goes on from here; fewer workers need less memory",
                ) from None


def all_of(failed: Sequence[Failed]) -> TrainingError:
    """Training that has failed, as one error, which names the units."""
    first, *others = failed
    error, more = first.error, ", ".join(one.unit.name for one in others)
    return TrainingError(
        error.what,
        where=", ".join(filter(None, (first.unit.name, error.where))),
        got="; ".join(filter(None, (error.got, more and f"failed as well: {more}"))),
        fix=error.fix,
    )
