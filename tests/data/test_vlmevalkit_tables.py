"""Benchmarks read from VLMEvalKit's tables: options in columns, pictures as base64."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import pytest

import layouts
from vold.data.benchmarks.item import ProtocolName
from vold.data.benchmarks.registry import load
from vold.errors import DataError
from vold.evals.prompting import build_messages

COLUMNS = ("index", "question", "A", "B", "C", "D", "answer", "category", "l2_category", "image")


def table(file: Path, columns: Sequence[str], *rows: Sequence[str]) -> Path:
    """A table as VLMEvalKit has it, one picture for all rows."""
    picture = base64.b64encode(layouts.picture("1")).decode()
    lines = [columns, *[[*row, picture] for row in rows]]
    file.write_text("".join("\t".join(f'"{cell}"' for cell in line) + "\n" for line in lines), encoding="utf-8")
    return file


@pytest.mark.parametrize("protocol", ["rule", "vlmevalkit"])
def test_mmstar_is_the_same_with_its_options_in_columns_and_in_the_text(tmp_path: Path, protocol: ProtocolName) -> None:
    """Both forms in which the hub's text has them."""
    hint = "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."
    rows = [
        ("0", "Which?", "red, or blue", "green", "1, 2", "none", "B", "math", "geometry"),
        ("1", f"{hint}\nQuestion: How much?", "40.7", "74", "0.5", "no (B)", "D", "math", "geometry"),
    ]
    columns = table(tmp_path / "columns.tsv", COLUMNS, *rows)
    texts = [
        "Which?\nOptions: A: red, or blue, B: green, C: 1, 2, D: none",
        f"{hint}\nQuestion: How much?\nChoices:\n(A) 40.7\n(B) 74\n(C) 0.5\n(D) no (B)",
    ]
    text = table(
        tmp_path / "text.tsv",
        [c for c in COLUMNS if c not in "ABCD"],
        *[(row[0], asked, *row[6:]) for row, asked in zip(rows, texts, strict=True)],
    )
    one, other = load("mmstar", path=columns).items, load("mmstar", path=text).items
    assert [i.options for i in one] == [i.options for i in other] == [row[2:6] for row in rows]
    asked = [build_messages(i, protocol)[0].text for i in one]
    assert asked == [build_messages(i, protocol)[0].text for i in other]
    assert "\nD. no (B)\n" in asked[1]


def test_a_question_whose_options_are_nowhere_is_no_item(tmp_path: Path) -> None:
    rows = [(str(n), "Which is red?", *("abcd" if n else ["", "", "", ""]), "A", "math", "x") for n in range(3)]
    loaded = load("mmstar", path=table(tmp_path / "m.tsv", COLUMNS, *rows))
    assert len(loaded.items) == 2
    assert "no options, in columns or in the question" in loaded.bad[0].why


@pytest.mark.parametrize(
    ("benchmark", "columns", "row"),
    [
        ("mmmu_pro_standard10", ("index", "id", "question", "A", "B", "C", "answer", "subject"), "Law"),
        ("mmmu", ("index", "id", "question", "A", "B", "C", "answer", "category"), "Law"),
        ("emma_mini", ("pid", "context", "question", "A", "B", "C", "answer", "type"), "MCQ"),
        ("wemath", ("ID", "key", "question", "A", "B", "C", "answer", "knowledge concept"), "Area"),
    ],
)
def test_options_in_columns_are_read(tmp_path: Path, benchmark: str, columns: Sequence[str], row: str) -> None:
    """The last column is empty in this row: two options."""
    cells = [
        "1",
        "2steps_1" if benchmark == "wemath" else "dev_Law_1",
        "Which in <image 1>?",
        "left",
        "None",
        "",
        "B",
        row,
    ]
    (item,) = load(benchmark, path=table(tmp_path / "t.tsv", [*columns, "image"], cells)).items
    assert (item.options, item.answer, item.form, len(item.images)) == (("left", "None"), "B", "choice", 1)


def test_an_open_question_of_mmmus_table_has_no_options(tmp_path: Path) -> None:
    """Rows of the table's other split are no rows of this one."""
    columns = ("index", "id", "question", "A", "B", "answer", "split", "image")
    cells = [("1", "validation_Law_1", "Name it.", "", "", "['cat', 'tom cat']", "validation")]
    cells += [("2", "dev_Law_1", "Which?", "1", "2", "A", "dev")]
    (item,) = load("mmmu", path=table(tmp_path / "t.tsv", columns, *cells)).items
    assert (item.options, item.answer, item.form) == ((), "cat\ntom cat", "text")


def test_a_table_whose_options_would_be_lost_is_refused_in_words(tmp_path: Path) -> None:
    columns = ("index", "question", "A", "B", "answer", "skill", "image")
    with pytest.raises(DataError, match="options in columns") as told:
        load("logicvista", path=table(tmp_path / "t.tsv", columns, ("1", "Which?", "left", "right", "A", "spatial")))
    assert "A: left, B: right" in str(told.value)


def test_a_question_keeps_its_blanks(tmp_path: Path) -> None:
    """A prompt is VLMEvalKit's to the last blank."""
    columns = ("index", "question", "answer", "skill", "image")
    (item,) = load("logicvista", path=table(tmp_path / "l.tsv", columns, ("1", " Which? ", "A", "spatial"))).items
    assert build_messages(item, "vlmevalkit")[0].text == "<image> Which? "
    of_emma = ("pid", "context", "question", "A", "B", "answer", "type", "image")
    row = ("1", "In <image 1>. ", " Which?", " 1", "2", "A", "MCQ")
    (item,) = load("emma_mini", path=table(tmp_path / "e.tsv", of_emma, row)).items
    assert build_messages(item, "vlmevalkit")[0].text.startswith("In <image>. \n\n Which?\n\nA:  1\nB: 2\n\n\nAnswer")
