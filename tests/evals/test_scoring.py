"""Every line of tests/evals/cases/*.jsonl as one test, and what holds for scoring whatever the text is."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from vold.data.benchmarks.item import Form, Item
from vold.evals.marking.finding import statements
from vold.evals.marking.numbers import decimals, one_unit, read_list, read_quantity, rounds_to
from vold.evals.marking.options import read_letters
from vold.evals.marking.rules import alternatives, find_answer, grade_answer, score
from vold.graders import outcome
from vold.types import Grade

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
        for_judge=row.get("for_judge"),
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


def item(form: Form, answer: str, *options: str, benchmark: str = "any", unit: str | None = None) -> Item:
    return Item(benchmark, "1", "", options, (), answer, form, cluster="1", unit=unit)


EASY = [
    (item("choice", "B", "one", "two"), r"\boxed{B}"),
    (item("letters", "A, C"), r"\boxed{C, A}"),
    (item("integer", "14"), r"\boxed{14.0}"),
    (item("float", "0.67"), r"\boxed{2/3}"),
    (item("list", "[1, 2]"), r"\boxed{1, 2}"),
    (item("math", r"\frac{1}{2}"), r"\boxed{\frac{2}{4}}"),
    (item("text", "Seine"), r"\boxed{the Seine}"),
]


def grade_all() -> list[float]:
    return [score(i, text).score for i, text in EASY]


def test_every_form_is_marked_off_the_main_thread() -> None:
    found: list[list[float]] = []
    threads = [threading.Thread(target=lambda: found.append(grade_all())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[1.0] * 7] * 4


def test_every_form_is_marked_inside_an_event_loop() -> None:
    async def many() -> list[list[float]]:
        direct = grade_all()
        return [direct, *await asyncio.gather(*(asyncio.to_thread(grade_all) for _ in range(3)))]

    assert asyncio.run(many()) == [[1.0] * 7] * 4


def test_a_subprocess_without_an_importable_main_marks_too() -> None:
    code = (
        "from vold.evals.marking.rules import score\n"
        "from vold.data.benchmarks.item import Item\n"
        "item = Item('math500', '1', '', (), (), '0.5', 'math', cluster='1')\n"
        "print(score(item, r'\\boxed{\\frac{1}{2}}').score)\n"
    )
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["1.0"]


@pytest.mark.parametrize("number", range(len(EASY)), ids=[i.form for i, _ in EASY])
def test_the_same_text_gets_the_same_grade(number: int) -> None:
    marked, text = EASY[number]
    assert score(marked, text) == score(marked, text)


def test_a_hostile_expression_is_wrong_and_the_next_is_marked() -> None:
    grade = score(item("math", "1"), r"\boxed{\binom{10^7}{5\cdot 10^6}}")
    assert (grade.score, outcome(grade)) == (0.0, "wrong")  # too large to work out, and so not 1
    assert grade_all() == [1.0] * 7


LONG = [
    pytest.param("answer" + " " * 200_000, id="blanks-behind-the-marker"),
    pytest.param("the " * 50_000, id="articles"),
    pytest.param("the answer is " * 14_000, id="markers"),
    pytest.param("the" + "\t" * 200_000 + "answer is B", id="tabs"),
    pytest.param("Answer: " + "**" * 100_000, id="stars"),
    pytest.param("Answer:" + "\n" * 200_000, id="line-breaks"),
    pytest.param(r"\boxed{" * 30_000, id="open-boxes"),
    pytest.param(r"\boxed{" + " " * 200_000 + "}", id="a-box-of-blanks"),
    pytest.param(r"\boxed{" + "1," * 990 + "}", id="thousands"),
    pytest.param(r"\boxed{" + "A " * 990 + "}", id="letters"),
    pytest.param(r"\boxed{" + r"\text{" * 300 + "}" * 301, id="text-commands"),
    pytest.param("\u0301" * 200_000, id="accents"),
    pytest.param("<|begin_of_box|>" * 12_500, id="box-tokens"),
    pytest.param('{"answer": "' + "\\f" * 20_000, id="backslashes-in-JSON"),
]


@pytest.mark.parametrize("text", LONG)
def test_long_text_is_marked_at_once(text: str) -> None:
    for marked, _ in EASY:
        began = time.monotonic()
        assert score(marked, text).score == 0.0
        assert time.monotonic() - began < 2.0, marked.form


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_right_for_a_truncated_response(form: Form) -> None:
    marked, text = next((i, t) for i, t in EASY if i.form == form)
    grade = score(marked, text, finish="length")
    assert (grade, outcome(grade, "length")) == (Grade(0.0, None, "truncated"), "truncated")


def test_find_answer_gives_what_is_stated_once_and_for_all() -> None:
    stated = find_answer(r"Answer: 4, so \boxed{5}")
    assert stated is not None
    assert (stated.readings, stated.place) == (("5",), "box")
    assert [s.place for s in statements("Answer: 5 <answer>5</answer>")] == ["answer line", "answer tags"]
    assert find_answer("5") is None
    assert find_answer(r"\boxed{5}. The answer is 6.") is None
    assert find_answer(r"\boxed{5}. Wait, that is wrong.") is None


def test_compare_marks_what_a_judge_extracted() -> None:
    two = item("choice", "B", "one", "two")
    assert grade_answer(two, "B").score == 1.0
    assert grade_answer(two, "two") == Grade(1.0, "B", "equal")
    assert grade_answer(two, "").score == 0.0
    assert len(grade_answer(two, "x" * 9000).extracted or "") == 2000


def test_alternatives_are_the_lines_of_words_only() -> None:
    assert alternatives(item("text", "Seine\n\nLoire")) == ["Seine", "Loire"]
    assert alternatives(item("math", "5")) == ["5"]
    assert alternatives(item("text", " ")) == [" "]


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("C (because A and B fail)", "C"),
        ("b since it is larger", "B"),
        ("D - the last", "D"),
        ("C (or D)", None),
        ("A - B", None),
        ("I am unsure", None),
        ("B as in Boat", None),
    ],
)
def test_letters_with_a_reason_behind(text: str, letters: str | None) -> None:
    assert read_letters(text) == (None if letters is None else frozenset(letters))


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("1,234 apples", Fraction(1234), "apple"),
        (r"1\frac{3}{4}\text{ in}", Fraction(7, 4), "in"),
        ("-2 1/2", Fraction(-5, 2), ""),
        ("$5.25", Fraction(21, 4), "dollar"),
        ("1.5\u00d710\u00b3 kg", Fraction(1500), "kg"),
        ("37 °C", Fraction(37), "degrees c"),
        ("5 mW", Fraction(5), "mW"),
        ("\u0663\u066b\u0665", None, ""),
        ("5 + 5", None, ""),
        ("1/0", None, ""),
    ],
)
def test_quantities(text: str, value: Fraction | None, unit: str) -> None:
    found = read_quantity(text)
    assert (None if found is None else (found.value, found.unit)) == (None if value is None else (value, unit))


@pytest.mark.parametrize(
    ("text", "unit"),
    [("cm", "cm"), ("centimeters", "cm"), ("cm²", "cm^2"), ("square cm", "cm^2"), ("$", "dollar"), ("°", "deg")],
)
def test_one_spelling_of_a_unit(text: str, unit: str) -> None:
    assert one_unit(text) == unit


def test_lists_decimals_and_rounding() -> None:
    assert read_list("[1, 1/2]") == (Fraction(1), Fraction(1, 2))
    assert read_list("[1, x]") is None
    assert (decimals("5"), decimals("5.10"), decimals("1/3"), decimals("½")) == (0, 2, None, None)
    assert rounds_to(Fraction("0.125"), Fraction("0.13"), 2)
    assert rounds_to(Fraction("0.125"), Fraction("0.12"), 2)
    assert not rounds_to(Fraction("0.126"), Fraction("0.12"), 2)
    assert not rounds_to(Fraction("0.6"), Fraction("-0.6"), 0)
