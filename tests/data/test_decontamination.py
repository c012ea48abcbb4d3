"""A problem with options is known by its words however the options are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import layouts
import training_sets
from vold.data.decontamination import Contamination, Decontaminate, EvaluationSet

if TYPE_CHECKING:
    from pathlib import Path

QUESTION = "How many triangles are in the picture below?"


@pytest.fixture
def index(tmp_path: Path) -> Contamination:
    """An evaluation item of eight words and five options."""
    row = {"id": "9", "question": f"{QUESTION} <image1>", "options": ["5", "6", "7", "8", "9"], "answer": "C"}
    more = {
        "image": "images/9.jpg",
        "decoded_image": training_sets.struct("a"),
        "solution": "",
        "level": 1,
        "subject": "s",
    }
    file = layouts.parquet(tmp_path / "vision.parquet", [row | more])
    return Contamination.of(Decontaminate(against={"mathvision": EvaluationSet(path=file)}))


@pytest.mark.parametrize(
    "options",
    [
        "5 6 7 8 9",
        "(A) 5 (B) 6 (C) 7 (D) 8 (E) 9",
        "A. 5 B. 6 C. 7 D. 8 E. 9",
        "\nChoices:\n(A) 5\n(B) 6\n(C) 7\n(D) 8\n(E) 9",
        "Options: A: 5, B: 6, C: 7, D: 8, E: 9",
        "Choices: 5, 6, 7, 8, 9",
    ],
)
def test_a_short_problem_is_found_with_its_options(index: Contamination, options: str) -> None:
    """With the options it has 13 words or more, so that it is known even where it comes with another picture."""
    match = index.find(f"{QUESTION} {options}", [b"another picture"])
    assert match is not None and (match.benchmark, match.item) == ("mathvision", "9")


@pytest.mark.parametrize("options", ["(A) 1 (B) 2 (C) 3 (D) 4 (E) 5", "Choices: 2, 3, 4", ""])
def test_the_same_short_question_with_other_options_is_another_problem(index: Contamination, options: str) -> None:
    assert index.find(f"{QUESTION} {options}", [b"another picture"]) is None


def test_options_within_a_question_are_found_in_another_notation(tmp_path: Path) -> None:
    """MathVerse's questions hold their options themselves: ten words and four options here."""
    text = "As the drawing shows, find the size of angle x\nChoices:\nA:10\nB:20\nC:30\nD:40"
    row = layouts.mathverse()[0] | {"question": text, "question_for_eval": text}
    file = layouts.parquet(tmp_path / "verse.parquet", [row])
    made = Contamination.of(Decontaminate(against={"mathverse": EvaluationSet(path=file)}))
    problem = "As the drawing shows, find the size of angle x. (A) 10 (B) 20 (C) 30 (D) 40"
    match = made.find(problem, [b"another picture"])
    assert match is not None and match.by == "same words"
