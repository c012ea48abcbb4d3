"""Every line of tests/eval/cases/*.jsonl as one test, and what holds for scoring whatever the text is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vold.evals.scoring import score
from vold.evals.types import Form, Item
from vold.graders import outcome

CASES = Path(__file__).parent / "cases"
FORMS: tuple[Form, ...] = ("choice", "letters", "integer", "float", "list", "math", "text")


def load() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{file.stem}-{n}", json.loads(line))
        for file in sorted(CASES.glob("*.jsonl"))
        for n, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1)
        if line
    ]


ROWS = load()


def make(row: dict[str, Any]) -> Item:
    return Item(
        benchmark=row.get("benchmark", "any"),
        id="1",
        question=row.get("question", ""),
        options=tuple(row.get("options", ())),
        images=(),
        answer=row["reference"],
        form=row["form"],
        cluster="1",
        precision=row.get("precision"),
        unit=row.get("unit"),
    )


@pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in ROWS])
def test_case(row: dict[str, Any]) -> None:
    finish = row.get("finish", "stop")
    grade = score(make(row), row["response"], finish=finish)
    assert grade.score == row["score"], (row["why"], grade)
    if "outcome" in row:
        assert outcome(grade, finish) == row["outcome"], (row["why"], grade)


def test_the_cases_are_many_and_each_has_its_own_reason() -> None:
    assert len(ROWS) >= 450
    assert {row["form"] for _, row in ROWS} == set(FORMS)
    reasons = [(row["form"], row["why"]) for _, row in ROWS]
    assert sorted({r for r in reasons if reasons.count(r) > 1}) == []
    inputs = [json.dumps({k: v for k, v in row.items() if k not in ("why", "score", "outcome")}) for _, row in ROWS]
    assert sorted({i for i in inputs if inputs.count(i) > 1}) == []
