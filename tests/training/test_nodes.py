"""A training stage of a recipe with `cluster`, where no machine is needed to say what happens."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from vold.errors import ConfigError
from vold.model.parallel import Processes
from vold.training.nodes import on_machines
from vold.training.sft import sft


def test_a_stage_that_is_done_starts_nothing(tmp_path: Path) -> None:
    alone = tiny.recipe(tmp_path)
    tiny.write_traces(tmp_path, alone)
    done = sft(alone)
    assert sft(tiny.recipe(tmp_path, cluster={"nodes": 2, "gpus": 0})) == done


def test_processes_are_not_started_by_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny.recipe(tmp_path, cluster={"nodes": 2, "gpus": 0})
    monkeypatch.setattr("vold.training.nodes.processes", lambda: Processes(rank=0, world=2))
    with pytest.raises(ConfigError, match="starts its processes itself"):
        on_machines("sft")(lambda _: tmp_path)(recipe)
    assert not (tmp_path / "run").exists()
