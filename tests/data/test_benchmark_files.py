"""Benchmarks with a layout or a score of their own: rows as published, and scores worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import layouts
from answers import row
from vold.data.benchmarks.mme import COGNITION, PERCEPTION
from vold.data.benchmarks.registry import load
from vold.evals.marking.rules import score
from vold.evals.metrics import summarise
from vold.evals.prompting import build_messages

if TYPE_CHECKING:
    from pathlib import Path

    from vold.data.benchmarks.item import Item
    from vold.run.answers import Answer


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return layouts.write_all(tmp_path_factory.mktemp("layouts"))


def items(files: dict[str, Path], name: str) -> dict[str, Item]:
    loaded = load(name, path=files[name])
    assert loaded.bad == []
    return {i.id: i for i in loaded.items}


def marked(item: Item, right: bool) -> Answer:
    return row(item.id, float(right), cluster=item.cluster, tags=item.tags)


def values(name: str, rows: list[Answer]) -> dict[str, float]:
    return {metric: found.value for metric, found in summarise(rows, benchmark=name).derived.items()}


@pytest.mark.parametrize(
    ("said", "right"),
    [("Yes", 1), ("yes.", 1), ("YES", 1), (r"\text{Yes}", 1), ("A", 0), ("No", 0), ("yes and no", 0), ("Yesterday", 0)],
)
def test_a_yes_is_marked_in_any_spelling(files: dict[str, Path], said: str, right: int) -> None:
    item = items(files, "mme")["OCR/0001.png/yes"]
    assert (item.options, item.answer) == (("Yes", "No"), "A")
    assert score(item, rf"\boxed{{{said}}}").score == right


def test_mme_sums_accuracy_and_pairs_over_subtasks(files: dict[str, Path]) -> None:
    """Of two pictures with two questions each. All right: 100 + 100. The first question of the first picture wrong:
    75 + 50. One question of each wrong: 50 + 0. Ten subtasks of perception, so 8 x 200 + 125 + 50 = 1775."""
    wrong = {"OCR/0001.png/yes", "scene/0001.png/yes", "scene/0002.png/no"}
    found = values("mme", [marked(i, i.id not in wrong) for i in items(files, "mme").values()])
    assert set(found) == {"perception", "cognition", *PERCEPTION, *COGNITION}
    expected = {"OCR": 1.25, "scene": 0.5, "count": 2.0, "perception": 17.75, "cognition": 8.0}
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_mme_has_no_sum_without_one_of_its_subtasks(files: dict[str, Path]) -> None:
    rows = [marked(i, True) for i in items(files, "mme").values() if i.tags["subtask"] != "count"]
    found = values("mme", rows)
    assert "perception" not in found and found["cognition"] == pytest.approx(8.0)


def test_mme_weighs_subtasks_and_not_pictures_alike() -> None:
    """Cognition: one picture of code, wrong; three each of the other subtasks, right. 0 + 3 x 200."""
    rows = []
    for subtask in COGNITION:
        for n in range(1 if subtask == "code_reasoning" else 3):
            place = f"{subtask}/{n}"
            rows += [
                row(f"{place}/{w}", float(subtask != "code_reasoning"), cluster=place, tags={"subtask": subtask})
                for w in ("yes", "no")
            ]
    assert values("mme", rows)["cognition"] == pytest.approx(6.0)


def test_hallusionbench_counts_questions_figures_and_questions_over_figures(files: dict[str, Path]) -> None:
    """Set illusion 0: questions 0 and 1 on figures 0 and 1, both wrong on figure 1; set chart 0: one question, right.
    aAcc 3/5; fAcc 2/3 (one figure lost); qAcc 1/3 (both questions of illusion lost); their mean 8/15."""
    found = items(files, "hallusionbench")
    assert [i.answer for i in found.values()] == ["A", "B", "B", "A", "A"]  # 1, 0, 0, 1, 1
    wrong = {"VD_illusion_0_1_0", "VD_illusion_0_1_1"}
    got = values("hallusionbench", [marked(i, i.id not in wrong) for i in found.values()])
    assert got == pytest.approx({"a_acc": 3 / 5, "f_acc": 2 / 3, "q_acc": 1 / 3, "overall": 8 / 15})


def test_hallusionbench_is_read_from_vlmevalkits_table_too(tmp_path: Path) -> None:
    rows = [
        {"index": f"VD_chart_x_3_{figure}_0", "image": layouts.struct("h"), "question": "Is it?", "answer": answer,
         "category": "VD", "l2-category": "chart"}
        for figure, answer in ((0, "Yes"), (1, "No"))
    ]  # fmt: skip
    loaded = load("hallusionbench", path=layouts.parquet(tmp_path / "t.parquet", rows))
    assert [(i.id, i.answer, i.cluster) for i in loaded.items] == [
        ("VD_chart_3_0_0", "A", "VD_chart_3"),
        ("VD_chart_3_1_0", "B", "VD_chart_3"),
    ]


def test_geometry3k_loses_its_marker_and_has_two_splits(files: dict[str, Path]) -> None:
    found = items(files, "geometry3k")
    assert [i.question for i in found.values()] == ["Find $x0$.", "Find $x1$.", "Find $x2$."]
    assert score(found["2"], r"\boxed{2\sqrt{221}}").score == 1.0
    assert score(found["2"], r"\boxed{221}").score == 0.0


def test_emma_has_options_in_pictures_and_its_context_in_front(files: dict[str, Path]) -> None:
    found = items(files, "emma_mini")
    choice, asked = found["math_1"], found["physics_2"]
    assert (choice.options, choice.answer, len(choice.images)) == (("<image 2>", "<image 3>"), "B", 3)
    assert (asked.form, asked.answer, asked.question) == (
        "text",
        "12",
        "A block rests.\n\nHow large is the force? <image 1>",
    )
    assert {i.tags["subject"] for i in found.values()} == {"Math", "Physics", "Chemistry", "Coding"}


def test_visulogic_takes_its_pictures_from_the_zip(files: dict[str, Path]) -> None:
    found = items(files, "visulogic")
    assert [i.answer for i in found.values()] == ["A", "B", "C"]
    assert {i.images[0].size for i in found.values()} == {(84, 56)}


def test_olympiadbench_asks_for_the_kind_of_answer_that_a_row_has(files: dict[str, Path]) -> None:
    found = items(files, "olympiadbench_mm_maths")
    one, several, pair = (build_messages(found[i], "rule")[0].text for i in "123")
    assert "The answer of The problem should be a numerical value. Please" in one
    assert r'"So the final answer is \boxed{answer}."' in one
    assert "has multiple answers, each of them should be a numerical value. Please" in several
    assert r'\boxed{multiple answers connected with commas}(unit)."' in several
    assert "competition. Please calculate" in pair
    assert one.endswith("\nFind C1 in <image>.")
    assert score(found["1"], r"So the final answer is \boxed{0.5}.").score == 1.0
    assert score(found["2"], r"\boxed{5, 3}").score == 1.0
    assert score(found["3"], r"\boxed{(7,2)}").score == 0.0


def test_mmstar_has_two_halves() -> None:
    """Perception: coarse right, fine-grained wrong. The rest: three of four right."""
    right = {"coarse perception": 1, "fine-grained perception": 0, "instance reasoning": 1, "logical reasoning": 1,
             "science & technology": 0, "math": 1}  # fmt: skip
    rows = [row(name, float(r), tags={"category": name}) for name, r in right.items()]
    assert values("mmstar", rows) == {"perception": 0.5, "reasoning": 0.75}
