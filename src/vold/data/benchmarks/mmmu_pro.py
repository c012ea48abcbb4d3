"""MMMU-Pro: 1,730 questions in three settings, each a benchmark."""

from __future__ import annotations

import string
from dataclasses import replace
from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import Benchmark, PromptForm, ScoreFile
from vold.data.benchmarks.columns import letter_answer, lettered_options, numbered_pictures, pictures, tags, text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.sources import QWEN2_5_VL, VOLD_TABLE_1
from vold.data.benchmarks.wording import MCQ
from vold.data.files.markers import numbered
from vold.errors import DataError

if TYPE_CHECKING:
    from vold.data.files.read import Row

# Official, prompts.yaml "cot": it asks for a line that a rule can read, so no box is needed. The official code writes
# "[image]" for a marker and appends the pictures; here they stand where they are mentioned. Like there, pictures
# that are never mentioned are not shown: some of them are worked solutions.
_RULE = PromptForm(
    option="{letter}. {text}",
    with_options=(
        "{question}\n"
        "{options}\n"
        "Answer the preceding multiple choice question. The last line of your response should be of the following "
        "format: 'Answer: $LETTER' (without quotes) where LETTER is one of options. Think step by step before "
        "answering."
    ),
    pictures="mentioned",
)
_RULE_VISION = PromptForm(
    with_options=(
        "Write out the multiple-choice question in the image and then solve it. The last line of your response "
        "should be of the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of options. "
        "Think step by step before answering."
    )
)
# VLMEvalKit's MMMU_Pro_10c_COT and MMMU_Pro_V_COT. It has no table with 4 options.
_VLMEVALKIT = PromptForm(
    option="{letter}. {text}",
    with_options=(
        "Question: {question}\n"
        "Options:\n"
        "{options}\n"
        "Answer the following multiple-choice question. The last line of your response should be of the following "
        "format: 'Answer: $LETTER' (without quotes) where LETTER is one of the options. Think step by step before "
        "answering. "
    ),
    pictures="mentioned",
    again=True,
)
_VLMEVALKIT_VISION = PromptForm(
    with_options=(
        "Answer the following multiple-choice question in the image. The last line of your response should be of "
        "the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of the options. Think step "
        "by step before answering. "
    )
)
_OVERALL = QWEN2_5_VL.figures(
    "mmmu_pro", "test", {"Qwen2.5-VL-7B-Instruct": 38.3, "Qwen2.5-VL-3B-Instruct": 31.56}, metric="overall"
)
# The vision setting it is: the base model's figure is below the vendor's mean of both settings, and the authors' own
# copy of the data is of this one.
_TABLE_1 = {
    "Qwen2.5-VL-3B-Instruct": 27.1,
    "X-Reasoner-3B (their reproduction)": 31.0,
    "VLM-R1-3B-Math": 28.6,
    "VLAA-Thinker-3B": 24.6,
    "VOLD": 32.0,
}
_HEADING = 'the column is headed "MMMU-Pro(V)" in one reading of the table and names no setting in another'
_VISION = VOLD_TABLE_1.figures(
    "mmmu_pro_vision",
    "test",
    _TABLE_1,
    notes=dict.fromkeys(_TABLE_1, _HEADING) | {"VLAA-Thinker-3B": f"32.2 in another reading; {_HEADING}"},
)


def mmmu_pro(name: str, row: Row) -> Item:
    """MMMU-Pro, standard settings: pictures in columns, markers in question and options, 1 to 12 options."""
    options = lettered_options(row, "options")
    identity = text_cell(row, "id", "index")
    return Item(
        name,
        identity,
        numbered(text_cell(row, "question")),
        options,
        numbered_pictures(row),
        letter_answer(row, options, "answer"),
        "choice",
        cluster=identity,
        tags=tags(row, subject="subject", difficulty="topic_difficulty"),
    )


def mmmu_pro_vision(name: str, row: Row) -> Item:
    """MMMU-Pro, vision setting: question and options stand in the picture."""
    options = lettered_options(row, "options")
    identity = text_cell(row, "id", "index")
    images = pictures(row, "image")
    if not images:
        raise DataError("the question is in the picture, and there is none")
    answer = letter_answer(row, options, "answer")
    return Item(
        name, identity, "", options, images, answer, "choice", cluster=identity, tags=tags(row, subject="subject")
    )


def _answer_line(text: str) -> str:
    """What VLMEvalKit takes for the answer: the only capital letter after the last "Answer:" that begins a line, else
    the rest of that line; without one, all of it."""
    tails = [line.strip()[7:] for line in text.strip().split("\n") if line.strip().startswith("Answer:")]
    if not tails:
        return text
    letters = {letter for letter in tails[-1] if letter in string.ascii_uppercase}
    return letters.pop() if len(letters) == 1 else tails[-1]


_REPO, _SIZE = "MMMU/MMMU_Pro", {"test": 1730}
BENCHMARKS = (
    Benchmark(
        "mmmu_pro_standard10",
        "MMMU-Pro, 10 options",
        _REPO,
        {"test": [("standard (10 options)/test-*.parquet",)]},
        _SIZE,
        mmmu_pro,
        {"rule": _RULE, "vlmevalkit": _VLMEVALKIT},
        judging=replace(MCQ, response=_answer_line),
        published=_OVERALL,
        score_file=ScoreFile({"test": "MMMU_Pro_10c_COT"}, "options", ("subject",), end="acc"),
    ),
    Benchmark(
        "mmmu_pro_standard4",
        "MMMU-Pro, 4 options",
        _REPO,
        {"test": [("standard (4 options)/test-*.parquet",)]},
        _SIZE,
        mmmu_pro,
        {"rule": _RULE},
    ),
    Benchmark(
        "mmmu_pro_vision",
        "MMMU-Pro, vision",
        _REPO,
        {"test": [("vision/test-*.parquet",)]},
        _SIZE,
        mmmu_pro_vision,
        {"rule": _RULE_VISION, "vlmevalkit": _VLMEVALKIT_VISION},
        judging=replace(MCQ, question=lambda item: "placeholder", response=_answer_line),  # VLMEvalKit's column
        published=_VISION,
        score_file=ScoreFile({"test": "MMMU_Pro_V_COT"}, "options", ("subject",), end="acc"),
    ),
)
