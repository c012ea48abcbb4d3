"""Runs on several machines, with nodes of Ray on this one in their place; `make test-engines` has them."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from killed import weights_of
from launched import fault, launch, recipe_dict
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


def test_a_run_over_machines_lives_through_their_loss_and_every_end(tmp_path: Path, cluster: Nodes) -> None:
    whole = saved(tmp_path / "whole")
    run = cluster.vold(whole, "run", "recipe.yaml")
    run.end(0)
    assert len(set(re.findall(r"^distill on (\w+)", run.said, re.M))) == 2

    home = saved(tmp_path / "broken", teacher=fault("hold"), engine=fault("hold"))
    teacher, engine = (home / "run" / stage / "servers" / "held" for stage in ("traces", "distill"))
    # A server's machine is lost: the server comes up on another, and the stage goes on.
    run = cluster.vold(home, "run", "recipe.yaml")
    run.until(teacher)
    lost = run.machine_of("server teacher-cpu0")
    cluster.lose(lost)
    # SIGTERM in the middle of stage 2.
    run.until(engine)
    assert run.machine_of("server teacher-cpu0") != lost
    run.process.send_signal(signal.SIGTERM)
    run.end(128 + signal.SIGTERM)
    # SIGKILL there.
    engine.unlink()
    run = cluster.vold(home, "run", "recipe.yaml")
    run.until(engine)
    run.process.kill()
    run.end(-signal.SIGKILL)
    # A machine that trains is lost there.
    engine.unlink()
    run = cluster.vold(home, "run", "recipe.yaml")
    run.until(engine)
    lost = run.machine_of("distill")
    cluster.lose(lost)
    run.end(2)
    assert f"`distill` has lost the processes on {lost}" in run.said
    # Another takes its place.
    cluster.add("d")
    run = cluster.vold(home, "run", "recipe.yaml")
    run.end(0)
    assert weights_of(home / "run/distill") == weights_of(whole / "run/distill")
