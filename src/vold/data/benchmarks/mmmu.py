"""MMMU: 900 questions of six disciplines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vold.data.benchmarks.benchmark import Benchmark, PromptForm, ScoreFile
from vold.data.benchmarks.columns import (
    cell,
    column_options,
    letter_answer,
    lettered_options,
    numbered_pictures,
    tags,
    text_cell,
)
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.sources import OPEN_COMPASS, QWEN2_5_VL
from vold.data.benchmarks.wording import ALONE_THEN_BOX, MCQ_QUESTION, QUESTION_THEN_BOX
from vold.data.files.cells import listed
from vold.data.files.markers import numbered

if TYPE_CHECKING:
    from vold.data.files.read import Row

# The official prompt asks for the letter alone, which leaves no room to reason.
_RULE = PromptForm(
    option="({letter}) {text}", with_options=QUESTION_THEN_BOX, without_options=ALONE_THEN_BOX, pictures="mentioned"
)
# MMMU_DEV_VAL. An open question is asked without a word more.
_VLMEVALKIT = PromptForm(
    option="{letter}. {text}",
    with_options=MCQ_QUESTION,
    without_options="Question: {question}\n",
    pictures="mentioned",
    again=True,
)
_PUBLISHED = (
    *OPEN_COMPASS.figures("mmmu", "validation", {"Qwen2.5-VL-7B-Instruct": 55.0, "Qwen2.5-VL-3B-Instruct": 51.2}),
    *QWEN2_5_VL.figures("mmmu", "validation", {"Qwen2.5-VL-7B-Instruct": 58.6, "Qwen2.5-VL-3B-Instruct": 53.1}),
)


def mmmu(name: str, row: Row) -> Item:
    """MMMU: choices, and open questions whose gold may be a list of accepted answers."""
    identity = text_cell(row, "id", "index")
    question, images = numbered(text_cell(row, "question")), numbered_pictures(row)
    held = column_options(row)
    form: Any
    options: tuple[str, ...]
    if (cell(row, "question_type") == "open") if held is None else not held:
        gold = text_cell(row, "answer").strip()
        accepted = listed(gold) if gold.startswith("[") else [gold]
        answer, form, options = "\n".join(a.strip() for a in accepted), "text", ()
    else:
        options = lettered_options(row, "options")
        answer, form = letter_answer(row, options, "answer"), "choice"
    found = tags(row, subfield="subfield", difficulty="topic_difficulty")
    subject = re.sub(r"^(?:validation|dev|test)_|_\d+$", "", identity)
    return Item(
        name, identity, question, options, images, answer, form, cluster=identity, tags={"subject": subject, **found}
    )


BENCHMARKS = (
    Benchmark(
        "mmmu",
        "MMMU",
        "lmms-lab/MMMU",
        {split: [(f"data/{split}-*.parquet",), (f"*/{split}-*.parquet",)] for split in ("validation", "dev")},
        {"validation": 900, "dev": 150},
        mmmu,
        {"rule": _RULE, "vlmevalkit": _VLMEVALKIT},
        published=_PUBLISHED,
        score_file=ScoreFile({"validation": "MMMU_DEV_VAL", "dev": "MMMU_DEV_VAL"}, "options", ("subject",), end="acc"),
    ),
)
