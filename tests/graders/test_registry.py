"""Names, reference checks and outcomes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vold.graders
from vold.data.sources import jsonl
from vold.errors import ConfigError, UngradableReference
from vold.graders import check_reference, get_grader, grader_names, outcome, registry
from vold.types import Grade


def test_names_and_sharing() -> None:
    assert {"exact", "choice", "math"} <= set(grader_names())
    assert all(get_grader(name) is get_grader(name) for name in grader_names())


@pytest.mark.parametrize(("name", "hint"), [("exakt", "'exact'"), ("Math", "'math'"), ("choices", "'choice'")])
def test_unknown_name_suggests(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {hint}"):
        get_grader(name)


def test_unknown_name_lists_all() -> None:
    with pytest.raises(ConfigError) as caught:
        get_grader("???")
    assert caught.value.fix == f"choose one of {', '.join(grader_names())}"


def test_a_grader_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module beside the others is all it takes: recipes, data files and `get_grader` know it."""
    (tmp_path / "shout.py").write_text(
        "from vold.graders.registry import grader\n"
        "from vold.types import Grade\n"
        "@grader('shout')\n"
        "class ShoutGrader:\n"
        "    def __call__(self, response, reference, *, finish='stop'):\n"
        "        return Grade(float(response == reference.upper()), response, 'equal')\n"
    )
    grader_names()  # all others are in the table that stays
    monkeypatch.setattr(registry, "_GRADERS", dict(registry._GRADERS))
    monkeypatch.setattr(vold.graders, "__path__", [*vold.graders.__path__, str(tmp_path)])
    assert "shout" in grader_names()
    assert get_grader("shout")("YES", "yes").score == 1.0
    assert jsonl.Spec(kind="jsonl", path=tmp_path, grader="shout").grader == "shout"
    del sys.modules["vold.graders.shout"]


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("exact", "17"), ("exact", "\\frac{1}{2}"), ("choice", "C"), ("choice", "A, C"), ("math", "17"),
        ("math", "\\frac{1}{2}"), ("math", "x^2+1"), ("math", "\\text{east}"), ("math", "(1,2)"), ("math", "$5$"),
        ("math", "11 "), ("math", "\\boxed{5}"), ("math", "45^2"), ("math", "1:2"), ("math", "101_2"),
        ("math", "10\\%"),
    ],
)  # fmt: skip
def test_good_references(name: str, reference: str) -> None:
    check_reference(name, reference)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("exact", ""), ("exact", "}"), ("exact", "{"), ("exact", "</think>"), ("exact", "<think>"), ("choice", "3"),
        ("choice", ""), ("choice", "A or B"), ("math", ""), ("math", "???"), ("math", "\x0crac{36}{13}"),
        ("math", "\\frac{1}{0}"), ("math", "1=2"), ("math", "\\frac{x+1}"), ("math", "1" * 5000), ("math", "(" * 100),
    ],
)  # fmt: skip
def test_ungradable_references(name: str, reference: str) -> None:
    with pytest.raises(UngradableReference) as caught:
        check_reference(name, reference)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("grade", "finish", "expected"),
    [
        (Grade(1.0, "8", "equal"), "stop", "right"),
        (Grade(0.0, "8", "different: units differ"), "stop", "wrong"),
        (Grade(0.0, None, "truncated"), "length", "truncated"),
        (Grade(0.0, None, "truncated"), "stop", "truncated"),
        (Grade(0.0, None, "unclosed thinking block"), "stop", "truncated"),
        (Grade(0.0, None, "no \\boxed{}"), "stop", "unparsed"),
        (Grade(0.0, "?", "unreadable: empty"), "stop", "unparsed"),
        (Grade(0.0, "9^9", "grader time-out"), "stop", "timed_out"),
        (Grade(0.0, "9^9", "grader crash: killed"), "stop", "timed_out"),
        (Grade(0.0, None, "of another grader"), "stop", "unparsed"),
        (Grade(0.5, "8", "of another grader"), "stop", "wrong"),
        (Grade(0.0, "8", "of another grader"), "length", "truncated"),
    ],
)
def test_outcome(grade: Grade, finish: str, expected: str) -> None:
    assert outcome(grade, finish) == expected  # type: ignore[arg-type]


MATHS = st.text(alphabet="0123456789xyeE+-*/^_=<>()[]{}\\., %$frac sqrtboxedmin°²½\u2212π|!:;&\"'\x00\n", max_size=40)


@pytest.mark.parametrize("name", sorted({*grader_names()} - {"math"}))
@given(response=st.text() | MATHS, reference=st.text() | MATHS)
def test_text_graders_never_raise(name: str, response: str, reference: str) -> None:
    for text in (response, f"\\boxed{{{response}}}"):
        grade = get_grader(name)(text, reference)
        assert 0 <= grade.score <= 1
        assert grade == get_grader(name)(text, reference)


REFERENCES = st.sampled_from(["5", "\\frac{1}{2}", "(1,2)", "x^2", "no", "5 m"])


@given(response=st.text(max_size=30) | MATHS, reference=REFERENCES)
@settings(max_examples=150, deadline=None)
def test_math_grader_never_raises(response: str, reference: str) -> None:
    grade = get_grader("math")(f"\\boxed{{{response}}}", reference)
    assert 0 <= grade.score <= 1
    assert not grade.note.startswith("grader crash"), grade
    assert "Error" not in grade.note, grade


def test_lone_surrogates_and_nulls() -> None:
    for name in grader_names():
        assert get_grader(name)("\\boxed{\ud800\x00}", "5").score == 0.0
