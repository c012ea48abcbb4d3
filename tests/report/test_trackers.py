"""TensorBoard and trackio as they are: what a run that was killed and went on has told them, read from their files."""

from __future__ import annotations

import json
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
from vold.cli import main
from vold.report.trackers.tracking import TrackedStage, Tracking
from vold.run.files import read_jsonl
from vold.run.metrics import SftRow
from vold.run.recipe import recipe_from

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
    file = home / "recipe.yaml"
    file.write_text(yaml.safe_dump(raw))
    env = {**os.environ, "TRACKIO_DIR": str(home / "trackio"), "PYTHONPATH": str(Path(tiny.__file__).parent)}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(file)], env=env, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    whole = subprocess.run([sys.executable, "-c", WHOLE, str(file)], env=env, capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
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
    tracking = Tracking(["tensorboard"], TrackedStage(tmp_path, "sft", "0" * 32, ""), [])
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
