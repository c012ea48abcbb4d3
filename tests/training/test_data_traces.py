"""Traces from solutions that come with the data, and what a stage writes down about its data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

import tiny
import training_sets
from layouts import parquet
from vold.errors import ConfigError, DataError
from vold.run.directory import record_data
from vold.run.files import read_jsonl
from vold.run.summaries import DataCard
from vold.training.sft import sft
from vold.training.traces import make_traces, read_traces

if TYPE_CHECKING:
    from pathlib import Path

    from vold.run.recipe import Recipe


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def solved(home: Path, tasks: dict[str, Any] | None = None, **traces: Any) -> Recipe:
    """Three questions of the demo world with solutions of 3, 5 and 9 digits; the run has no teacher."""
    rows = [
        {"messages": training_sets.turns(f"digits 3 {n} . sum ?", "3 " * n), "num_tokens": n, "source": "s"}
        for n in (3, 5, 9)
    ]
    file = parquet(home / "mot.parquet", rows)
    config = {
        "tasks": "solved",
        "answers": "data",
        "sampling": None,
        "batch_size": 2,
    }
    raw = tiny.recipe_dict(home)
    raw["tasks"]["solved"] = tasks or {"kind": "mixture_of_thoughts", "path": str(file)}
    raw["traces"] = config | traces
    raw |= {"teacher": None, "align": None, "distill": None}
    from vold.run.recipe import recipe_from

    return recipe_from(raw, where="test recipe")


def test_solutions_of_the_data_become_traces_in_the_students_tokens(tmp_path: Path) -> None:
    recipe = solved(tmp_path)
    rows = read_jsonl(make_traces(recipe))
    chat = tiny.student().chat
    assert [tuple(r["response_ids"]) for r in rows] == [
        (*chat.tokens(("3 " * n).strip()), chat.end_id) for n in (3, 5, 9)
    ]
    assert [(r["finish"], r["score"], r["note"]) for r in rows] == [("stop", 0.0, "no reference")] * 3
    summary = json.loads((tmp_path / "run" / "traces" / "summary.json").read_text())
    assert (summary["answers"], summary["kept"], summary["truncated"]) == (3, 3, 0)


def test_the_length_filter_is_that_of_a_teachers_traces(tmp_path: Path) -> None:
    rows = read_jsonl(make_traces(solved(tmp_path)))
    longest = len(rows[1]["response_ids"])
    assert len(rows[2]["response_ids"]) > longest
    assert len(read_traces(solved(tmp_path, max_tokens=longest))) == 2
    assert len(read_traces(solved(tmp_path, max_tokens=longest - 1))) == 1
    with pytest.raises(DataError, match="no trace passes"):
        read_traces(solved(tmp_path, keep="correct"))


def test_the_cold_start_learns_from_them(tmp_path: Path) -> None:
    recipe = solved(tmp_path)
    make_traces(recipe)
    assert (sft(recipe) / "model.safetensors").exists()


def test_tasks_without_a_solution_are_refused_by_name(tmp_path: Path) -> None:
    digits = {"kind": "digits", "split": "train", "form": "text", "size": 3, "seed": 1}
    with pytest.raises(DataError, match="without a solution"):
        make_traces(solved(tmp_path, tasks=digits))


def test_a_teacher_needs_to_know_how_to_sample(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a teacher needs `sampling`"):
        solved(tmp_path, answers="teacher")


def test_what_was_read_is_recorded_with_the_stage(tmp_path: Path) -> None:
    make_traces(solved(tmp_path))
    card = json.loads((tmp_path / "run" / "traces" / "data.json").read_text())["traces.tasks"]["mixture_of_thoughts"]
    assert (card["rows_read"], card["rows_kept"], card["revision"]) == (3, 3, None)
    assert card["source"].endswith("mot.parquet")
    assert len(card["content_hash"]) == 64


def card(content_hash: str, revision: str) -> DataCard:
    return DataCard(kind="deepmath", source="x", revision=revision, content_hash=content_hash, rows_kept=1)


def test_data_that_changed_under_a_stage_is_refused(tmp_path: Path) -> None:
    record_data(tmp_path, "traces.tasks", {"deepmath": card("a", "r1")})
    record_data(tmp_path, "traces.tasks", {"deepmath": card("a", "r2")})
    with pytest.raises(ConfigError, match=r"revision r2 before, r3 now"):
        record_data(tmp_path, "traces.tasks", {"deepmath": card("b", "r3")})
    assert json.loads((tmp_path / "data.json").read_text())["traces.tasks"]["deepmath"]["content_hash"] == "a"


def test_a_file_of_rows_is_known_by_the_rows_that_are_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"

    def written(*answers: str, end: str = "\n") -> Mapping[str, DataCard]:
        rows = [json.dumps({"prompt": "digits 3 5 . sum ?", "reference": a, "grader": "exact"}) for a in answers]
        file.write_text(end.join(rows) + end)
        return tiny.opened({"kind": "jsonl", "path": str(file), "limit": 2}).cards

    first = written("8", "9")
    record_data(tmp_path, "distill.tasks", first)
    record_data(tmp_path, "distill.tasks", written("8", "9", "10", end="\n\n"))
    assert first["jsonl"].rows_kept == 2
    with pytest.raises(ConfigError, match="other rows"):
        record_data(tmp_path, "distill.tasks", written("9", "8"))
