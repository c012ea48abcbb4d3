"""What a training stage is started with is written once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny
from vold.errors import ConfigError
from vold.model.parallel import Processes
from vold.run.directory import works_in_run
from vold.run.recipe import Recipe
from vold.training.stage import enter_stage


def test_of_several_processes_the_first_alone_writes_what_a_stage_is_started_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others would write through the same temporary file as each other, and in a run that they do not own."""
    recipe = tiny.recipe(tmp_path)
    with monkeypatch.context() as m:
        m.setattr("vold.training.stage.processes", lambda _: Processes(rank=1))
        later = enter_stage(recipe, "sft", recipe.sft)
    assert (later.directory, later.finished) == (tmp_path / "run" / "sft", False)
    assert not (tmp_path / "run").exists()
    first = enter_stage(recipe, "sft", recipe.sft)
    assert first.directory == later.directory
    assert sorted(p.name for p in first.directory.iterdir()) == ["recipe.yaml", "settings.json"]


def test_a_stage_computes_with_the_threads_of_its_recipe_and_gives_its_caller_back_the_others(tmp_path: Path) -> None:
    @works_in_run("sft")
    def stage(recipe: Recipe) -> None:
        assert torch.get_num_threads() == recipe.run.threads == 1
        raise LookupError

    torch.set_num_threads(3)
    with pytest.raises(LookupError):
        stage(tiny.recipe(tmp_path))
    assert torch.get_num_threads() == 3


def test_a_quantised_student_has_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny.recipe(tmp_path, student={"quantize": "nf4", "lora": {"rank": 2}})
    enter_stage(recipe, "sft", recipe.sft)
    monkeypatch.setattr("vold.training.stage.processes", lambda _: Processes(rank=0, world=2))
    with pytest.raises(ConfigError, match="in one process"):
        enter_stage(recipe, "sft", recipe.sft)
