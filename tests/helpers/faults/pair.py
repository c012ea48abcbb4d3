"""Two or more processes in one run directory. One of them works there, the others are told so or take over from a dead
one, and what is left is what one alone would leave."""

from __future__ import annotations

import json
import multiprocessing
import os
import select
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import yaml

from faults.frame import HUNG, Ended, Fault, Outcome, Running, vold_in, vold_started
from faults.runs import STAGES, Runs, differences, runs
from vold.run import alive
from vold.run.lock import RunLock

BEAT = 0.1
"""Seconds between heartbeats, so that an owner elsewhere counts as dead after less than one."""

REFUSED = "another process is at work in this run directory"
OVERTAKEN = "does not own its run directory any more"

OTHERS = (
    ("traces", "sft"), ("traces", "eval"), ("sft", "traces"), ("sft", "distill"), ("sft", "eval"),
    ("balance", "distill"), ("distill", "eval"), ("distill", "sft"), ("eval", "distill"),
)  # fmt: skip
"""Verbs of an owner and of a second process that comes in the middle."""


@dataclass(frozen=True)
class Work:
    """What the processes of a pair are started with, and what they are to leave.

    Attributes:
        argv: of the owner.
        prepare: puts the run as it is before into a directory.
        held_at: part of the name of a file: the owner is held when it first flushes one of it.
        wrong: what is not as it should be at the end; empty if nothing is.
    """

    argv: tuple[str, ...]
    prepare: Callable[[Path], None]
    held_at: str
    wrong: Callable[[Path], str]


def faults() -> list[Fault]:
    """Each way to meet, for every stage and a study."""
    works = {stage: _stage(stage) for stage in STAGES} | {"study": _study()}
    out = [
        Fault("pair", f"{name} and {name}, {how.__name__.strip('_').replace('_', ' ')}", partial(how, work, work.argv))
        for name, work in works.items()
        for how in (MEETINGS if name != "study" else (_together, _killed))
    ]
    out += [
        Fault("pair", f"{one} and {two}, in the middle", partial(_in_the_middle, works[one], works[two].argv))
        for one, two in OTHERS
    ]
    return out


def _stage(stage: str) -> Work:
    made: Runs = runs()
    rows = {"traces": "traces.jsonl", "balance": "labels.jsonl", "eval": "base/text.jsonl"}
    return Work(
        (stage, made.recipe),
        partial(made.before, stage),
        f"/run/{stage}/{rows.get(stage, 'metrics.jsonl')}",
        lambda home: ", ".join(differences(home, made.after(stage)))[:300],
    )


@cache
def _study() -> Work:
    """A study of one model that is evaluated as it is."""
    made = runs()
    tasks = {"few": {"kind": "digits", "split": "select", "form": "text", "size": 4}}
    study = {
        "recipe": made.recipe, "workers": 1, "seeds": [1, 2], "select_seeds": [9], "select_on": "few",
        "select_tasks": tasks, "test_tasks": tasks, "arms": {"base": {}}, "claims": {},
    }  # fmt: skip

    def prepare(home: Path) -> None:
        (home / "few").mkdir()
        (home / "few" / "study.yaml").write_text(yaml.safe_dump(study))

    argv = ("study", "few/study.yaml")
    alone = made.home / "study"
    alone.mkdir()
    prepare(alone)
    ended = vold_in(argv, alone)
    assert ended.code == 0, ended.said
    return Work(argv, prepare, "clock-", lambda home: "" if _arms(home) == _arms(alone) else "results.json")


def _arms(home: Path) -> object:
    arms = json.loads((home / "few" / "results.json").read_text())["arms"]
    for arm in arms.values():
        for one in arm["seeds"]:
            one["seconds"] = 0
    return arms


# Ways to meet. Each is given what the owner does, the second process's arguments, and a directory.


def _in_the_middle(work: Work, second: tuple[str, ...], home: Path) -> Outcome:
    with _Held(work, home) as owner:
        refused = vold_in(second, home, _quick)
        owner.go_on()
        return _told(work, home, refused=[refused], done=[owner.end()])


def _together(work: Work, second: tuple[str, ...], home: Path) -> Outcome:
    work.prepare(home)
    return _raced(work, second, home, 2)


def _killed(work: Work, second: tuple[str, ...], home: Path) -> Outcome:
    with _Held(work, home) as owner:
        owner.signal(signal.SIGKILL)
        return _told(work, home, done=[vold_in(second, home, _quick)])


def _suspended(work: Work, second: tuple[str, ...], home: Path) -> Outcome:
    with _Held(work, home) as owner:
        owner.signal(signal.SIGSTOP)
        refused = vold_in(second, home, _quick)
        owner.signal(signal.SIGCONT)
        owner.go_on()
        return _told(work, home, refused=[refused], done=[owner.end()])


def _stopped_by_a_signal(work: Work, second: tuple[str, ...], home: Path) -> Outcome:
    """The owner saves what it can and lets go; the second goes on."""
    with _Held(work, home) as owner:
        owner.signal(signal.SIGTERM)
        ended = owner.end()
        if ended.code != 128 + signal.SIGTERM:
            return Outcome("lost", f"SIGTERM ended it with {ended.code}: {ended.said.strip()[-200:]}")
        return _told(work, home, done=[vold_in(second, home, _quick)])


def _alive_on_another_machine(work: Work, second: tuple[str, ...], home: Path) -> Outcome:
    with _Held(work, home, _elsewhere) as owner:
        refused = vold_in(second, home, _quick)
        owner.go_on()
        return _told(work, home, refused=[refused], done=[owner.end()])


def _dead_on_another_machine(work: Work, second: tuple[str, ...], home: Path) -> Outcome:
    with _Held(work, home, _elsewhere) as owner:
        owner.signal(signal.SIGKILL)
        return _told(work, home, done=[vold_in(second, home, _quick)])


def _followed_while_asleep_on_another_machine(work: Work, second: tuple[str, ...], home: Path) -> Outcome:
    """The owner wakes when the second has ended, and must not write any more."""
    with _Held(work, home, _elsewhere) as owner:
        owner.signal(signal.SIGSTOP)
        followed = vold_in(second, home, _quick)
        owner.signal(signal.SIGCONT)
        owner.go_on()
        return _told(work, home, overtaken=[owner.end()], done=[followed])


def _four_after_a_dead_one(work: Work, second: tuple[str, ...], home: Path) -> Outcome:
    with _Held(work, home) as owner:
        owner.signal(signal.SIGKILL)
        return _raced(work, second, home, 4)


def _three_after_one_dead_on_another_machine(work: Work, second: tuple[str, ...], home: Path) -> Outcome:
    with _Held(work, home, _elsewhere) as owner:
        owner.signal(signal.SIGKILL)
        return _raced(work, second, home, 3)


MEETINGS: tuple[Callable[[Work, tuple[str, ...], Path], Outcome], ...] = (
    _in_the_middle, _together, _killed, _suspended, _stopped_by_a_signal, _alive_on_another_machine,
    _dead_on_another_machine, _followed_while_asleep_on_another_machine, _four_after_a_dead_one,
    _three_after_one_dead_on_another_machine,
)  # fmt: skip


def _raced(work: Work, argv: tuple[str, ...], home: Path, count: int) -> Outcome:
    """All start at one moment. Whoever comes when another has ended finds the work done."""
    here, there = os.pipe()

    def before() -> None:
        _quick()
        os.close(there)
        os.read(here, 1)

    running = [vold_started(argv, home, before) for _ in range(count)]
    os.close(there)
    os.close(here)
    ended = [one.end() for one in running]
    return _told(work, home, refused=[e for e in ended if e.code != 0], done=[e for e in ended if e.code == 0])


def _told(
    work: Work, home: Path, *, done: list[Ended], refused: Sequence[Ended] = (), overtaken: Sequence[Ended] = ()
) -> Outcome:
    """The verdict: some ended well, others in these words, and the run is as it should be."""
    words = {REFUSED: refused, OVERTAKEN: overtaken}
    for ended in (*done, *(e for some in words.values() for e in some)):
        if ended.code == HUNG or "Traceback (most recent call last)" in ended.said:
            return Outcome("lost", f"hung or a traceback: {ended.said.strip()[-300:]}")
    if not done or any(e.code != 0 for e in done):
        return Outcome("lost", f"nobody did the work: {[e.said.strip()[-200:] for e in done]}")
    for said, those in words.items():
        for ended in those:
            if ended.code != 2 or said not in ended.said or "  fix: " not in ended.said:
                return Outcome("lost", f"not told {said!r}: {ended.code}, {ended.said.strip()[-300:]}")
    if wrong := work.wrong(home):
        return Outcome("lost", f"other content: {wrong}")
    return Outcome("clear", "refused in words") if any(words.values()) else Outcome("survived")


class _Held:
    """An owner that stands still, alive, in the middle of its work; whatever is left of it is killed at the end."""

    def __init__(self, work: Work, home: Path, more: Callable[[], None] = lambda: None) -> None:
        work.prepare(home)
        reached, self._reached = os.pipe()
        self._gate, self._open = os.pipe()

        def before() -> None:
            _quick()
            more()
            _hold_at(work.held_at, self._reached, self._gate)

        self._running: Running = vold_started(work.argv, home, before)
        self._ended: Ended | None = None
        os.close(self._reached)
        found, _, _ = select.select([reached], [], [], 60.0)
        there = bool(found and os.read(reached, 1))
        os.close(reached)
        if not there:
            raise AssertionError(f"the owner never got to {work.held_at}: {self.end().said}")

    def __enter__(self) -> _Held:
        return self

    def __exit__(self, *error: object) -> None:
        if self._ended is None:
            with suppress(ProcessLookupError):
                os.killpg(self._running.pid, signal.SIGKILL)
            self._running.end()
        os.close(self._gate)
        os.close(self._open)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._running.pid, number)
        if number is signal.SIGSTOP:
            os.waitid(os.P_PID, self._running.pid, os.WSTOPPED | os.WNOWAIT)
        if number is signal.SIGKILL:
            os.waitid(os.P_PID, self._running.pid, os.WEXITED | os.WNOWAIT)

    def go_on(self) -> None:
        os.write(self._open, b"x")

    def end(self) -> Ended:
        self._ended = self._running.end()
        return self._ended


def _quick() -> None:
    RunLock.beat = BEAT
    multiprocessing.current_process().daemon = False  # a study starts workers, which those of this suite may not


def _elsewhere() -> None:
    """Make this process believe that it runs on another machine."""
    here = alive.place()
    alive.place = lambda: f"elsewhere {here}"


def _hold_at(name: str, reached: int, gate: int) -> None:
    """Stand still at the first flush of a file of this name, until the gate opens."""
    flush = os.fsync
    waiting = True

    def fsync(file: int) -> None:
        nonlocal waiting
        if waiting and name in os.readlink(f"/proc/self/fd/{file}"):
            waiting = False
            os.write(reached, b"x")
            os.read(gate, 1)
        flush(file)

    os.fsync = fsync  # type: ignore[assignment]
