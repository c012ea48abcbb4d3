"""VisuLogic: 1,000 questions of visual logic, their options in the picture."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import Benchmark, PromptForm, ScoreFile
from vold.data.benchmarks.columns import letter_answer, pictures, tags, text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.wording import MCQ

if TYPE_CHECKING:
    from vold.data.files.read import Row

# Official, and VLMEvalKit's copy of it, which lost a blank and the final stop.
_RULE = PromptForm(
    without_options=(
        "{question}\n"
        "Solve the complex visual logical reasoning problem through step-by-step reasoning. Think about the "
        "reasoning process first and answer the question following this format: Answer: \\boxed{$LETTER}."
    )
)
_VLMEVALKIT = PromptForm(
    without_options=(
        "{question}\n"
        "Solve the complex visual logical reasoning problem through step-by-step reasoning.Think about the "
        "reasoning process first and answer the question following this format: Answer: \\boxed{$LETTER}"
    )
)


def visulogic(name: str, row: Row) -> Item:
    """VisuLogic: `image_path` leads into images.zip; four letters."""
    identity = text_cell(row, "id", "index")
    return Item(
        name,
        identity,
        text_cell(row, "question"),
        (),
        pictures(row, "image_path" if "image_path" in row.values else "image"),
        letter_answer(row, (), "label", "answer"),
        "choice",
        cluster=identity,
        tags=tags(row, kind="tag"),
    )


BENCHMARKS = (
    Benchmark(
        "visulogic",
        "VisuLogic",
        "VisuLogic/VisuLogic",
        {"test": [("data.jsonl", "images.zip")]},
        {"test": 1000},
        visulogic,
        {"rule": _RULE, "vlmevalkit": _VLMEVALKIT},
        # VLMEvalKit has no judge here; answers that no rule reads are matched with the options.
        judging=replace(MCQ, verdict="visulogic"),
        score_file=ScoreFile({"test": "VisuLogic"}, "counts", ("kind",), end="acc", judged=True, head="category"),
    ),
)
