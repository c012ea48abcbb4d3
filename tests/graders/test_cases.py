"""Every line of tests/graders/cases/*.jsonl, as one test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vold.graders import extract_boxed, get_grader, grader_names, outcome
from vold.graders.math import MathGrader

DATA = Path(__file__).parent / "cases"


def load(name: str) -> list[Any]:
    lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [pytest.param(json.loads(line), id=f"{name}-{i}") for i, line in enumerate(lines, 1)]


@pytest.fixture(scope="module")
def impatient() -> Iterator[MathGrader]:
    grader = MathGrader(time_limit=1.5, memory_limit=2**30)
    yield grader
    grader.close()


@pytest.mark.parametrize("case", load("extract"))
def test_extract(case: dict[str, Any]) -> None:
    found = extract_boxed(case["response"], case["finish"])
    assert (found.answer, found.note) == (case["extracted"], case["note"]), case["why"]


@pytest.mark.parametrize("name", grader_names())
def test_enough_cases(name: str) -> None:
    assert len(load(name)) >= 30


@pytest.mark.parametrize(
    ("name", "case"),
    [pytest.param(name, *parameter.values, id=parameter.id) for name in grader_names() for parameter in load(name)],
)
def test_grade(name: str, case: dict[str, Any]) -> None:
    grade = get_grader(name)(case["response"], case["reference"], finish=case["finish"])
    assert grade.score == case["score"], (case["why"], grade)
    if case["outcome"] is not None:
        assert outcome(grade, case["finish"]) == case["outcome"], (case["why"], grade)


@pytest.mark.parametrize("case", load("hostile"))
def test_hostile(case: dict[str, Any], impatient: MathGrader) -> None:
    grade = impatient(case["response"], case["reference"])
    assert grade.score == 0.0
    assert outcome(grade) in case["outcomes"], (case["why"], grade)
    fresh = len(case["response"]) + ord(case["why"][0])  # not one whose verdict is remembered
    assert impatient(rf"\boxed{{\frac{{{fresh}}}{{2}}}}", str(fresh / 2)).score == 1.0, "the next answer is graded"


@pytest.mark.parametrize("name", sorted({*grader_names()} - {"math"}))
@pytest.mark.parametrize("case", load("hostile"))
def test_hostile_text_gets_a_grade_from_every_grader(case: dict[str, Any], name: str) -> None:
    assert 0 <= get_grader(name)(case["response"], case["reference"]).score <= 1, case["why"]
