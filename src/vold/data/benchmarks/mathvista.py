"""MathVista: 1,000 questions of its testmini."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vold.data.benchmarks.benchmark import Benchmark, Judging, PromptForm, ScoreFile
from vold.data.benchmarks.columns import cell, pictures, text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.sources import LEAK, OPEN_COMPASS, QWEN2_5_VL, VOLD_SUPPLEMENT, VOLD_TABLE_1
from vold.data.benchmarks.wording import ALONE_THEN_BOX, QUERY_THEN_BOX, QUESTION_THEN_BOX, extraction
from vold.data.files.cells import listed
from vold.errors import DataError
from vold.graders.choice import LETTERS

if TYPE_CHECKING:
    from vold.data.files.read import Row

# Official question (hint, unit and choices are in the row's own prompt), but official scoring is a judge: a box is
# asked for in MATH-Vision's words.
_RULE = PromptForm(
    query=QUERY_THEN_BOX, option="({letter}) {text}", with_options=QUESTION_THEN_BOX, without_options=ALONE_THEN_BOX
)
# MathVista_MINI: the row's own prompt, hint first. VLMEvalKit's table has it as `question`.
_VLMEVALKIT = PromptForm(query="{query}", without_options="{question}", with_options="{question}")
_PUBLISHED = (
    *VOLD_TABLE_1.figures(
        "mathvista",
        "testmini",
        {
            "Qwen2.5-VL-3B-Instruct": 61.2,
            "X-Reasoner-3B (their reproduction)": 61.1,
            "VLM-R1-3B-Math": 62.7,
            "VLAA-Thinker-3B": 61.0,
            "VOLD": 61.9,
        },
        notes={"VLM-R1-3B-Math": LEAK, "VLAA-Thinker-3B": LEAK},
    ),
    *VOLD_SUPPLEMENT.figures("mathvista", "testmini", {"VOLD, then reinforcement learning on images": 63.4}),
    *OPEN_COMPASS.figures("mathvista", "testmini", {"Qwen2.5-VL-7B-Instruct": 67.8, "Qwen2.5-VL-3B-Instruct": 61.2}),
    *QWEN2_5_VL.figures("mathvista", "testmini", {"Qwen2.5-VL-7B-Instruct": 68.2, "Qwen2.5-VL-3B-Instruct": 62.3}),
)

# VLMEvalKit's words, byte for byte (Apache-2.0; utils/mathvista.py).
_JUDGED = extraction(
    (
        "Hint: Please answer the question requiring an integer answer and provide the final value,\n"
        "e.g., 1, 2, 3, at the end."
    ),
    (
        "Hint: Please answer the question requiring a floating-point number with one decimal place and provide "
        "the final value,\n"
        "e.g., 1.2, 1.3, 1.4, at the end."
    ),
    (
        "Hint: Please answer the question requiring a floating-point number with two decimal places and "
        "provide the final value,\n"
        "e.g., 1.23, 1.34, 1.45, at the end."
    ),
    (
        "Hint: Please answer the question requiring a Python list as an answer and provide the final list,\n"
        "e.g., [1, 2, 3], [1.2, 1.3, 1.4], at the end."
    ),
)


def mathvista(name: str, row: Row) -> Item:
    """MathVista. The gold of a choice is an option's text; duplicates take the first letter."""
    identity = text_cell(row, "pid", "_key")
    options = tuple(listed(cell(row, "choices")))
    gold = text_cell(row, "answer").strip()
    metadata: Any = row.values.get("metadata") or {}
    if not gold:
        raise DataError("there is no gold answer", got="the split `test` has none; use testmini")
    form: Any = text_cell(row, "answer_type")
    if cell(row, "question_type") == "multi_choice":
        gold, form = LETTERS[options.index(gold)] if gold in options else gold, "choice"
    elif form not in ("integer", "float", "list"):
        form = "text"
    precision = row.values.get("precision")
    found = {k: str(metadata[k]) for k in ("task", "category", "source", "context", "grade") if metadata.get(k)}
    if skills := listed(metadata.get("skills")):
        found["skills"] = ", ".join(skills)
    return Item(
        name,
        identity,
        text_cell(row, "question"),
        options,
        pictures(row, "decoded_image" if "decoded_image" in row.values else "image"),
        gold,
        form,
        cluster=identity,
        precision=None if precision in (None, "") else int(float(str(precision))),
        unit=str(row.values["unit"]) if row.values.get("unit") else None,
        query=str(row.values["query"]) if row.values.get("query") else None,
        tags=found,
    )


BENCHMARKS = (
    Benchmark(
        "mathvista",
        "MathVista",
        "AI4Math/MathVista",
        {"testmini": [("data/testmini-*.parquet",)]},
        {"testmini": 1000},
        mathvista,
        {"rule": _RULE, "vlmevalkit": _VLMEVALKIT},
        judging=Judging("mathvista", _JUDGED, question="asked", verdict="mathvista"),
        gold_is_a_text=True,
        published=_PUBLISHED,
        score_file=ScoreFile(
            {"testmini": "MathVista_MINI"},
            "counts",
            ("task", "skills"),
            judged=True,
            head="Task&Skill",
            several=("skills",),
        ),
    ),
)
