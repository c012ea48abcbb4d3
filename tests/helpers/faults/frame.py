"""What all kinds of faults share: how `vold` is run with one, and how its end is judged."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import io
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import brief
import vold.cli
from vold.data.worlds.digits import handwriting

Verdict = Literal["survived", "clear", "lost"]

HUNG = 124
"""Exit status of a run that was ended because it took too long, as of `timeout`."""


@dataclass(frozen=True)
class Outcome:
    """How a run with a fault ended.

    Attributes:
        verdict: `survived`: as if there had been no fault. `clear`: refused or stopped in words, with nothing lost.
            `lost`: everything else.
        note: of what is lost, in which way: silent, a traceback, hung, other weights or rows, let in.
    """

    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class Fault:
    """One fault. `inject` puts it into a run in an empty directory of its own, and judges."""

    kind: str
    name: str
    inject: Callable[[Path], Outcome]


@dataclass(frozen=True)
class Ended:
    """A finished process: its exit status, negative for a signal, and what it said on both streams."""

    code: int
    said: str


@dataclass(frozen=True)
class Running:
    """A child that is at work: its process id, and the number of the open file that takes what it says."""

    pid: int
    out: int

    def end(self, seconds: float = 60.0) -> Ended:
        """Wait for it; after so many seconds it is killed and counts as `HUNG`."""
        with os.fdopen(self.out, "rb") as said:
            code = _wait(self.pid, seconds)
            said.seek(0)
            return Ended(code, said.read().decode("utf-8", "replace"))


def vold_in(argv: Sequence[str], cwd: Path, before: Callable[[], None] | None = None, seconds: float = 60.0) -> Ended:
    """`vold ARGV` as a child of this process, which has everything loaded already; see `vold_started`.

    Args:
        argv: the verb and what follows.
        cwd: where it runs.
        before: called in the child first.
        seconds: how long it may take; `HUNG` after that.
    """
    return vold_started(argv, cwd, before).end(seconds)


def vold_started(argv: Sequence[str], cwd: Path, before: Callable[[], None] | None = None) -> Running:
    """As `vold_in`, and not waited for."""

    def work() -> int:
        os.chdir(cwd)
        if before is not None:
            before()
        return vold.cli.main(list(argv))

    return _started(work)


def in_a_child(work: Callable[[], int], seconds: float = 60.0) -> Ended:
    """Call `work` in a forked child and wait for it; an exception in it ends as in any Python program. One that takes
    longer says where its threads are."""
    return _started(work).end(seconds)


def _started(work: Callable[[], int]) -> Running:
    out = os.memfd_create("said")
    child = os.fork()
    if child == 0:
        _play(work, out)
    return Running(child, out)


def _play(work: Callable[[], int], out: int) -> None:
    """The child's part: never returns."""
    code = 1
    gc.freeze()  # else the child, as it collects garbage, goes through all that it shares and thereby copies it
    try:
        os.setsid()  # a group of its own: what it starts ends with it
        for stream in (1, 2):
            os.dup2(out, stream)
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(io.FileIO(stream, "w", closefd=False), line_buffering=True) for stream in (1, 2)
        )
        faulthandler.enable(sys.stderr)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = work()
    except SystemExit as end:
        code = end.code or 0 if isinstance(end.code, int | None) else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:  # whatever is raised above, the child must not go on with what its parent was doing
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _wait(child: int, seconds: float) -> int:
    watched = os.pidfd_open(child)
    try:
        ended, _, _ = select.select([watched], [], [], seconds)
        if not ended:
            os.kill(child, signal.SIGABRT)  # it says where it hangs
            select.select([watched], [], [], 10)
    finally:
        os.close(watched)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # with what it started
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if ended else HUNG


def judged(ended: Ended, same: Callable[[], bool]) -> Outcome:
    """The verdict on a run that should end well or in words.

    Args:
        ended: the run.
        same: whether it left what a run without the fault leaves; asked where it ended well.
    """
    if "Traceback (most recent call last)" in ended.said:
        return Outcome("lost", "traceback: " + ended.said.strip().splitlines()[-1][:200])
    if ended.code == HUNG:
        return Outcome("lost", "hung")
    if ended.code == 0:
        return Outcome("survived") if same() else Outcome("lost", "silent: it ended well with something else")
    if ended.code == 130 or (ended.code == 2 and "  fix: " in ended.said):
        return Outcome("clear", _first_line(ended))
    if ended.code == 2 and ("usage: " in ended.said or "error: " in ended.said):
        return Outcome("clear", _first_line(ended))
    return Outcome("lost", f"exit status {ended.code} without a way to mend it: {ended.said.strip()[-300:]}")


def _first_line(ended: Ended) -> str:
    """The line that says what is wrong."""
    lines = [line for line in ended.said.splitlines() if line.startswith("vold ") or "error: " in line]
    return lines[0][:200] if lines else ""


def load() -> None:
    """Import what the children need, so that none of them has to."""
    for name in ("qwen2_5_vl.modeling_qwen2_5_vl", "qwen3.modeling_qwen3"):
        importlib.import_module(f"transformers.models.{name}")
    for name in ("evals.evaluate", "evals.overlap", "evals.preflight"):
        importlib.import_module(f"vold.{name}")
    for name in ("traces", "sft", "balance", "distill"):
        importlib.import_module(f"vold.training.{name}")
    importlib.import_module("peft")  # for the certificate of a student
    brief.configs()
    handwriting()
