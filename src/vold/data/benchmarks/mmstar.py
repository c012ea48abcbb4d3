"""MMStar: 1,500 questions that need their picture."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import Benchmark, PromptForm
from vold.data.benchmarks.columns import letter_answer, pictures, split_options, tags, text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.sources import VOLD_ABLATIONS, VOLD_TABLE_1
from vold.data.benchmarks.wording import ALONE_THEN_BOX, MCQ, MCQ_QUESTION

if TYPE_CHECKING:
    from vold.data.benchmarks.benchmark import Items
    from vold.data.files.read import Row

# Options are part of the question. The official prompt asks for the letter alone.
_RULE = PromptForm(without_options=ALONE_THEN_BOX)
# VLMEvalKit's table has the options in columns, the hub's rows in the question.
_VLMEVALKIT = PromptForm(
    option="{letter}. {text}", with_options=MCQ_QUESTION, without_options="Question: {question}\n", split_options=True
)
_PUBLISHED = (
    *VOLD_TABLE_1.figures(
        "mmstar", "val", {"Qwen2.5-VL-3B-Instruct": 55.9, "X-Reasoner-3B (their reproduction)": 55.2, "VOLD": 55.2}
    ),
    *VOLD_ABLATIONS.figures("mmstar", "val", {"VOLD, SFT only": 49.7, "VOLD, SFT and GRPO": 50.5}),
)


def mmstar(name: str, row: Row) -> Item:
    """MMStar: four options written into the question."""
    identity = text_cell(row, "index")
    return Item(
        name,
        identity,
        text_cell(row, "question"),
        (),
        pictures(row, "image"),
        letter_answer(row, (), "answer"),
        "choice",
        cluster=identity,
        tags=tags(row, category="category", skill="l2_category"),
    )


def _halves(items: Items) -> dict[str, dict[str, float]]:
    """The two categories of perception and the four others."""
    out: dict[str, dict[str, float]] = {"perception": {}, "reasoning": {}}
    for answers in items.values():
        half = "perception" if "perception" in answers[0].tags.get("category", "") else "reasoning"
        out[half][answers[0].source] = fmean([r.score for r in answers])
    return out


BENCHMARKS = (
    Benchmark(
        "mmstar",
        "MMStar",
        "Lin-Chen/MMStar",
        {"val": [("mmstar.parquet",), ("MMStar.tsv",)]},
        {"val": 1500},
        mmstar,
        {"rule": _RULE, "vlmevalkit": _VLMEVALKIT},
        judging=replace(
            MCQ,
            question=lambda item: split_options(item.question)[0],
            options=lambda item: split_options(item.question)[1],
        ),
        published=_PUBLISHED,
        cluster_scores=_halves,
    ),
)
