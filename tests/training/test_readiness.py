"""Stage 2 is started all the same where `vold align` speaks against it, and says so."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

import tiny
from vold.cli import main
from vold.demo.pipeline import compare_models
from vold.evals.overlap import align
from vold.run.branch import branch
from vold.run.readiness import after_align, align_doubt
from vold.run.recipe import load_recipe
from vold.run.shipped import resolve
from vold.training.distill import distill
from vold.training.sft import sft


@pytest.mark.parametrize(("verdict", "warned"), [("ready", False), ("not aligned", True), (None, True)])
def test_distilling_before_the_student_is_ready_warns(
    verdict: str | None, warned: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny.recipe(tmp_path, sft={"steps": 1}, distill={"steps": 1})
    tiny.write_traces(tmp_path, recipe)
    final = sft(recipe)
    if verdict is not None:
        stored = {"verdict": verdict, "student": str(final), "words": "They differ."}
        (tmp_path / "run" / "align").mkdir()
        (tmp_path / "run" / "align" / "align.json").write_text(json.dumps(stored))
    capsys.readouterr()
    distill(recipe)
    out = capsys.readouterr().out
    assert ("warn  " in out) == warned
    assert ("They differ." in out) == (verdict == "not aligned")
    distill(recipe)  # finished: nothing is started
    assert "warn  " not in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"verdict": 4}', "[" * 5000])
def test_a_damaged_verdict_is_none(content: str, tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path)
    (tmp_path / "run" / "sft" / "final").mkdir(parents=True)
    (tmp_path / "run" / "align").mkdir()
    (tmp_path / "run" / "align" / "align.json").write_text(content)
    assert "run `vold align` first" in str(align_doubt(recipe))


def test_a_comparison_holds_in_a_run_that_was_moved_or_branched(tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, sft={"steps": 1}, distill={"steps": 1})
    tiny.write_traces(tmp_path, recipe)
    sft(recipe)
    assert "compared since the cold start" in str(align_doubt(recipe))
    align(recipe)
    said = align_doubt(recipe)
    assert said is not None and "the last verdict" in said  # of models with weights at random
    branch(recipe.run.dir, "align", tmp_path / "other")
    assert align_doubt(load_recipe(tmp_path / "other" / "recipe.yaml")) == said
    recipe.run.dir.rename(tmp_path / "moved")
    assert align_doubt(load_recipe(tmp_path / "moved" / "recipe.yaml", [f"run.dir={tmp_path / 'moved'}"])) == said


def judge(home: Path, **changes: object) -> None:
    """Change the verdict that is stored."""
    file = home / "run" / "align" / "align.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_where_models_are_too_far_apart_the_cold_start_comes_first(tmp_path: Path) -> None:
    """All stages are next, and behind a cold start one of twice the steps; but not of two models with weights at
    random."""
    recipe = tiny.recipe(tmp_path, sft={"steps": 1})
    assert compare_models(recipe) == ("distill", [])
    judge(tmp_path, untrained=None)
    assert after_align(recipe) == ("run", [])
    tiny.write_traces(tmp_path, recipe)
    sft(recipe)
    assert compare_models(recipe) == ("distill", [])
    judge(tmp_path, untrained=None)
    assert after_align(recipe) == ("sft", ["sft.steps=2"])
    alone = tiny.recipe(tmp_path, sft={"steps": 1}, distill={"objective": {"method": "grpo"}})
    assert after_align(alone) == ("distill", [])  # of a teacher that stage 2 does not ask
    judge(tmp_path, verdict="ready")
    assert after_align(recipe) == ("distill", [])


def test_a_longer_cold_start_takes_the_place_of_the_one_that_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo's student, as if a cold start had taught it nothing."""
    shutil.copytree(resolve("demo:student"), tmp_path / "sft" / "final")
    keys = [f"run.dir={tmp_path}", "align.limit=4"]
    assert main(["align", "demo", "sft.steps=4", *keys]) == 0
    out = capsys.readouterr().out
    assert "not aligned" in out
    assert out.splitlines()[-1].endswith(f"sft demo {shlex.join(keys)} sft.steps=8")
