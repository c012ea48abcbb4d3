"""MMStar: 1,500 questions that need their picture."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import Benchmark, PromptForm, ScoreFile
from vold.data.benchmarks.columns import column_options, letter_answer, pictures, split_options, tags, text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.sources import VOLD_ABLATIONS, VOLD_TABLE_1
from vold.data.benchmarks.wording import MCQ_QUESTION, QUESTION_THEN_BOX
from vold.errors import DataError

if TYPE_CHECKING:
    from vold.data.benchmarks.benchmark import Items
    from vold.data.files.read import Row

# The official prompt asks for the letter alone.
_RULE = PromptForm(option="{letter}. {text}", with_options=QUESTION_THEN_BOX)
_VLMEVALKIT = PromptForm(
    option="{letter}. {text}",
    with_options=MCQ_QUESTION,
    differs="the hub's rows have the options in the question: where its own table has them in columns, how that writes "
    "them could not be compared",
)
_PUBLISHED = (
    *VOLD_TABLE_1.figures(
        "mmstar", "val", {"Qwen2.5-VL-3B-Instruct": 55.9, "X-Reasoner-3B (their reproduction)": 55.2, "VOLD": 55.2}
    ),
    *VOLD_ABLATIONS.figures("mmstar", "val", {"VOLD, SFT only": 49.7, "VOLD, SFT and GRPO": 50.5}),
)


def mmstar(name: str, row: Row) -> Item:
    """MMStar: four options, written into the question on the hub, in columns in VLMEvalKit's table."""
    identity, question = text_cell(row, "index"), text_cell(row, "question")
    options = column_options(row)
    if not options:
        question, options = split_options(question)
    if not options:
        raise DataError("there are no options, in columns or in the question", got=question[-80:])
    return Item(
        name,
        identity,
        question,
        options,
        pictures(row, "image"),
        letter_answer(row, options, "answer"),
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
        published=_PUBLISHED,
        cluster_scores=_halves,
        score_file=ScoreFile({"val": "MMStar"}, "options", ("skill", "category"), end="acc"),
    ),
)
