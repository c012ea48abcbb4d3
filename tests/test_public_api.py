"""`import vold`: what it offers, that it is typed, that it loads nothing until it is asked; and a run as a value."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tiny
import vold
from package import SOURCE
from vold.errors import CheckpointError, ConfigError, DataError
from vold.run.files import append_jsonl
from vold.run.metrics import SftRow
from vold.run.recipe import recipe_from

NAMES = {"load_recipe", "traces", "sft", "align", "distill", "evaluate", "Objective", "credit", "total", "Run"}
HEAVY = ("torch", "transformers", "numpy", "pydantic", "yaml", "rich", "vold.run", "vold.objective", "vold.errors")


def test_the_package_offers_these_names_and_each_is_the_one_of_its_module() -> None:
    assert set(vold.__all__) == NAMES <= set(dir(vold))
    for name in NAMES:
        found = getattr(vold, name)
        assert callable(found)
        assert getattr(importlib.import_module(found.__module__), found.__name__) is found
        assert found.__name__.removeprefix("make_") == name


def test_every_name_is_in_the_reference_and_so_is_all_that_a_run_gives() -> None:
    page = (SOURCE.parent / "docs" / "reference.md").read_text()
    listed, _, _ = page.partition("## Python")[2].partition(":::")
    assert [name for name in vold.__all__ if f"`vold.{name}" not in listed] == []
    (run,) = (line for line in listed.splitlines() if line.startswith("| `vold.Run(path)`"))
    assert [name for name in vars(vold.Run) if not name.startswith("_") and f"`{name}" not in run] == []


def test_a_recipe_of_the_package_is_loaded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert vold.load_recipe("demo", ["sft.steps=7"]).sft.steps == 7  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="there is no recipe of this name") as error:
        vold.load_recipe("demoo")
    assert error.value.fix == "did you mean demo?"


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'vold' has no attribute 'train'"):
        _ = vold.train  # type: ignore[attr-defined]
    assert not hasattr(vold, "train")


def loaded(code: str) -> list[str]:
    check = f"import sys\n{code}\nimport json\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    env = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", check], env=env, capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


def test_importing_it_and_looking_at_its_names_loads_nothing() -> None:
    assert loaded("import vold; dir(vold); vold.__all__; vold.__version__") == []


def test_the_objective_loads_no_model_code() -> None:
    assert "transformers" not in loaded("import vold; vold.Objective(method='vold')")


def test_a_run_is_read_back_as_what_was_written(tmp_path: Path) -> None:
    raw = tiny.recipe_dict(tmp_path)
    raw["distill"] |= {"steps": 2, "init": raw["student"]["path"], "keep_rollouts_every": 1}
    raw["student"]["dtype"] = raw["teacher"]["dtype"] = "float32"  # what `auto` came to is stored in its place
    recipe = recipe_from(raw, where="test")
    results = vold.evaluate(recipe)
    run = vold.Run(recipe.run.dir)
    assert run.results == results
    assert run.recipe.model_dump() == recipe.model_dump()
    assert run.metrics("distill") == [] == run.metrics("sft")
    row = SftRow(step=0, loss=2.5, grad_norm=1.0, lr=0.1, tokens=8, seconds=0.5)
    append_jsonl(recipe.run.dir / "sft" / "metrics.jsonl", [row])
    assert run.metrics("sft") == [row]
    vold.distill(recipe)
    rows = run.metrics("distill")
    assert [r.step for r in rows] == [0, 1]
    assert list(run.stored_steps) == [0, 1]
    rollouts = run.rollouts(1)
    assert sum(r.rollout.grade.score for r in rollouts) / len(rollouts) == rows[1].reward
    made = [r.rollout.completion for r in rollouts]
    assert sum(len(c.ids) for c in made) == sum(len(c.logps) for c in made) == rows[1].rollout_tokens
    assert all("".join(r.texts()) for r in rollouts)
    with pytest.raises(DataError, match="rollouts of this step are not stored") as error:
        run.rollouts(7)
    assert error.value.fix == "one of 0, 1"
    assert repr(run) == f"Run({str(recipe.run.dir)!r})"


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no run here"):
        vold.Run(tmp_path)
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(CheckpointError, match=r"results\.json"):
        _ = vold.Run(tmp_path).results
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "results.json").write_text('{"run": ')
    with pytest.raises(CheckpointError, match="not whole JSON"):
        _ = vold.Run(tmp_path).results
