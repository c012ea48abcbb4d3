"""Runs on several machines, with nodes of Ray on this one in their place; `make test-engines` has them."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.frame import Running, vold_in, vold_started
from killed import weights_of
from launched import fault, gone, keepers_of, launch, of_run, recipe_dict
from ray_nodes import Nodes, nodes

pytestmark = pytest.mark.engines


@pytest.fixture
def cluster() -> Iterator[Nodes]:
    with nodes("a", "b", "c") as made:
        yield made


def saved(home: Path, **sections: Any) -> Path:
    """A recipe of traces, cold start and stage 2 on two machines, in a folder of its own."""
    home.mkdir()
    raw = recipe_dict(home) | {"cluster": {"nodes": 2, "gpus": 0}}
    for stage in ("align", "eval"):
        del raw[stage]
    raw["teacher"]["server"]["launch"] = sections.get("teacher", launch())
    raw["distill"]["engine"]["launch"] = sections.get("engine", launch())
    (home / "recipe.yaml").write_text(json.dumps(raw))
    return home


def started(home: Path, cluster: Nodes) -> Running:
    return vold_started(["run", "recipe.yaml"], home, cluster.join)


def until(run: Running, file: Path) -> None:
    """Come back when a file is there."""
    while not file.exists():
        assert os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None, run.end().said
        os.sched_yield()


def machine_of(what: str, run: Running) -> str:
    """The machine that a server, or the first process of a stage, was last said to be on."""
    said = os.pread(run.out, 1 << 20, 0).decode()
    return re.findall(rf"^{what}:? on (\w+)", said, re.M)[-1]


def ended(run: Running, home: Path, code: int) -> str:
    """Let a run end, with nothing left of it; what it said."""
    done = run.end(300)
    assert done.code == code, done.said
    for pid in [*keepers_of(home), *of_run(home)]:
        gone(pid)
    return done.said


def test_a_run_over_machines_lives_through_their_loss_and_every_end(tmp_path: Path, cluster: Nodes) -> None:
    whole = saved(tmp_path / "whole")
    done = vold_in(["run", "recipe.yaml"], whole, cluster.join, 300)
    assert done.code == 0, done.said
    assert of_run(tmp_path) == []
    assert len(set(re.findall(r"^distill on (\w+)", done.said, re.M))) == 2

    home = saved(tmp_path / "broken", teacher=fault("hold"), engine=fault("hold"))
    teacher, engine = (home / "run" / stage / "servers" / "held" for stage in ("traces", "distill"))
    # A server's machine is lost: the server comes up on another, and the stage goes on.
    run = started(home, cluster)
    until(run, teacher)
    lost = machine_of("server teacher-cpu0", run)
    cluster.lose(lost)
    # SIGTERM in the middle of stage 2.
    until(run, engine)
    assert machine_of("server teacher-cpu0", run) != lost
    os.kill(run.pid, signal.SIGTERM)
    ended(run, home, 128 + signal.SIGTERM)
    # SIGKILL there.
    engine.unlink()
    run = started(home, cluster)
    until(run, engine)
    os.kill(run.pid, signal.SIGKILL)
    ended(run, home, -signal.SIGKILL)
    # A machine that trains is lost there.
    engine.unlink()
    run = started(home, cluster)
    until(run, engine)
    lost = machine_of("distill", run)
    cluster.lose(lost)
    said = ended(run, home, 2)
    assert f"`distill` has lost the processes on {lost}" in said and "goes on from the last state" in said
    # Another takes its place.
    cluster.add("d")
    ended(started(home, cluster), home, 0)
    assert weights_of(home / "run/distill") == weights_of(whole / "run/distill")
