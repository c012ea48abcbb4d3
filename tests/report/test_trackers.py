"""TensorBoard and trackio as they are: what a run that was killed and went on has told them, read from their files."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tiny
from stored import store_rows
from vold.cli import main
from vold.report.trackers.tracking import TrackedStage, Tracking, track_stage
from vold.run.files import read_jsonl
from vold.run.metrics import SftRow
from vold.run.recipe import recipe_from
from vold.run.rollouts import load_rollouts

KILLED = """
import sys
from killed import after, killer
from vold.run.recipe import load_recipe
from vold.training import metrics_file
from vold.training.sft import sft
metrics_file.append_jsonl = after(killer(6), metrics_file.append_jsonl)  # five rows are written, the state is of step 4
sft(load_recipe(sys.argv[1]))
"""
WHOLE = """
import sys
from vold.evals.evaluate import evaluate
from vold.run.recipe import load_recipe
from vold.training.distill import distill
from vold.training.sft import sft
recipe = load_recipe(sys.argv[1])
sft(recipe)
distill(recipe)
evaluate(recipe)
evaluate(recipe)
"""
LONGER = """
import sys
from killed import interrupted_at_update
from vold.run.recipe import load_recipe
from vold.training.distill import distill
file = sys.argv[1]
interrupted_at_update(4, lambda: distill(load_recipe(file, ["run.report_to=[trackio]"])))  # after the look at step 3
distill(load_recipe(file))  # to its end, with a tracker that was not there before
distill(load_recipe(file, ["distill.steps=5"]))
"""


@dataclass(frozen=True)
class Told:
    """A whole run and what its trackers hold."""

    run: Path
    database: Path

    def metrics(self, stage: str) -> list[dict[str, Any]]:
        return read_jsonl(self.run / stage / "metrics.jsonl")

    def trackio(self, stage: str) -> list[tuple[int, dict[str, Any]]]:
        """Rows of trackio's database by step, of the only run with this stage's name."""
        with sqlite3.connect(self.database) as db:
            rows = db.execute("SELECT run_name, run_id, step, metrics FROM metrics ORDER BY id").fetchall()
        ours = [r for r in rows if f"-{stage}-" in r[0]]
        assert len({r[:2] for r in ours}) == 1
        return [(step, json.loads(metrics)) for _, _, step, metrics in ours]

    def events(self, stage: str) -> EventAccumulator:
        files = list((self.run / "tensorboard" / stage).iterdir())
        assert len(files) == 1
        found = EventAccumulator(str(files[0]), size_guidance={"tensors": 0})
        found.Reload()
        return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    home = tmp_path_factory.mktemp("trackers")
    raw = tiny.recipe_dict(home)
    raw["run"]["report_to"] = ["tensorboard", "trackio"]
    raw["sft"] |= {"steps": 6, "checkpoint_every": 2}
    tiny.write_traces(home, recipe_from(raw, where="test"))
    ran(home, raw, KILLED, -signal.SIGKILL)
    return ran(home, raw, WHOLE)


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A stage that is evaluated at every step, was stopped in step 3 and, when it had ended, was given a fifth step."""
    home = tmp_path_factory.mktemp("longer")
    raw = tiny.recipe_dict(home)
    raw["run"]["report_to"] = ["tensorboard", "trackio"]
    looks = {"every": 1, "sets": ["text"], "size": 4}
    raw["distill"] |= {"steps": 4, "init": str(home / "student"), "keep_rollouts_every": 1, "eval": looks}
    return ran(home, raw, LONGER)


def ran(home: Path, raw: dict[str, Any], script: str, code: int = 0) -> Told:
    """A run in a process of its own, as trackio reads where its database is when it is imported."""
    file = home / "recipe.yaml"
    file.write_text(yaml.safe_dump(raw))
    env = {**os.environ, "TRACKIO_DIR": str(home / "trackio"), "PYTHONPATH": str(Path(tiny.__file__).parent)}
    done = subprocess.run([sys.executable, "-c", script, str(file)], env=env, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return Told(home / "run", home / "trackio" / "vold.db")


@pytest.mark.parametrize("stage", ["sft", "distill"])
def test_every_step_is_there_once_with_its_values(told: Told, stage: str) -> None:
    rows = told.metrics(stage)
    assert [r["step"] for r in rows] == list(range(len(rows))) and len(rows) >= 2
    found = told.trackio(stage)
    numbers = [(step, values) for step, values in found if "loss" in values]
    assert numbers == [(r["step"], {k: v for k, v in r.items() if k != "step"}) for r in rows]
    events = told.events(stage)
    for name in ("loss", "grad_norm"):
        scalars = [(e.step, e.value) for e in events.Scalars(name)]
        assert scalars == [(r["step"], pytest.approx(r[name], rel=1e-6)) for r in rows]


def test_stored_rollouts_are_a_table(told: Told) -> None:
    tables = [(step, values["rollouts"]) for step, values in told.trackio("distill") if "rollouts" in values]
    stored = sorted(
        int(f.stem.removeprefix("step-")) for f in (told.run / "distill" / "rollouts").glob("step-*.safetensors")
    )
    assert [step for step, _ in tables] == stored
    row = tables[0][1]["_value"][0]
    assert set(row) >= {"problem", "question", "response", "score", "teacher gap"}
    assert [e.step for e in told.events("distill").Tensors("rollouts/text_summary")] == stored


def test_no_metrics_of_a_step_are_lost_to_its_evaluation(longer: Told) -> None:
    steps = [step for step, values in longer.trackio("distill") if "loss" in values]
    assert steps == [0, 1, 2, 3, 4]
    assert [e.step for e in longer.events("distill").Scalars("loss")] == steps


def test_every_evaluation_while_training_is_told_once_with_its_difference(longer: Told) -> None:
    rows = read_jsonl(longer.run / "distill" / "evals.jsonl")
    assert [r["step"] for r in rows] == [0, 1, 2, 3, 4, 5]
    events = longer.events("distill")
    for name in ("accuracy", "difference", "low", "high"):
        key = f"eval/text/{name}"
        known = [(r["step"], r[name]) for r in rows if name in r]
        assert len(known) == (6 if name == "accuracy" else 5)
        assert [(step, values[key]) for step, values in longer.trackio("distill") if key in values] == known
        assert [(e.step, e.value) for e in events.Scalars(key)] == [(s, pytest.approx(v, rel=1e-6)) for s, v in known]


@pytest.mark.parametrize("table", ["rollouts", "tokens"])
def test_rollouts_from_before_a_resume_are_tables_of_a_tracker_that_came_later(longer: Told, table: str) -> None:
    assert [step for step, values in longer.trackio("distill") if table in values] == [0, 1, 2, 3, 4]
    assert [e.step for e in longer.events("distill").Tensors(f"{table}/text_summary")] == [0, 1, 2, 3, 4]


def test_tokens_of_the_first_rollouts_are_rows_with_their_values(longer: Told) -> None:
    first, second = load_rollouts(longer.run / "distill" / "rollouts" / "step-000002.safetensors")[:2]
    (rows,) = (v["tokens"]["_value"] for step, v in longer.trackio("distill") if step == 2 and "tokens" in v)
    stored = [first.row(), second.row()]
    for column, key in (("token", "tokens"), ("student", "logp"), ("teacher", "teacher_logp")):
        assert [r[column] for r in rows] == [value for of in stored for value in of[key]]
    assert [r["rollout"] for r in rows] == [0] * len(stored[0]["ids"]) + [1] * len(stored[1]["ids"])
    assert [r["gap"] for r in rows] == [pytest.approx(r["student"] - r["teacher"], abs=1e-5) for r in rows]


def test_tables_are_bounded_and_leave_out_tokens_without_a_score(tmp_path: Path) -> None:
    odd = {"tokens": ["a|", "b", "c"], "logp": [-1.0, -2.0, -0.5], "teacher_logp": [-1.5, -1.0, math.nan], "score": 1.0}
    long = {"tokens": ["b"] * 300, "logp": [-1.0] * 300, "advantage": [0.5] * 300}
    file = store_rows(tmp_path / "stored", 7, [odd, long, long])
    tracking = Tracking(["tensorboard"], TrackedStage(tmp_path, "distill", "0" * 32, ""))
    tracking.rollouts(7, file)
    tracking.close()
    events = Told(tmp_path, tmp_path).events("distill")
    text = {
        n: events.Tensors(f"{n}/text_summary")[0].tensor_proto.string_val[0].decode() for n in ("rollouts", "tokens")
    }
    assert [line.split(" | ")[-1] for line in text["rollouts"].splitlines()[2:]] == ["-0.25 |", " |", " |"]
    lines = text["tokens"].splitlines()
    assert lines[:5] == [
        "| rollout | token | student | teacher | gap | advantage |",
        "| --- | --- | --- | --- | --- | --- |",
        "| 0 | a\\| | -1.0 | -1.5 | 0.5 |  |",
        "| 0 | b | -2.0 | -1.0 | -1.0 |  |",
        "| 0 | c | -0.5 |  |  |  |",
    ]
    assert lines[5:] == ["| 1 | b | -1.0 |  |  | 0.5 |"] * 256


def test_stored_rollouts_that_are_damaged_cost_their_table_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny.recipe(tmp_path, run={"report_to": ["tensorboard"]})
    stored = recipe.run.dir / "distill" / "rollouts"
    store_rows(stored, 0, [{"logp": [-1.0]}]).write_bytes(b"cut")
    store_rows(stored, 1, [{"logp": [-1.0]}])
    rows = [SftRow(step=step, loss=1.0, grad_norm=0.5, lr=0.1, tokens=3, seconds=0.0) for step in (0, 1)]
    track_stage(recipe, "distill", rows, ()).close()
    events = Told(recipe.run.dir, tmp_path).events("distill")
    assert [e.step for e in events.Scalars("loss")] == [0, 1]
    assert [e.step for e in events.Tensors("rollouts/text_summary")] == [1]
    assert "trackers lack rollouts of step 0" in capsys.readouterr().out


def test_an_evaluation_is_told_once_however_often_it_is_repeated(told: Told) -> None:
    results = json.loads((told.run / "eval" / "results.json").read_text())
    numbers = [
        values for _, values in told.trackio("eval") if "results" not in values and "paired differences" not in values
    ]
    assert numbers == [{f"{m}/{s}": f["accuracy"] for m, sets in results["stages"].items() for s, f in sets.items()}]
    (pairs,) = (v["paired differences"]["_value"] for _, v in told.trackio("eval") if "paired differences" in v)
    assert [(p["set"], p["model"], p["difference"]) for p in pairs] == [
        (c["set"], c["model"], c["difference"]) for c in results["comparisons"]
    ]


def test_a_tracker_that_fails_is_given_up_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tensorboard").write_text("a file where its folder would be")
    row = SftRow(step=0, loss=1.0, grad_norm=0.5, lr=0.1, tokens=3, seconds=0.0)
    tracking = Tracking(["tensorboard"], TrackedStage(tmp_path, "sft", "0" * 32, ""))
    tracking.log(row)
    tracking.close()
    assert capsys.readouterr().out.count("warn  tensorboard takes no more of this run") == 1


def test_one_that_is_not_installed_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vold.run.run_section.find_spec", lambda name: None)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(tiny.recipe_dict(tmp_path)))
    assert main(["sft", str(file), "run.report_to=[mlflow]"]) == 2
    said = capsys.readouterr().err
    assert "mlflow is not installed" in said and "pip install 'vold[mlflow]'" in said
    assert not (tmp_path / "run" / "sft").exists()
