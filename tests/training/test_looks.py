"""Evaluation while a stage trains."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

import tiny
from killed import in_a_process_killed_at, weights_of
from vold.cli import main
from vold.errors import ConfigError
from vold.evals.evaluate import evaluate
from vold.evals.preflight import check
from vold.run.directory import is_finished, steps_done
from vold.run.files import read_jsonl
from vold.run.looks import EvalRow, best_step, none_better, read_evals
from vold.run.recipe import Recipe, dump_recipe
from vold.training.distill import distill
from vold.training.sft import sft

EVERY_2: dict[str, Any] = {"every": 2, "sets": ["image", "text"], "size": 6, "keep_every": 1}


def made(home: Path, during: dict[str, Any] | None, stage: str = "distill", **more: Any) -> Recipe:
    """A run of one stage from the tiny student."""
    start = {"init": str(home / "student")} if stage == "distill" else {}
    recipe = tiny.recipe(home, **{stage: {"steps": 5, "eval": during, **start, **more}})
    if stage == "sft":
        tiny.write_traces(home, recipe)
    return recipe


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of stage 2 that was evaluated after 0, 2, 4 and 5 steps."""
    home = tmp_path_factory.mktemp("whole")
    distill(made(home, EVERY_2))
    return home


def test_what_is_found_meanwhile_is_what_evaluation_finds_of_the_models_that_were_kept(whole: Path) -> None:
    rows = read_evals(whole / "run" / "distill")
    assert [(r.step, r.set, r.pictures) for r in rows] == [
        (step, name, name == "image") for step in (0, 2, 4, 5) for name in ("image", "text")
    ]
    models = {f"s{n}": str(whole / f"run/distill/models/step-{n:06d}") for n in (0, 2, 4, 5)}
    found = evaluate(tiny.recipe(whole, eval={"models": models}))
    assert found.stages["s2"]["text"].n == 10  # all of them, and 6 while it trains
    for row in rows:
        ours = read_jsonl(whole / f"run/distill/evals/step-{row.step:06d}/{row.set}.jsonl")
        theirs = read_jsonl(whole / f"run/eval/s{row.step}/{row.set}.jsonl")[:6]
        assert ours == theirs
        assert row.n == 6
        assert row.accuracy == fmean(a["score"] for a in theirs)
        assert row.tokens == fmean(a["tokens"] for a in theirs)
        assert row.truncated == fmean(a["outcome"] == "truncated" for a in theirs)
        assert (row.difference is None) == (row.step == 0)


def test_it_changes_no_weight(whole: Path, tmp_path: Path) -> None:
    distill(made(tmp_path, None))
    assert weights_of(tmp_path / "run/distill") == weights_of(whole / "run/distill")


@pytest.mark.parametrize("operation", [12, 24, 36, 48, 60, 84])
def test_a_killed_run_ends_with_the_same_evaluations(operation: int, whole: Path, tmp_path: Path) -> None:
    recipe = made(tmp_path, EVERY_2)
    assert not in_a_process_killed_at(operation, lambda: distill(recipe)), "the kill came after the end"
    assert in_a_process_killed_at(10**9, lambda: distill(recipe))
    for part in ("evals.jsonl", "final/model.safetensors", "models/best/model.safetensors"):
        assert (tmp_path / "run/distill" / part).read_bytes() == (whole / "run/distill" / part).read_bytes()
    for file in (whole / "run/distill/evals").rglob("*.jsonl"):
        assert (tmp_path / file.relative_to(whole)).read_bytes() == file.read_bytes()


def row(step: int, accuracy: float) -> EvalRow:
    return EvalRow(step=step, set="image", pictures=True, n=8, accuracy=accuracy, stderr=0.1, truncated=0.0, tokens=9)


def test_the_best_is_the_first_of_equal_ones() -> None:
    rows = [row(0, 0.25), row(5, 0.5), row(10, 0.5), row(15, 0.375)]
    assert best_step(rows, "image") == 5
    assert none_better(rows, "image") == 2
    assert none_better(rows[:2], "image") == 0
    assert best_step(rows, "text") is None


def test_a_stage_ends_when_nothing_gets_better(tmp_path: Path) -> None:
    """The tiny student solves nothing, so no evaluation is better than the first."""
    during = {**EVERY_2, "keep_every": None, "patience": 2}
    recipe = made(tmp_path, during, "sft", steps=20, checkpoint_every=8)
    directory = sft(recipe).parent
    assert {r.accuracy for r in read_evals(directory) if r.set == "image"} == {0.0}
    assert steps_done(directory) == 4
    assert is_finished(directory, 20)
    assert [r["step"] for r in read_jsonl(directory / "metrics.jsonl")] == [0, 1, 2, 3]
    assert [p.name for p in (directory / "models").iterdir()] == ["best"]
    before = {f: f.stat().st_mtime_ns for f in directory.rglob("*") if "final" in f.parts}
    sft(recipe)
    assert {f: f.stat().st_mtime_ns for f in directory.rglob("*") if "final" in f.parts} == before


def test_check_says_what_is_asked_how_often_and_what_it_takes(tmp_path: Path) -> None:
    said = "\n".join(check(made(tmp_path, EVERY_2)))
    assert "distill.eval: 6 of image, 6 of text, 4 times" in said
    assert "memory of distill, evaluation: " in said
    assert "distill: models kept" in said


def test_a_set_that_is_not_there_is_a_mistake_of_the_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = dump_recipe(made(tmp_path, EVERY_2)).replace("    - image\n    - text\n    size", "    - imag\n    size")
    (tmp_path / "recipe.yaml").write_text(text)
    assert main(["check", str(tmp_path / "recipe.yaml")]) == 2
    said = capsys.readouterr().err
    assert "distill.eval.sets" in said
    assert "did you mean 'image'?" in said


def test_sets_that_a_judge_marks_are_refused(tmp_path: Path) -> None:
    judge = {"urls": ["http://127.0.0.1:1/v1"], "model": "judge"}
    benchmarks = {"wemath": {"protocol": "vlmevalkit"}}
    section = {"judge": judge, "benchmarks": benchmarks}
    recipe = tiny.recipe(
        tmp_path, distill={"init": str(tmp_path / "student"), "eval": {"every": 2, "sets": ["wemath"]}}, eval=section
    )
    with pytest.raises(ConfigError, match="no judge marks"):
        distill(recipe)
