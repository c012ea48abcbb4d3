"""Stored answers of a teacher, and which of them the cold start learns from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from vold.cli import main
from vold.errors import CheckpointError, DataError
from vold.run.files import read_json, read_jsonl, write_json, write_rows
from vold.run.recipe import load_recipe
from vold.run.summaries import TracesSummary
from vold.training.sft import sft
from vold.training.traces import make_traces, read_traces

DEMO = Path(__file__).parents[2] / "recipes" / "demo.yaml"


def test_filters_are_applied_when_read_and_nothing_stored_is_lost(tmp_path: Path) -> None:
    made = tiny.recipe(tmp_path)
    tiny.write_traces(tmp_path, made)
    file = tmp_path / "run" / "traces" / "traces.jsonl"
    rows = read_jsonl(file)
    lengths = [len(r["response_ids"]) for r in rows]
    rows[0]["score"], rows[1]["finish"] = 0.0, "length"
    write_rows(file, rows)

    everything = read_traces(made)
    assert [t.response_ids for t in everything] == [tuple(r["response_ids"]) for i, r in enumerate(rows) if i != 1]
    correct = read_traces(tiny.recipe(tmp_path, traces={"keep": "correct"}))
    assert len(correct) == len(rows) - 2
    longest = max(lengths[2:])
    short = read_traces(tiny.recipe(tmp_path, traces={"max_tokens": longest - 1}))
    assert {len(t.response_ids) for t in short} == {n for i, n in enumerate(lengths) if i != 1 and n < longest}
    assert read_jsonl(file) == rows


def summary(answers: int, kept: int, tokens: int) -> TracesSummary:
    """Of traces that are all correct."""
    return TracesSummary(answers=answers, correct=answers, truncated=0, kept=kept, tokens_kept=tokens, seconds=2.5)


def test_the_cold_start_writes_down_what_its_filters_keep(tmp_path: Path) -> None:
    made = tiny.recipe(tmp_path)
    tiny.write_traces(tmp_path, made)
    home = tmp_path / "run" / "traces"
    lengths = [len(row["response_ids"]) for row in read_jsonl(home / "traces.jsonl")]
    assert min(lengths) < max(lengths)
    n, tokens = len(lengths), sum(lengths)
    write_json(home / "summary.json", summary(n, n, tokens))
    sft(tiny.recipe(tmp_path, traces={"max_tokens": max(lengths) - 1}))
    kept = [length for length in lengths if length < max(lengths)]
    assert read_json(home / "summary.json", TracesSummary) == summary(n, len(kept), sum(kept))


def test_nothing_that_passes_is_an_error_with_the_keys_to_change(tmp_path: Path) -> None:
    tiny.write_traces(tmp_path, tiny.recipe(tmp_path))
    with pytest.raises(DataError, match=r"traces\.max_tokens"):
        read_traces(tiny.recipe(tmp_path, traces={"max_tokens": 1}))


def test_traces_of_other_prompts_are_not_taken(tmp_path: Path) -> None:
    tiny.write_traces(tmp_path, tiny.recipe(tmp_path))
    other = {"kind": "digits", "split": "train", "form": "text", "size": 12, "seed": 2}
    with pytest.raises(CheckpointError, match=r"traces\.jsonl: line 1\n.*where .* stands"):
        read_traces(tiny.recipe(tmp_path, tasks={"other": other}, traces={"tasks": "other"}))


def test_a_run_cut_short_ends_with_the_same_answers(tmp_path: Path) -> None:
    whole = make_traces(tiny.recipe(tmp_path, run={"dir": str(tmp_path / "whole")}))
    made = tiny.recipe(tmp_path, run={"dir": str(tmp_path / "cut")})
    text = whole.read_text()
    lines = text.splitlines(keepends=True)
    target = tmp_path / "cut" / "traces" / "traces.jsonl"
    target.parent.mkdir(parents=True)
    # One batch of four, one row of the next, and a row torn in the middle.
    target.write_text("".join(lines[:5]) + lines[5][:20])
    assert make_traces(made).read_text() == text
    summary = json.loads((target.parent / "summary.json").read_text())
    rows = read_jsonl(target)
    assert summary["answers"] == len(rows) == 12
    assert summary["truncated"] == sum(r["finish"] == "length" for r in rows)


@pytest.mark.parametrize("extra", [10**6, 2**31 - 1])
def test_an_id_without_an_embedding_is_refused_with_its_line(tmp_path: Path, extra: int) -> None:
    made = tiny.recipe(tmp_path)
    tiny.write_traces(tmp_path, made)
    file = tmp_path / "run" / "traces" / "traces.jsonl"
    rows = read_jsonl(file)
    rows[4]["response_ids"][0] = extra
    write_rows(file, rows)
    with pytest.raises(DataError, match=rf"no embedding for\n.*traces\.jsonl: line 5\n.*id {extra}"):
        sft(made)


def test_rows_without_sums_are_compared_with_their_tasks(tmp_path: Path) -> None:
    made = tiny.recipe(tmp_path)
    file = make_traces(made)
    rows = read_jsonl(file)
    for odd, line in (
        ([*rows[:3], rows[2], *rows[3:]], 4),
        ([*rows[:3], *rows[4:]], 4),
        ([*rows, rows[0]], 13),
        ([rows[1], rows[0], *rows[2:]], 1),
    ):
        write_rows(file, odd)
        for reading in (read_traces, make_traces):
            with pytest.raises(CheckpointError, match=rf"traces\.jsonl: line {line}\n"):
                reading(made)
    write_rows(file, rows[:7])
    assert read_jsonl(make_traces(made)) == rows


@pytest.mark.parametrize(
    ("traces", "told", "fix"),
    [
        ({"sampling": {"max_new_tokens": 1}}, "0 of 12 kept: 12 truncated", "raise traces.sampling.max_new_tokens"),
        ({"answers": "data", "max_tokens": 1}, "0 of 3 kept: 3 too long", "raise traces.max_tokens above"),
        ({"answers": "data", "keep": "correct"}, "0 of 3 kept: 3 wrong", "set traces.keep=all"),
    ],
)
def test_where_no_answer_is_of_use_the_reasons_are_counted(
    traces: dict[str, Any], told: str, fix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tiny.recipe_dict(tmp_path)
    raw["traces"] |= traces
    if "answers" in traces:
        rows = [{"prompt": f"digits {i} 5 . sum ?", "reference": "8", "response": "no box"} for i in range(3)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        raw["tasks"]["train"] = {"kind": "jsonl", "path": str(tmp_path / "rows.jsonl"), "grader": "exact"}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(raw))
    for verb in ("traces", "sft"):
        assert main([verb, str(tmp_path / "r.yaml")]) == 2
        err = capsys.readouterr().err
        assert f"got:   {told}" in err
        assert fix in err
    assert len((tmp_path / "run" / "traces" / "traces.jsonl").read_text().splitlines()) == int(told.split()[2])
    summary = tmp_path / "run" / "traces" / "summary.json"
    assert json.loads(summary.read_text())["kept"] == 0
    cure = {"set traces.keep=all": "traces.keep=all", "raise traces.max_tokens above": "traces.max_tokens=99"}.get(fix)
    if cure is not None:  # the answers are there: the filters are free until they are learnt
        assert main(["traces", str(tmp_path / "r.yaml"), cure]) == 0
        assert json.loads(summary.read_text())["kept"] == 3


def test_what_is_kept_is_told_with_what_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe(DEMO, [f"run.dir={tmp_path}", "tasks.cold_start.size=30", "traces.max_tokens=26"])
    make_traces(recipe)
    summary = json.loads((tmp_path / "traces" / "summary.json").read_text())
    assert 0 < summary["kept"] < 30
    lost = 30 - summary["kept"] - summary["truncated"]
    assert f"{summary['kept']} of 30 kept: " in capsys.readouterr().out
    assert lost > 0
