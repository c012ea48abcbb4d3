"""MATH-Vision: 3,040 questions of mathematical competitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import Benchmark, Judging, PromptForm, ScoreFile
from vold.data.benchmarks.columns import cell, letter_answer, names_option, pictures, tags, text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.sources import OPEN_COMPASS, QWEN2_5_VL, VOLD_ABLATIONS, VOLD_TABLE_1
from vold.data.benchmarks.wording import BOX, MATHVISION
from vold.data.files.cells import clean_gold, listed
from vold.data.files.markers import numbered
from vold.graders.choice import LETTERS

if TYPE_CHECKING:
    from vold.data.files.read import Row

# Official, with its last line break. One merged picture serves all mentions.
_RULE = PromptForm(
    option="({letter}) {text}",
    with_options=BOX + "\n{question}\n{options}\n",
    without_options=BOX + "\n{question}\n",
    pictures="first",
    marker="<image{number}>",
)
_VLMEVALKIT = PromptForm(
    option="({letter}) {text}",
    with_options=(
        "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.\n"
        "Question: {question}\n"
        "Choices:\n"
        "{options}"
    ),
    without_options=("Hint: Please answer the question and provide the final answer at the end.\nQuestion: {question}"),
    pictures="first",
    marker="<image{number}>",
    differs="hint and choices are in the column `question` of VLMEvalKit's own table, which could not be read; the "
    "words are those of its examples for the judge",
)
_PUBLISHED = (
    *VOLD_TABLE_1.figures(
        "mathvision",
        "test",
        {
            "Qwen2.5-VL-3B-Instruct": 21.9,
            "X-Reasoner-3B (their reproduction)": 24.4,
            "VLM-R1-3B-Math": 21.9,
            "VLAA-Thinker-3B": 24.4,
            "VOLD": 28.0,
        },
    ),
    *VOLD_ABLATIONS.figures(
        "mathvision",
        "test",
        {
            "VOLD, SFT only": 18.6,
            "VOLD, SFT and GRPO": 24.0,
            "VOLD, SFT on DeepSeek-R1's traces and GRPO": 24.4,
            "VOLD, SFT on DeepSeek-R1's traces and distillation": 24.5,
        },
    ),
    *OPEN_COMPASS.figures("mathvision", "test", {"Qwen2.5-VL-7B-Instruct": 25.4, "Qwen2.5-VL-3B-Instruct": 21.9}),
    *QWEN2_5_VL.figures("mathvision", "test", {"Qwen2.5-VL-7B-Instruct": 25.1, "Qwen2.5-VL-3B-Instruct": 21.2}),
)


def mathvision(name: str, row: Row) -> Item:
    """MATH-Vision. Options that are only A to E stand in the picture. One merged picture serves all markers."""
    identity = text_cell(row, "id")
    options = tuple(numbered(o) for o in listed(cell(row, "options")))
    gold = clean_gold(text_cell(row, "answer"))
    in_picture = options == tuple(LETTERS[: len(options)])
    letter = letter_answer(row, options, "answer")
    choice = bool(options) and names_option(letter)
    return Item(
        name,
        identity,
        numbered(text_cell(row, "question")),
        () if in_picture else options,
        pictures(row, "decoded_image" if "decoded_image" in row.values else "image"),
        letter if choice else gold,
        "choice" if choice else "math",
        cluster=identity,
        tags=tags(row, subject="subject", level="level"),
    )


BENCHMARKS = (
    Benchmark(
        "mathvision",
        "MATH-Vision",
        "MathLLMs/MathVision",
        {"test": [("data/test-*.parquet",)], "testmini": [("data/testmini-*.parquet",)]},
        {"test": 3040, "testmini": 304},
        mathvision,
        {"rule": _RULE, "vlmevalkit": _VLMEVALKIT},
        judging=Judging("mathvision", MATHVISION, question="asked", verdict="mathvision"),
        published=_PUBLISHED,
        score_file=ScoreFile(
            {"test": "MathVision", "testmini": "MathVision_MINI"}, "counts", ("subject",), judged=True, head="Subject"
        ),
    ),
)
