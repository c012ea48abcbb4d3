"""Every stage, killed with SIGKILL at its disk operations and started again, must leave the same weights and rows."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import vold.cli
from faults.frame import Fault, Outcome, in_a_child, vold_in
from faults.runs import STAGES, Runs, runs
from killed import after, killer

TWICE = 3
"""Each n-th run is killed again when it goes on."""

WRITES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.symlink"})


def faults() -> list[Fault]:
    """All disk operations of all stages."""
    made = runs()
    out = []
    for stage in STAGES:
        total = _operations(stage)
        for point in range(1, total + 1):
            again = max(1, point // 2) if point % TWICE == 0 else None
            name = f"{stage} at disk operation {point} of {total}" + (f", then at {again}" if again else "")
            out.append(Fault("kill", name, partial(_killed, made, stage, point, again)))
    return out


def _killed(made: Runs, stage: str, point: int, again: int | None, home: Path) -> Outcome:
    made.before(stage, home)
    for operation in (point, again):
        if operation is None:
            continue
        ended = vold_in([stage, made.recipe], home, partial(_kill_at, home, operation))
        if operation == point and ended.code != -signal.SIGKILL:
            return Outcome("lost", f"it was not killed but ended with {ended.code}: {ended.said[-300:]}")
    return made.going_on(stage, home, Outcome("survived"))


@cache
def _operations(stage: str) -> int:
    """How many disk operations a stage makes that nothing disturbs."""
    made = runs()
    home = made.home / f"count-{stage}"
    made.before(stage, home)

    def work() -> int:
        os.chdir(home)
        calls = itertools.count()  # which no switch of threads can cut in two
        _at_each_operation(home, partial(next, calls))
        code = vold.cli.main([stage, made.recipe])
        print(f"\n{next(calls)}")
        return code

    ended = in_a_child(work)
    shutil.rmtree(home)
    assert ended.code == 0, ended.said
    return int(ended.said.strip().splitlines()[-1])


def _kill_at(home: Path, operation: int) -> None:
    """Kill this process at its n-th disk operation below `home`."""
    _at_each_operation(home, killer(operation))


def _at_each_operation(home: Path, operated: Callable[[], object]) -> None:
    """Call `operated` before each change of a file or folder below `home`, and before each flush to disk."""
    place = str(home.resolve())

    def below(path: object) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and os.path.abspath(os.fsdecode(path)).startswith(place)

    def seen(event: str, args: tuple[object, ...]) -> None:
        written = event in WRITES or (
            event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if written and below(args[0]):
            operated()

    sys.addaudithook(seen)
    os.fsync = after(operated, os.fsync)
