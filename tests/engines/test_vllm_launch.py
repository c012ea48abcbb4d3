"""recipes/launch-mini.yaml on real vLLM servers that it starts itself. `make test-engines` has it; test_launch.py has
the same with a stand-in for vLLM.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from engine_backends import FORKING
from faults.frame import load, vold_started
from killed import weights_of
from launched import gone, keepers_of, of_run
from package import ROOT

pytestmark = pytest.mark.engines


def words(home: Path, name: str) -> list[str]:
    """The command: the recipe in a folder of its own, with one model evaluated, as each takes a start of a server."""
    run, sections = home / name / "run", ("teacher.server", "distill.engine", "eval.endpoint")
    pythons = [f"{one}.launch.python={FORKING}" for one in sections]
    return ["run", "recipes/launch-mini.yaml", f"run.dir={run}", f"eval.models={{vold: {run}/distill/final}}", *pythons]


def holds(file: str, word: str) -> Callable[[Path], bool]:
    def reached(run: Path) -> bool:
        try:
            return word in (run / file).read_text(errors="replace")
        except FileNotFoundError:  # it is not there yet, or a new start has moved it away
            return False

    return reached


def there(*patterns: str) -> Callable[[Path], bool]:
    """One of these is there. What a run removes again has beside it what it leaves, as a look may come late."""
    return lambda run: any(next(run.glob(pattern), None) for pattern in patterns)


LOOK = 0.02
"""Seconds between two looks at the folder: a look that never rests takes a core from the servers."""


def ended_within(pid: int, seconds: float) -> bool:
    fd = os.pidfd_open(pid)
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


PLACES: dict[str, Callable[[Path], bool]] = {
    "the teacher's server is about to start": there("traces/servers/teacher-cpu0.*"),
    "it loads its model": holds("traces/servers/teacher-cpu0.log", "EngineCore"),
    "traces": there("traces/traces.jsonl"),
    "the cold start": there("sft/step-*", "sft/final"),
    "the end of the cold start": there("sft/final"),
    "servers of stage 2 are about to start": there("distill/servers/distill-engine-cpu0.*"),
    "rollouts of the first step": holds("distill/servers/distill-engine-cpu0.log", "Application startup complete"),
    "a checkpoint": there("distill/step-*", "distill/final"),
    "the tested model's server is about to start": there("eval/servers/eval-endpoint-cpu0.*"),
    "answers": there("eval/vold/text.jsonl"),
}
"""Where the run is killed, in this order; each is reached when this is true of its folder."""


def test_a_run_killed_at_ten_places_ends_in_the_same_weights(tmp_path: Path) -> None:
    """The one that is not killed runs beside the first places. It is evaluated nowhere: that takes a server more, and
    changes no weight."""
    load()
    whole = vold_started([*words(tmp_path, "whole"), "eval=null"], ROOT)
    broken = tmp_path / "broken"
    for place, reached in PLACES.items():
        run = vold_started(words(tmp_path, "broken"), ROOT)
        while not reached(broken / "run"):
            assert not ended_within(run.pid, LOOK), (place, run.end().said)
        left = [*keepers_of(broken), *of_run(broken)]
        os.kill(run.pid, signal.SIGKILL)
        run.end()
        left += of_run(broken)
        while left:
            for pid in left:
                gone(pid)
            left = of_run(broken)  # a keeper ends what it had begun to start
    ended = vold_started(words(tmp_path, "broken"), ROOT).end(1800)
    undisturbed = whole.end(1800)
    assert (ended.code, undisturbed.code) == (0, 0), (ended.said, undisturbed.said)
    assert of_run(tmp_path) == []
    assert weights_of(broken / "run/distill") == weights_of(tmp_path / "whole/run/distill")
