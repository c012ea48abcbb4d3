"""VLMEvalKit's own verdict, case by case as its code at e8e78f05 reads; `make test-peers` holds the two together."""

from __future__ import annotations

from typing import Any

import pytest

from vold.data.benchmarks.item import Form, Item
from vold.evals.marking.as_vlmevalkit import as_vlmevalkit
from vold.evals.marking.llm_judge import agreement_prompt, judge_prompt, prediction, read_plainly
from vold.evals.marking.readings_there import infer_letter
from vold.types import Grade


def item(benchmark: str, gold: str, *options: str, form: Form = "choice", question: str = "What?", **more: Any) -> Item:
    return Item(benchmark, "7", question, options, (), gold, form, cluster="7", **more)


def verdict(of: Item, response: str, says: str | None = None, ours: Grade | None = None) -> float:
    """With a judge that replied `says` to us; with none, the answer was read by a rule."""
    if ours is None:
        ours = read_plainly(of, prediction(response)) if says is None else Grade(0.0, None, "unreadable")
    assert ours is not None
    return as_vlmevalkit(of, response, ours, lambda prompt, system: says)


TWO = item("mmmu", "B", "left", "right")
FIVE = item("mathvista", "5", form="integer")
HALF = item("mathvision", r"\frac{1}{2}", form="math")
ROOT = item("mathvision", r"\sqrt{3}", form="math")
THIRD = item("dynamath", "0.333", form="float")
WHITE = item("dynamath", "white", form="text")
LETTERS = item("logicvista", "A, C", form="letters")
CAT = item("mme", "A", "Yes", "No")
LOGIC = item("visulogic", "B")
OLYMPIAD = item("olympiadbench_mm_maths", "3, 5", form="math")


@pytest.mark.parametrize(
    ("of", "response", "expected"),
    [
        # a letter near the end, "the answer is X" anywhere, the text of one option; all by VLMEvalKit's own reading
        (TWO, r"So \boxed{B}.", 1.0),
        (TWO, "The answer is **B**, because A is on the other side of it all.", 1.0),
        (TWO, "The answer is a mystery: no, B it must be for A is not. \\boxed{B}", 0.0),
        (TWO, "Answer: right", 1.0),
        (TWO, r"A triangle: \boxed{right}", 0.0),
        (TWO, "<think>A or B</think>\n\\boxed{B}", 1.0),
        # numbers are Python's
        (FIVE, r"\boxed{5}", 1.0),
        (FIVE, r"\boxed{x = 5}", 0.0),
        (FIVE, r"\boxed{5.0}", 0.0),
        (FIVE, r"\boxed{5 cm}", 0.0),
        (item("mathvista", "1.4", form="float", precision=1), r"\boxed{1.40}", 1.0),
        (item("mathvista", "1.4", form="float", precision=1), r"\boxed{1.42}", 0.0),
        (item("mathvista", "[1, 2]", form="list"), r"\boxed{[1, 2]}", 0.0),
        (HALF, r"\boxed{0.5}", 1.0),
        (HALF, r"\boxed{\dfrac{2}{4}}", 1.0),
        (HALF, r"\boxed{x = \frac{1}{2}}", 0.0),
        (ROOT, r"\boxed{\sqrt{3}}", 1.0),
        (ROOT, r"\boxed{3^{1/2}}", 0.0),
        (item("mathvision", "C"), r"A box: \boxed{C}", 1.0),
        # DynaMath's JSON, and what is outside of it
        (WHITE, '{"solution": "..", "short answer": "White"}', 1.0),
        (WHITE, '{"solution": "..", "short answer": "e"}', 1.0),
        (WHITE, r"\boxed{White}", 0.0),
        (THIRD, '{"short answer": "0.3335"}', 1.0),
        (THIRD, '{"short answer": 0.333}', 1.0),
        (item("dynamath", "B"), '{"short answer": "(b)"}', 1.0),
        (CAT, "Yes, there are two of them.", 1.0),
        (CAT, "yes-or-so", 1.0),
        (CAT, r"Yes or no? \boxed{Yes}", 1.0),
        (CAT, r"Yes or no? \boxed{No}", 0.0),
        (LETTERS, r"\boxed{C, A}", 1.0),
        (LETTERS, r"\boxed{C}", 0.0),
        (item("mathverse", "C"), r"\boxed{(C)}", 1.0),
        (LOGIC, r"Answer: \boxed{\text{B}}", 1.0),
        (LOGIC, "It is B, so the answer is: B. Not A, surely", 1.0),
        (LOGIC, r"\boxed{A or B} (B).", 1.0),
        (LOGIC, r"\boxed{A}, I mean B", 0.0),
        (OLYMPIAD, r"So the final answer is \boxed{3}, \boxed{5}.", 1.0),
        (OLYMPIAD, "Both fit:\n$3$ and $5$", 1.0),
        (OLYMPIAD, r"\boxed{3}", 0.0),
    ],
)
def test_what_is_read_without_a_judge(of: Item, response: str, expected: float) -> None:
    ours = read_plainly(of, prediction(response)) or Grade(0.0, None, "unreadable")
    assert verdict(of, response, ours=ours) == expected


@pytest.mark.parametrize(
    ("of", "says", "expected"),
    [
        (TWO, "B", 1.0),
        (TWO, "Z", 0.0),
        (TWO, "I would rather not say", 1 / 3),
        (item("mmmu", "cat\ntom cat", form="text"), "A", 1.0),
        (item("mmmu", "cat\ntom cat", form="text"), "B", 0.0),
        (FIVE, "5", 1.0),
        (FIVE, "Extracted answer: 5", 0.0),
        (HALF, "1/2", 1.0),
        (THIRD, "0.333", 1.0),
        (item("dynamath", "B"), "option b", 1.0),
        (item("dynamath", "B"), "choice b", 0.0),
        (LETTERS, "CA", 1.0),
        (LETTERS, "A, C", 0.0),
        (item("logicvista", "3", form="text"), "3", 0.0),
        (CAT, "Yes.", 1.0),
        (CAT, "Unknown", 0.0),
        (CAT, "<think>no</think>yes", 1.0),
    ],
)
def test_what_the_judge_said_is_read_by_its_rules(of: Item, says: str, expected: float) -> None:
    assert verdict(of, "They are on one side or on the other, as far as I see.", says) == expected


def test_the_judge_is_heard_and_never_asked() -> None:
    asked: list[str] = []

    def said(prompt: str, system: str) -> str | None:
        asked.append(prompt)
        return "0" if "Judement" in prompt else "It is 5 m"

    length = item("mathverse", "500 cm", form="math", question="How long?")
    ours = Grade(1.0, "It is 5 m", "equal: says the judge")
    assert as_vlmevalkit(length, "Five metres.", ours, said) == 0.0
    assert asked[0] == judge_prompt(length, "Five metres.")
    assert asked[-1] == agreement_prompt(length, "It is 5 m")


def test_where_a_rule_spared_us_the_question_the_judge_is_taken_to_agree() -> None:
    length = item("mathverse", "2.50", form="math")
    assert verdict(length, r"\boxed{2.5}", ours=Grade(1.0, "2.5", "equal")) == 1.0
    assert verdict(length, r"\boxed{2.6}", ours=Grade(0.0, "2.6", "different")) == 0.0


def test_an_answer_cut_off_is_read_all_the_same() -> None:
    cut = Grade(0.0, None, "truncated")
    assert verdict(TWO, "<think>So it must be B", ours=cut) == 1.0
    assert verdict(TWO, "<think>First I look at A, then at B, and then", ours=cut) == 0.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", "B"),
        ("I'm sorry, but without the image provided: B", "Z"),
        ("Z", "Z"),
        ("B and then four more words", None),
        ("either A or B", None),
        ("the cat", "A"),
        ("no dog, the cat", None),
    ],
)
def test_an_option_is_inferred_as_there(text: str, expected: str | None) -> None:
    assert infer_letter(text, {"A": "Cat", "B": "Dog"}) == expected


@pytest.mark.parametrize(
    "said", ["9**9**9", "(" * 5000, "9" * 5000, "__import__('os')", "1e999-1e999", "", "5(3)", "0x5"]
)
def test_nothing_a_model_wrote_is_evaluated(said: str) -> None:
    assert verdict(item("mathvision", "5", form="math"), f"\\boxed{{{said}}}", "5") == 1.0
    assert verdict(item("mathvision", "5", form="math"), "Hm.", said) == 0.0
