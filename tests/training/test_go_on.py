"""Stages that go on: after a start that was refused, for more steps, and in a branch of their run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from killed import in_a_process_killed_at, weights_of
from vold.cli import main
from vold.errors import CheckpointError, ConfigError, DataError
from vold.evals.evaluate import evaluate
from vold.run.branch import branch
from vold.run.files import read_jsonl
from vold.run.recipe import Recipe, dump_recipe, load_recipe
from vold.training.distill import distill
from vold.training.sft import sft
from vold.training.traces import make_traces

OPTIMIZER = {"lr": 1e-3, "warmup_steps": 2, "schedule": "constant"}


def recipe(home: Path, steps: int = 4, **sections: Mapping[str, Any]) -> Recipe:
    """Four steps of either stage at a constant rate, with a state every three: the last one is due at the end alone."""
    train: dict[str, Any] = {"steps": steps, "optimizer": OPTIMIZER, "checkpoint_every": 3}
    changes: dict[str, dict[str, Any]] = {"sft": train, "distill": train, "traces": {"max_tokens": 64}}
    changes |= {name: {"path": name} for name in ("student", "teacher")}
    return tiny.recipe(home, **{n: {**changes.get(n, {}), **sections.get(n, {})} for n in {*changes, *sections}})


@pytest.fixture(autouse=True)
def _models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipes' models are where the tests run."""
    tiny.recipe_dict(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose traces and cold start of four steps are finished."""
    home = tmp_path_factory.mktemp("finished")
    made = recipe(home)
    with contextlib.chdir(home):
        tiny.begun(made, "traces").joinpath("traces.jsonl").unlink()
        tiny.write_traces(home, made)
        make_traces(made)
        sft(made)
    return home


@pytest.fixture
def home(finished: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path


def metrics(run: Path, stage: str) -> list[dict[str, Any]]:
    rows = read_jsonl(run / stage / "metrics.jsonl")
    return [{k: v for k, v in r.items() if not k.startswith("seconds")} for r in rows]


def test_more_steps_end_where_a_run_of_so_many_ends(home: Path, tmp_path: Path, finished: Path) -> None:
    long = recipe(tmp_path / "long", steps=7)
    tiny.write_traces(tmp_path / "long", long)
    sft(long)
    distill(long)
    sft(recipe(home, steps=7))
    assert weights_of(home / "run" / "sft") == weights_of(tmp_path / "long" / "run" / "sft")
    assert weights_of(home / "run" / "sft") != weights_of(finished / "run" / "sft")
    distill(recipe(home, steps=4))
    short = weights_of(home / "run" / "distill")
    assert not in_a_process_killed_at(12, lambda: distill(recipe(home, steps=7)))
    distill(recipe(home, steps=7))
    assert weights_of(home / "run" / "distill") == weights_of(tmp_path / "long" / "run" / "distill") != short
    for stage in ("sft", "distill"):
        assert metrics(home / "run", stage) == metrics(tmp_path / "long" / "run", stage)
        assert load_recipe(home / "run" / "recipe.yaml").model_dump()[stage]["steps"] == 7
    assert "#" not in (home / "run" / "recipe.yaml").read_text()


def test_a_stage_that_goes_on_has_no_result_until_it_ends(home: Path) -> None:
    """Nothing may take the model of four steps for that of seven, whatever moment the process dies at."""
    for operation in range(2, 60, 5):
        if in_a_process_killed_at(operation, lambda: sft(recipe(home, steps=7))):
            break
        states = sorted((home / "run" / "sft").glob("step-*"))
        assert not (home / "run" / "sft" / "final").exists() or len(metrics(home / "run", "sft")) in (4, 7)
        assert states
    assert operation > 2
    assert len(metrics(home / "run", "sft")) == 7


def test_the_same_steps_again_give_the_same_result(home: Path, finished: Path) -> None:
    shutil.rmtree(home / "run" / "sft" / "final")
    sft(recipe(home))
    assert weights_of(home / "run" / "sft") == weights_of(finished / "run" / "sft")


def test_fewer_steps_than_are_done_are_refused(home: Path) -> None:
    with pytest.raises(ConfigError, match="`sft` has more steps behind it") as caught:
        sft(recipe(home, steps=3))
    assert caught.value.got == "sft.steps: 4 done, 3 wanted"
    assert (home / "run" / "sft" / "final").is_dir()
    sft(recipe(home))


def test_without_its_state_a_finished_stage_does_not_go_on(home: Path) -> None:
    shutil.rmtree(home / "run" / "sft" / "step-000004")
    with pytest.raises(ConfigError, match="the state to go on from is not there"):
        sft(recipe(home, steps=7))
    assert sft(recipe(home)) == home / "run" / "sft" / "final"


def test_a_decaying_rate_says_what_more_steps_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cosine = {**OPTIMIZER, "schedule": "cosine"}
    first = recipe(tmp_path, sft={"optimizer": cosine})
    tiny.write_traces(tmp_path, first)
    sft(first)
    rates = [r["lr"] for r in metrics(tmp_path / "run", "sft")]
    capsys.readouterr()
    sft(recipe(tmp_path, steps=7, sft={"optimizer": cosine}))
    note = "sft: its first 4 steps have the learning rates of a cosine schedule over 4 steps"
    assert note in capsys.readouterr().out.replace("\n", " ")
    again = [r["lr"] for r in metrics(tmp_path / "run", "sft")]
    assert again[:4] == rates
    # Step 4 of 7 after a warm-up of 2: half way down a cosine from 1 to 0.1, so 0.55.
    assert again[4] == pytest.approx(1e-3 * 0.55)
    for file in ("sft/recipe.yaml", "recipe.yaml"):
        assert f"# {note}\n" in (tmp_path / "run" / file).read_text()
    evaluate(recipe(tmp_path, steps=7, sft={"optimizer": cosine}, eval={"tasks": ["text"]}))
    assert f"# {note}\n" in (tmp_path / "run" / "recipe.yaml").read_text()


def test_a_stage_is_not_mixed_from_two_results_of_the_one_before(home: Path) -> None:
    distill(recipe(home, steps=4))
    sft(recipe(home, steps=7))
    with pytest.raises(ConfigError, match="the model that `distill` began with is not the same any more") as caught:
        distill(recipe(home, steps=7))
    assert f"vold branch {home / 'run'} --from sft NEW" in caught.value.fix


def test_a_cold_start_is_not_mixed_from_two_lists_of_traces(home: Path) -> None:
    file = home / "run" / "traces" / "traces.jsonl"
    file.write_bytes(b"".join(reversed(file.read_bytes().splitlines(keepends=True))))
    with pytest.raises(ConfigError, match="the traces that `sft` began with are not the same"):
        sft(recipe(home, steps=7))


def test_traces_made_otherwise_are_not_taken_for_those_of_the_recipe(home: Path) -> None:
    shutil.rmtree(home / "run" / "sft")
    changes: list[dict[str, dict[str, Any]]] = [
        {"traces": {"sampling": {"max_new_tokens": 23}}},
        {"teacher": {"path": "demo:teacher"}},
    ]
    for change in changes:
        with pytest.raises(ConfigError, match="`sft` would go on from a `traces` that ran with other settings"):
            sft(recipe(home, 4, **change))
        assert not (home / "run" / "sft").exists()
    sft(recipe(home, traces={"keep": "correct"}))  # a filter of what is read


# What a stage lacks, and what it is started with once that is there.
def test_a_refused_start_binds_nobody(tmp_path: Path) -> None:
    first = recipe(tmp_path, steps=2)
    with pytest.raises(DataError, match="not all there"):
        sft(first)
    assert not (tmp_path / "run").exists()
    tiny.write_traces(tmp_path, first)
    with pytest.raises(CheckpointError, match="no cold start yet"):
        distill(first)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [".lock", "traces"]
    sft(recipe(tmp_path, steps=3))
    before = (tmp_path / "run" / "recipe.yaml").read_text()
    nothing = {"more": {"kind": "jsonl", "path": "nowhere.jsonl"}, **tiny.TASKS}
    with pytest.raises(DataError):
        distill(recipe(tmp_path, steps=2, tasks=nothing, distill={"tasks": "more"}))
    assert (tmp_path / "run" / "recipe.yaml").read_text() == before
    distill(recipe(tmp_path, steps=3))


def test_settings_that_a_killed_start_has_left_bind_nobody(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    tiny.write_traces(tmp_path, made)
    assert not in_a_process_killed_at(8, lambda: sft(made))
    assert (tmp_path / "run" / "sft" / "settings.json").exists()
    assert not metrics(tmp_path / "run", "sft")
    sft(recipe(tmp_path, steps=2, sft={"batch_size": 2}))
    assert len(metrics(tmp_path / "run", "sft")) == 2


def test_the_recipe_of_a_run_says_what_ran(home: Path) -> None:
    """Of a cold start of four steps, evaluated with a recipe that has other ideas."""
    other: dict[str, dict[str, Any]] = {"sft": {"batch_size": 99}, "traces": {"batch_size": 3}}
    other |= {"student": {"dtype": "bfloat16"}, "eval": {"tasks": ["text"]}}
    evaluate(recipe(home, 90, **other))
    stored = home / "run" / "recipe.yaml"
    found = load_recipe(stored)
    assert found.sft is not None
    assert found.traces is not None
    assert found.eval is not None
    assert found.distill is not None
    assert (found.sft.steps, found.sft.batch_size, found.traces.batch_size) == (4, 4, 4)
    assert (found.eval.tasks, found.distill.steps) == (("text",), 90)
    assert found.learner.dtype == "float32"
    assert [line for line in stored.read_text().splitlines() if line.startswith("#")] == [
        "# eval ran with student.dtype: bfloat16 (see eval/recipe.yaml)"
    ]
    assert sft(found) == home / "run" / "sft" / "final"
    assert make_traces(found) == home / "run" / "traces" / "traces.jsonl"
    assert load_recipe(home / "run" / "eval" / "recipe.yaml").learner.dtype == "bfloat16"


def test_a_run_that_is_repeated_from_its_recipe_is_the_same(home: Path, tmp_path: Path) -> None:
    again = load_recipe(home / "run" / "recipe.yaml", [f"run.dir={tmp_path / 'again' / 'run'}"])
    tiny.write_traces(tmp_path / "again", again)
    sft(again)
    assert weights_of(tmp_path / "again" / "run" / "sft") == weights_of(home / "run" / "sft")


def test_two_sets_of_one_name_both_stand_in_the_recipe(home: Path) -> None:
    train = {"train": {**tiny.TASKS["train"], "size": 5}, "text": tiny.TASKS["text"]}
    distill(recipe(home, steps=2, tasks=train))
    found = load_recipe(home / "run" / "recipe.yaml")
    assert found.traces is not None
    assert found.distill is not None
    assert found.distill.tasks == "train"
    sizes = {name: spec.model_dump()["size"] for name, spec in found.tasks.items()}
    assert (sizes["train"], sizes[found.traces.tasks]) == (5, 12)
    make_traces(found)
    assert distill(found) == home / "run" / "distill" / "final"


@pytest.mark.parametrize("content", [b"", b"\xff", b"{}", b"a: 1\na: 2\n", b"run: {dir: x}\nsft: 3\n", b"[" * 5000])
def test_a_damaged_recipe_of_a_stage_is_named(content: bytes, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = home / "run" / "sft" / "recipe.yaml"
    (home / "r.yaml").write_text(dump_recipe(recipe(home)))
    file.write_bytes(content)
    for argv in (["eval", "r.yaml"], ["branch", "run", "--from", "sft", "new"]):
        assert main(argv) == 2
        err = capsys.readouterr().err
        assert f"where: {file}" in err or "where: run/sft/recipe.yaml" in err
        assert "fix:   copy" in err
    assert not (home / "new").exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"run": 3}', b"\xff"])
def test_a_damaged_note_of_a_branch_is_named(content: bytes, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "r.yaml").write_text(dump_recipe(recipe(home)))
    (home / "run" / "branch.json").write_bytes(content)
    assert main(["eval", "r.yaml"]) == 2
    err = capsys.readouterr().err
    assert f"where: {home / 'run' / 'branch.json'}" in err
    assert "  fix:   " in err


def test_a_trained_stage_that_has_lost_its_settings_does_not_go_on(home: Path) -> None:
    (home / "run" / "sft" / "settings.json").unlink()
    with pytest.raises(CheckpointError, match="what `sft` was started with is not there any more"):
        sft(recipe(home, steps=7))


def tree(run: Path) -> dict[str, bytes]:
    return {p.relative_to(run).as_posix(): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}


def test_a_branch_goes_on_from_a_stage_and_leaves_the_run_alone(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, new = home / "run", tmp_path / "new"
    before = tree(run)
    words = ["distill.objective.method=grpo", "distill.steps=2", "run.seed=8"]
    assert main(["branch", str(run), "--from", "sft", str(new), *words]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"next: vold align {new}/recipe.yaml"
    assert tree(run) == before
    for name in ("traces/traces.jsonl", "sft/metrics.jsonl", "sft/final/model.safetensors", "sft/settings.json"):
        assert (new / name).read_bytes() == before[name]
    weights = "sft/final/model.safetensors"
    assert os.path.samefile(run / weights, new / weights)
    # What grows or is written again is never shared.
    assert not os.path.samefile(run / "sft/metrics.jsonl", new / "sft/metrics.jsonl")
    made = load_recipe(new / "recipe.yaml")
    assert made.distill is not None
    assert made.distill.objective.method == "grpo"
    assert made.run.seed == 8
    comments = [line for line in (new / "recipe.yaml").read_text().splitlines() if line.startswith("#")]
    assert comments[0] == f"# branched from {run} after sft"
    assert "# sft ran with run.seed: 5 (see sft/recipe.yaml)" in comments
    assert json.loads((new / "branch.json").read_text()) == {
        "run": str(run),
        "stage": "sft",
        "stages": ["traces", "sft"],
    }
    assert main(["eval", str(new / "recipe.yaml"), "eval.tasks=[text]"]) == 0
    assert load_recipe(new / "recipe.yaml").run.seed == 8, "a plan of the branch was lost"
    assert main(["distill", str(new / "recipe.yaml")]) == 0
    assert len(metrics(new, "distill")) == 2
    assert main(["sft", str(new / "recipe.yaml"), "run.seed=5", "sft.steps=6"]) == 0
    assert tree(run) == before, "what the branch wrote reached the run"


@pytest.mark.parametrize("stage", ["traces", "distill", "eval"])
def test_a_branch_starts_at_any_stage(stage: str, home: Path, tmp_path: Path) -> None:
    distill(recipe(home, steps=2))
    evaluate(recipe(home, steps=2, eval={"tasks": ["text"]}))
    new = tmp_path / "new"
    branch(home / "run", stage, new)
    have = {p.name for p in new.iterdir() if p.is_dir()}
    assert have - {".lock"} == {
        "traces": {"traces"}, "distill": {"traces", "sft", "distill"}, "eval": {"traces", "sft", "distill", "eval"},
    }[stage]  # fmt: skip
    distill_again = load_recipe(new / "recipe.yaml")
    if stage != "traces":
        assert distill(distill_again) == new / "distill" / "final"


def test_a_branch_may_cross_file_systems(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(old: object, new: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    branch(home / "run", "sft", tmp_path / "new")
    weights = "sft/final/model.safetensors"
    assert not os.path.samefile(home / "run" / weights, tmp_path / "new" / weights)
    assert (home / "run" / weights).read_bytes() == (tmp_path / "new" / weights).read_bytes()


@pytest.mark.parametrize(("argv", "missing"), [(["run", "--from", "sft"], "NEW"), (["run", "new"], "--from")])
def test_a_branch_has_a_stage_and_a_new_directory(
    argv: list[str], missing: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(home)
    with pytest.raises(SystemExit) as stopped:
        main(["branch", *argv])
    assert stopped.value.code == 2
    assert f"the following arguments are required: {missing}" in capsys.readouterr().err
    assert tree(home) == before


@pytest.mark.parametrize(
    ("change", "argv", "said"),
    [
        ("", ["nowhere", "--from", "sft", "new"], "there is no run here"),
        ("", ["run", "--from", "stf", "new"], "no stage has this name"),
        ("", ["run", "--from", "distill", "new"], "this run has no `distill`"),
        ("", ["run", "--from", "sft", "run"], "something is there already"),
        ("", ["run", "--from", "sft", "r.yaml"], "something is there already"),
        ("", ["run", "--from", "sft", "new", "sft.batch_size=3"], "sft.batch_size: 4 there, 3 wanted"),
        ("", ["run", "--from", "traces", "new", "traces.keep=correct"], "traces.keep: all there, correct wanted"),
        ("", ["run", "--from", "sft", "new", "sft.batch_sice=3"], "did you mean 'batch_size'?"),
        ("rm -r run/sft/final", ["run", "--from", "sft", "new"], "this run has not finished `sft`"),
        ("rm run/traces/summary.json", ["run", "--from", "traces", "new"], "this run has not finished `traces`"),
        ("truncate -s 9 run/sft/final/config.json", ["run", "--from", "sft", "new"], "corrupt"),
        ("truncate -s 9 run/sft/step-000004/state.json", ["run", "--from", "sft", "new"], "corrupt"),
    ],
)
def test_what_can_not_be_branched_is_refused(
    change: str,
    argv: list[str],
    said: str,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (home / "r.yaml").write_text(yaml.safe_dump({}))
    assert os.system(change) == 0
    before = tree(home)
    assert main(["branch", *argv]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert tree(home) == before
