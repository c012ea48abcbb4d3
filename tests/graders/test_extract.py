"""Extraction on hostile and random text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vold.graders.extract import extract_boxed, fold, last_box, squeeze

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{" * MILLION, None),
        ("}" * MILLION, None),
        ("\\" * MILLION, None),
        ("\\boxed{" * MILLION, None),
        ("\\boxed" + " " * MILLION, None),
        ("\\boxed{" * (MILLION // 8) + "5" + "}" * (MILLION // 8), "5"),
        ("{" * MILLION + "\\boxed{5}", "5"),
        ("\\boxed{" + "{" * MILLION + "}" * MILLION + "}", "{" * MILLION + "}" * MILLION),
        ("\\boxed{5}" * (MILLION // 10), "5"),
        ("<think>" * 100_000 + "</think>" * 100_000 + "\\boxed{5}", "5"),
    ],
    ids=["open", "close", "backslash", "boxes", "blanks", "nested", "late", "inside", "many", "tags"],
)
def test_hostile_text_takes_linear_time(text: str, expected: str | None) -> None:
    assert extract_boxed(text).answer == expected  # a quadratic scan would take hours here


@given(st.text())
def test_any_text(text: str) -> None:
    assert extract_boxed(text).answer is None or "\\" in text
    assert isinstance(squeeze(text), str)


@given(st.text(alphabet="\\{}boxed<think>/ 1f", max_size=80))
@settings(max_examples=300)
def test_box_content_is_balanced(text: str) -> None:
    answer = last_box(text)
    if answer is not None:
        bare = answer.replace("\\\\", "").replace("\\{", "").replace("\\}", "")
        assert bare.count("{") == bare.count("}")


@given(st.text(alphabet="0123456789+-/ xyz{}", max_size=20).filter(lambda s: s.count("{") == s.count("}") == 0))
def test_round_trip(answer: str) -> None:
    assert extract_boxed(f"<think>\\boxed{{9}}</think> so \\boxed{{{answer}}}.").answer == answer


def test_fold_keeps_values() -> None:
    assert fold("\uff0d\uff11\uff12\uff0e\uff15") == "-12.5"
    assert fold("5² ½ x₁") == "5² ½ x₁"
    assert fold("\u22123\u00a0cm") == "-3 cm"
